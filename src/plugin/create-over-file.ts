/** What a plugin file says of a native disk file that it shows as another: the file is looked at once, and its state is kept. */
import * as fs from '../base/fs.ts';
import { UnavailableError, UsageError } from '../base/errors.ts';
import { closing } from '../base/ownership.ts';
import type { Guid } from '../bytes/guid.ts';
import { sectorBytes } from '../native/geometry.ts';
import { allocatedRuns, type AllocatedRun } from '../native/allocation.ts';
import type { PlanOptions } from '../native/format.ts';
import { planGeometry, type FormatName, type Geometry } from '../native/formats.ts';
import { ownContentAt } from '../source/own-content.ts';
import type { FileAddress } from '../source/address.ts';
import { FrozenSource } from '../source/frozen-source.ts';
import { relativePathOf } from './create-bootable.ts';

/** Two changes that follow each other at once may have one time: a tick of the kernel's clock. Longer than any has. */
const tickMs = 50;

export interface DiskFileOptions extends PlanOptions {
  readonly format: FormatName;
  readonly sourceFormat?: string | undefined;
  /** Of the plugin file. */
  readonly identity: Guid;
}

/** Whether a plugin file over it would show a disk file: what is called an image is to be one, whatever has become of its content. */
export function isDiskFile(file: string, sourceFormat?: string): boolean {
  if (sourceFormat !== undefined) return true;
  const isFile = fs.statSync(file, { throwIfNoEntry: false })?.isFile() === true;
  return isFile && !/\.sp[fi]$/i.test(file) && ownContentAt(file) !== 'image';
}

/**
 * @param sourcePath a link is followed now: the plugin file points to the file itself
 * @throws as openSource; UsageError when it is empty; UnavailableError when it changes meanwhile; as the format's plan does
 */
export function planOverFile(
  sourcePath: string,
  pluginPath: string,
  options: DiskFileOptions,
): { readonly source: FileAddress; readonly native: Geometry } {
  const real = realPathOf(sourcePath);
  using owned = closing(FrozenSource.open(real, options.sourceFormat));
  const file = owned.value;
  if (file.disk.sizeBytes === 0) throw new UsageError(`${sourcePath}: is empty; there is no disk in it`);
  if (file.disk.sizeBytes % sectorBytes !== 0)
    throw new UsageError(
      `${sourcePath}: has ${file.disk.sizeBytes} bytes, which are no whole sectors of ${sectorBytes}; give a file that holds a disk`,
    );
  waitForTick(file.newestNs);
  const state = file.state();
  const { sizeBytes, logicalSectorBytes = 512, physicalSectorBytes = 4096 } = file.disk;
  const facts = { sizeBytes, logicalSectorBytes, physicalSectorBytes, identity: options.identity };
  const runs = (unitBytes: number): AllocatedRun[] => allocatedRuns(file.disk, unitBytes);
  const native = planGeometry(options.format, { ...facts, allocatedRuns: runs }, options);
  file.requireUnchanged();
  return { source: { kind: 'file', path: relativePathOf(real, pluginPath), format: file.format, ...state }, native };
}

function realPathOf(file: string): string {
  try {
    return fs.realpathSync(file);
  } catch (error) {
    throw new UnavailableError(`${file}: cannot be opened`, { cause: error });
  }
}

/** Any change from now on has another time. */
function waitForTick(newestNs: bigint): void {
  if (Date.now() - Number(newestNs / 1_000_000n) >= tickMs) return;
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, tickMs);
}
