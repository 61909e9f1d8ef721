/** `veneer status` */
import { Command } from 'commander';
import { z } from 'zod';
import { describeError, UnavailableError, UsageError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { askMount } from '../mounts/control.ts';
import { findRecord, listRecords, mountFiles } from '../mounts/mount-record.ts';
import { mountStatusSchema, type MountStatus } from '../mounts/mount-status.ts';
import { mountedPath } from '../mounts/mounted-path.ts';
import { statusText as fillText } from './fill-text.ts';
import { say, sayJson, warn } from './output.ts';

/** `status`: one for each mount. */
export const statusSchema = z.array(mountStatusSchema);

export function statusCommand(): Command {
  return new Command('status')
    .description('show what is mounted and how it is used')
    .argument('[mountpoint]', 'one mount (default: all)')
    .option('--json', 'for programs')
    .action(async (mountpoint: string | undefined, flags: { json?: boolean }) => {
      const asked = await Promise.allSettled(mountpointsOf(mountpoint).map(askForStatus));
      const failures = asked.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason as unknown] : []));
      const mounts = asked.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
      if (flags.json === true) sayJson(statusSchema, mounts);
      else if (mounts.length > 0)
        say(...mounts.flatMap((mount, index) => [...(index === 0 ? [] : ['']), ...mountText(mount)]));
      else if (failures.length === 0) say('nothing is mounted');
      warn(...failures.slice(1).map((failure) => `veneer: ${describeError(failure)}`));
      if (failures.length > 0) throw failures[0];
    });
}

function mountpointsOf(mountpoint: string | undefined): string[] {
  if (mountpoint === undefined) return listRecords().map((record) => record.mountpoint);
  const real = mountedPathOf(mountpoint);
  if (real === undefined || findRecord(real) === undefined)
    throw new UsageError(`${mountpoint}: no veneer mount is there; see: veneer status`);
  return [real];
}

/** The mount itself is asked nothing: it may be stuck. */
function mountedPathOf(mountpoint: string): string | undefined {
  try {
    return mountedPath(mountpoint);
  } catch {
    return undefined;
  }
}

async function askForStatus(mountpoint: string): Promise<MountStatus> {
  try {
    return await askMount(mountFiles(mountpoint).socket, 'status', {});
  } catch (error) {
    throw new UnavailableError(`${mountpoint}: cannot tell its status`, { cause: error });
  }
}

function mountText(mount: MountStatus): string[] {
  const head = [
    `${mount.folder} at ${mount.mountpoint}, since ${mount.startedAt}`,
    `  process ${mount.pid}, ${mount.transport}, ${formatBytes(mount.residentBytes)} resident, cache budget ${formatBytes(mount.cacheBudgetBytes)}`,
    ...servingText(mount.serving),
    `  log ${mount.log}`,
  ];
  const fills = (mount.fills ?? []).flatMap((fill) =>
    fillText(fill).map((line, index) => (index === 0 ? `  fill of ${line}` : `  ${line}`)),
  );
  return [...head, ...mount.files.flatMap(fileText), ...fills];
}

function servingText(serving: MountStatus['serving']): string[] {
  if (serving === undefined) return [];
  const died = serving.diedWorkers === 0 ? '' : `, ${serving.diedWorkers} died and were replaced`;
  return [
    `  ${serving.workers} workers${died}, ${serving.requests} requests, ${serving.openFiles} files open, ${serving.rememberedFiles} remembered by the kernel`,
  ];
}

function fileText(file: MountStatus['files'][number]): string[] {
  const latency = file.latencyMicroseconds;
  const times =
    latency === undefined
      ? 'no reads yet'
      : `read latency p50 ${latency.p50}, p90 ${latency.p90}, p99 ${latency.p99} us`;
  const blocks = file.cacheHits + file.cacheMisses;
  const hits = blocks === 0 ? '' : `, ${Math.round((100 * file.cacheHits) / blocks)} % of blocks from the cache`;
  return [
    `  ${file.name}: ${formatBytes(file.sizeBytes)}, open ${file.openNow} (${file.opens} in all), image ${file.imageOpenNow > 0 ? 'open' : 'not open'} (opened ${file.imageOpens} times)`,
    `    ${file.reads} reads, ${formatBytes(file.readBytes)}${hits}, ${file.errors} errors, ${times}`,
    ...(file.lastError === undefined ? [] : [`    last error, ${file.lastError.at}: ${file.lastError.message}`]),
    ...(file.reason === undefined ? [] : [`    ${file.reason}`]),
  ];
}
