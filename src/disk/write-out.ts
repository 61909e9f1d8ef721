/** Writes a disk to a sparse file: only data is written, zeros stay holes. The file appears when it is complete, or not at all. */
import * as fs from '../base/fs.ts';
import { commitFile, openUnfinished, resizeFile, unfinishedPathOf } from '../base/durable.ts';
import { fileModes } from '../base/file-modes.ts';
import { startWriting } from '../base/file-advice.ts';
import { writeFully } from '../base/full-io.ts';
import { MiB } from '../base/units.ts';
import type { Disk } from './disk.ts';

const copyBytes = MiB;

/**
 * @param onProgress is told up to which byte of the disk it is done
 * @returns bytes of data written
 * @throws whatever reading or writing throws: no unfinished file is left then
 */
export function writeDiskOut(disk: Disk, outPath: string, onProgress: (doneBytes: number) => void): number {
  const unfinished = unfinishedPathOf(outPath);
  const fd = openUnfinished(outPath, 'empty', fileModes.diskFile);
  try {
    const writtenBytes = copyData(disk, fd, unfinished, onProgress);
    commitFile(fd, outPath);
    return writtenBytes;
  } catch (error) {
    fs.rmSync(unfinished, { force: true });
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

function copyData(disk: Disk, fd: number, name: string, onProgress: (doneBytes: number) => void): number {
  const buffer = new Uint8Array(copyBytes);
  let writtenBytes = 0;
  resizeFile(fd, disk.sizeBytes, name);
  for (const extent of disk.extents(0, disk.sizeBytes)) {
    const end = extent.offset + extent.length;
    for (let at = extent.offset; extent.kind === 'data' && at < end; at += copyBytes) {
      const part = buffer.subarray(0, Math.min(copyBytes, end - at));
      disk.read(part, at);
      writeFully(fd, part, at, name);
      startWriting(fd, at, part.length);
      writtenBytes += part.length;
      onProgress(at + part.length);
    }
  }
  onProgress(disk.sizeBytes);
  return writtenBytes;
}
