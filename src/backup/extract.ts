/** Writes a chain's disk out as a sparse raw file. */
import * as fs from '../base/fs.ts';
import { UsageError } from '../base/errors.ts';
import { closing } from '../base/ownership.ts';
import { isSameFile } from '../base/same-file.ts';
import { writeDiskOut } from '../disk/write-out.ts';
import { openChainDisk, type ChainDisk } from './chain.ts';
import type { KeyRing } from './key-ring.ts';

export interface ExtractOptions {
  readonly force?: boolean;
  /** For an encrypted chain. */
  readonly keys?: KeyRing;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Extracts the disk as of `imagePath` to `outPath`, which appears only when it is complete.
 * @returns size of the disk, and bytes written
 * @throws UsageError when OUT exists; whatever reading or writing throws: nothing is left behind then
 */
export function extractImage(
  imagePath: string,
  outPath: string,
  options: ExtractOptions = {},
): { sizeBytes: number; writtenBytes: number } {
  using disk = closing(openChainDisk(imagePath, undefined, undefined, options.keys));
  disk.value.requireKey();
  const { sizeBytes } = disk.value;
  assertMayExtract(disk.value, outPath, options);
  const writtenBytes = writeDiskOut(disk.value, outPath, (doneBytes) => options.onProgress?.(doneBytes, sizeBytes));
  return { sizeBytes, writtenBytes };
}

/** @throws UsageError when the file exists and may not be replaced, or is one of the chain's own images */
export function assertMayExtract(disk: ChainDisk, outPath: string, options: Pick<ExtractOptions, 'force'>): void {
  if (options.force !== true && fs.existsSync(outPath)) {
    throw new UsageError(`${outPath}: exists already; choose another name, or replace it with --force`);
  }
  if (disk.images.some((image) => isSameFile(image.path, outPath))) {
    throw new UsageError(`${outPath}: is an image of this very chain; choose another name`);
  }
}
