/** Writes a chain's disk out as a sparse raw file, or over a block device. */
import * as fs from '../../base/fs.ts';
import { UsageError } from '../../base/errors.ts';
import { closing } from '../../base/ownership.ts';
import { isSameFile } from '../../base/same-file.ts';
import { formatBytes } from '../../base/units.ts';
import { isBlockDevice } from '../../disk/block-device.ts';
import { writeDiskOut } from '../../disk/write-out.ts';
import { writeDiskOver } from '../../disk/write-over.ts';
import type { KeyRing } from '../crypto/key-ring.ts';
import { openChainDisk, type ChainDisk } from './chain.ts';
import { isImageFile } from './folder-images.ts';

export interface ExtractOptions {
  readonly force?: boolean;
  /** OUT may be a block device, all of whose bytes up to the disk's size are written over. */
  readonly mayOverwriteDevice?: boolean;
  /** For an encrypted chain. */
  readonly keys?: KeyRing;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export interface Extracted {
  readonly sizeBytes: number;
  readonly writtenBytes: number;
  /** Of a block device: what of it lies behind the disk's end, and was left as it is. */
  readonly behindBytes?: number;
}

/**
 * Extracts the disk as of `imagePath` to `outPath`: a file, which appears only when it is complete, or a block device, which is read back.
 * @throws UsageError when OUT exists; whatever reading or writing throws: nothing is left behind then but on a device
 */
export function extractImage(imagePath: string, outPath: string, options: ExtractOptions = {}): Extracted {
  using disk = closing(openChainDisk(imagePath, undefined, undefined, options.keys));
  disk.value.requireKey();
  const { sizeBytes } = disk.value;
  if (isBlockDevice(outPath)) {
    assertMayOverwrite(outPath, sizeBytes, options);
    const { writtenBytes, behindBytes } = writeDiskOver(disk.value, outPath, (doneBytes, totalBytes) =>
      options.onProgress?.(doneBytes, totalBytes),
    );
    return { sizeBytes, writtenBytes, behindBytes };
  }
  assertMayExtract(disk.value, outPath, options);
  const writtenBytes = writeDiskOut(disk.value, outPath, (doneBytes) => options.onProgress?.(doneBytes, sizeBytes));
  return { sizeBytes, writtenBytes };
}

function assertMayOverwrite(outPath: string, sizeBytes: number, { mayOverwriteDevice }: ExtractOptions): void {
  if (mayOverwriteDevice === true) return;
  throw new UsageError(
    `${outPath}: is a block device, of which the first ${formatBytes(sizeBytes)} would be lost; say --yes if that is meant`,
  );
}

/** @throws UsageError when the file exists and may not be replaced, or is an image */
export function assertMayExtract(disk: ChainDisk, outPath: string, options: Pick<ExtractOptions, 'force'>): void {
  if (!fs.existsSync(outPath)) return;
  const stat = fs.statSync(outPath);
  if (stat.isBlockDevice())
    throw new UsageError(`${outPath}: is a block device, which takes the raw disk alone; leave --format out`);
  if (options.force !== true) {
    throw new UsageError(`${outPath}: exists already; choose another name, or replace it with --force`);
  }
  if (disk.images.some((image) => isSameFile(image.path, outPath))) {
    throw new UsageError(`${outPath}: is an image of this very chain; choose another name`);
  }
  if (stat.isFile() && isImageFile(outPath))
    throw new UsageError(`${outPath}: is an image, which is never changed; choose another name`);
}
