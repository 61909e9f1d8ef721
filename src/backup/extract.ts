/** Writes a chain's disk out as a sparse raw file: only data is written, zeros stay holes. */
import fs from 'node:fs';
import { commitFile, openUnfinished, resizeFile, unfinishedSuffix } from '../base/durable.ts';
import { UsageError } from '../base/errors.ts';
import { writeFully } from '../base/full-io.ts';
import { closing } from '../base/ownership.ts';
import { isSameFile } from '../base/same-file.ts';
import { MiB } from '../base/units.ts';
import type { Disk } from '../disk/disk.ts';
import { openChainDisk } from './chain.ts';

const copyBytes = 4 * MiB;

export interface ExtractOptions {
  readonly force?: boolean;
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
  if (options.force !== true && fs.existsSync(outPath)) {
    throw new UsageError(`${outPath}: exists already; choose another name, or replace it with --force`);
  }
  using disk = closing(openChainDisk(imagePath));
  if (disk.value.images.some((image) => isSameFile(image.path, outPath)))
    throw new UsageError(`${outPath}: is an image of this very chain; choose another name`);
  const unfinished = outPath + unfinishedSuffix;
  const fd = openUnfinished(outPath);
  try {
    const writtenBytes = copyData(disk.value, fd, unfinished, options);
    commitFile(fd, outPath);
    return { sizeBytes: disk.value.sizeBytes, writtenBytes };
  } catch (error) {
    fs.rmSync(unfinished, { force: true });
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

function copyData(disk: Disk, fd: number, name: string, options: ExtractOptions): number {
  const buffer = new Uint8Array(copyBytes);
  let writtenBytes = 0;
  resizeFile(fd, disk.sizeBytes, name);
  for (const extent of disk.extents(0, disk.sizeBytes)) {
    const end = extent.offset + extent.length;
    for (let at = extent.offset; extent.kind === 'data' && at < end; at += copyBytes) {
      const part = buffer.subarray(0, Math.min(copyBytes, end - at));
      disk.read(part, at);
      writeFully(fd, part, at, name);
      writtenBytes += part.length;
      options.onProgress?.(at + part.length, disk.sizeBytes);
    }
  }
  options.onProgress?.(disk.sizeBytes, disk.sizeBytes);
  return writtenBytes;
}
