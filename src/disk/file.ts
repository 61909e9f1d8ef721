/** A raw file or block device as a disk. Holes of a sparse file are zero extents. */
import * as fs from '../base/fs.ts';
import { assert, UnavailableError, UsageError } from '../base/errors.ts';
import { readFully } from '../base/full-io.ts';
import { checkRange, type Disk, type Extent } from './disk.ts';
import { seekData, seekEnd, seekHole } from './lseek.ts';

/**
 * Opens a raw file or block device for reading.
 * @throws UnavailableError when it cannot be opened; UsageError when it is a folder, a pipe or the like.
 */
export function openFileDisk(path: string): Disk {
  return fileDiskOf(open(path, 0), path);
}

/** The same for a path that was resolved and judged before: what has become a symbolic link since is not followed. */
export function openResolvedFileDisk(path: string): Disk {
  return fileDiskOf(open(path, fs.constants.O_NOFOLLOW), path);
}

/** The same of one that is open. @param fd is closed with the disk, or when this throws */
export function fileDiskOf(fd: number, path: string): Disk {
  let closed = false;
  const close = (): void => {
    if (closed) return;
    closed = true;
    fs.closeSync(fd);
  };
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() && !stat.isBlockDevice()) throw new UsageError(`${path}: is neither a file nor a block device`);
    return fileDisk(fd, path, stat.isFile() ? stat.size : seekEnd(fd, path), stat.isFile(), () => closed, close);
  } catch (error) {
    close();
    throw error;
  }
}

function fileDisk(
  fd: number,
  path: string,
  sizeBytes: number,
  mayHaveHoles: boolean,
  isClosed: () => boolean,
  close: () => void,
): Disk {
  /** Another file may have a closed descriptor's number by now. */
  const assertOpen = (): void => assert(!isClosed(), `${path} is read after it was closed`);
  /** A file that has shrunk since it was opened ends in what looks like a hole. */
  const assertNotShrunk = (): void => {
    const now = seekEnd(fd, path);
    if (now >= sizeBytes) return;
    throw new UnavailableError(
      `${path}: shrank from ${sizeBytes} to ${now} bytes while it was read; try again when it is at rest`,
    );
  };
  const disk: Disk = {
    sizeBytes,
    read(target, offset) {
      assertOpen();
      checkRange(disk, offset, target.length);
      readFully(fd, target, offset, path);
    },
    *extents(offset, length): Generator<Extent> {
      checkRange(disk, offset, length);
      if (length === 0) return;
      if (!mayHaveHoles) {
        yield { offset, length, kind: 'data' };
        return;
      }
      const end = offset + length;
      for (let at = offset; at < end;) {
        assertOpen();
        const data = Math.min(seekData(fd, at, path) ?? end, end);
        if (data === end) assertNotShrunk();
        if (data > at) yield { offset: at, length: data - at, kind: 'zero' };
        if (data === end) return;
        const hole = Math.min(seekHole(fd, data, path) ?? end, end);
        yield { offset: data, length: hole - data, kind: 'data' };
        at = hole;
      }
    },
    close,
  };
  return disk;
}

function open(path: string, flags: number): number {
  try {
    // A pipe without a writer must be refused, not waited for.
    return fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | flags);
  } catch (error) {
    throw new UnavailableError(`${path}: cannot be opened`, { cause: error });
  }
}
