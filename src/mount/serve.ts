/**
 * Serves one mount from this process until it is unmounted: the transport answers the kernel; the main thread does the rest (control
 * socket, idle images, signals).
 */
import { pino } from 'pino';
import { UnavailableError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import { BlockCache } from '../backup/block-cache.ts';
import type { FormatName } from '../native/formats.ts';
import { serveControl, type MountStatus } from './control.ts';
import { Filter } from './filter.ts';
import { serveFuseNative } from './fuse-native/transport.ts';
import { mountFiles, removeRecord, writeRecord, type MountRecord } from './mount-record.ts';
import { isMountpoint, prepareMount, unmount } from './mountpoint.ts';
import type { Log } from './native-file-state.ts';
import { Statistics } from './statistics.ts';

export interface MountOptions {
  readonly allowPaths: readonly string[];
  readonly present: FormatName | undefined;
  /** Memory for inflated blocks. */
  readonly cacheBytes: number;
  /** An image that nobody read for this long is closed. */
  readonly idleMs: number;
}

export const defaultCacheBytes = 256 * MiB;
export const defaultIdleMs = 60_000;
/** How often the main thread looks for idle images and for an unmount from outside. */
const lookEveryMs = 500;

export interface ServedMount {
  readonly record: MountRecord;
  /** What a user may want to know: that nothing here reads as a disk yet. */
  readonly hint: string | undefined;
  /** Resolves when the mount is gone, whoever unmounted it. */
  readonly ended: Promise<void>;
  /** Takes the mount away, though files in it may be open. */
  stop(): Promise<void>;
}

/**
 * Mounts `folder` at `mountpoint` and serves it. Resolves when it serves.
 * @throws UsageError, UnavailableError: nothing is mounted then
 */
export async function serveMount(folder: string, mountpoint: string, options: MountOptions): Promise<ServedMount> {
  const real = await prepareMount(folder, mountpoint);
  const files = mountFiles(real.mountpoint);
  const logger = pino(
    { base: { mountpoint: real.mountpoint } },
    pino.destination({ dest: files.log, sync: true, append: true, mode: 0o600 }),
  );
  const log: Log = (level, message, data) => logger[level](data, message);
  const statistics = new Statistics();
  const filter = new Filter({ folder: real.folder, ...options }, statistics, new BlockCache(options.cacheBytes), log);
  const record = { pid: process.pid, ...real, transport: 'fuse-native', startedAt: new Date().toISOString() };
  // A mode that arrives here has met the umask of who asked already.
  process.umask(0);

  try {
    await serveFuseNative(filter, real.mountpoint, process.getuid?.() === 0, log);
  } catch (error) {
    throw new UnavailableError(`${mountpoint}: cannot be mounted`, { cause: error });
  }
  // So that status shows every plugin file from the start.
  filter.list(filter.root);
  writeRecord(record);
  log('info', 'mounted', { folder: real.folder });

  let end: (() => void) | undefined;
  const gone = new Promise<void>((resolve) => (end = resolve));
  const stop = async (): Promise<void> => {
    if (isMountpoint(real.mountpoint)) await unmount(real.mountpoint, true);
    end?.();
  };
  const control = serveControl(files.socket, (request) => {
    if (request.command === 'stop') setImmediate(() => end?.());
    return statusOf(record, options, statistics);
  });
  const look = setInterval(() => {
    filter.closeIdle(options.idleMs);
    if (!isMountpoint(real.mountpoint)) end?.();
  }, lookEveryMs);
  const ended = gone.then(() => {
    clearInterval(look);
    control.close();
    filter.close();
    removeRecord(real.mountpoint);
    log('info', 'unmounted', {});
  });
  return { record, hint: hintOf(filter, options), ended, stop };
}

function statusOf(record: MountRecord, options: MountOptions, statistics: Statistics): MountStatus {
  return {
    ...record,
    cacheBudgetBytes: options.cacheBytes,
    residentBytes: process.memoryUsage.rss(),
    log: mountFiles(record.mountpoint).log,
    files: statistics.snapshot(),
  };
}

/** With images but no plugin file, and none presented, the mount shows nothing new. */
function hintOf(filter: Filter, options: MountOptions): string | undefined {
  const { images, natives } = filter.count();
  if (natives > 0 || options.present !== undefined || images === 0) return undefined;
  return `no plugin file here yet, but ${images} image${images === 1 ? '' : 's'}: make one with veneer plugin create, or mount with --present vhdx to show every image as a disk`;
}
