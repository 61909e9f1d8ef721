/** Reads until full, writes until all is written. A short count is never taken for success. */
import fs from 'node:fs';
import { UnavailableError } from './errors.ts';

/**
 * Fills all of `target` from `position` of the file.
 * @throws UnavailableError when the file ends before or the system call fails.
 */
export function readFully(fd: number, target: Uint8Array, position: number, name: string): void {
  let done = 0;
  while (done < target.length) {
    const count = readSome(fd, target, done, position + done, name);
    if (count === 0) {
      throw new UnavailableError(`${name}: ends at byte ${position + done}, ${target.length - done} bytes short; was it truncated?`);
    }
    done += count;
  }
}

/**
 * Writes all of `source` at `position` of the file. System errors (ENOSPC, EIO) pass through as they are.
 * A write that reports zero bytes is an error, not a reason to spin.
 */
export function writeFully(fd: number, source: Uint8Array, position: number, name: string): void {
  let done = 0;
  while (done < source.length) {
    const count = fs.writeSync(fd, source, done, source.length - done, position + done);
    if (count <= 0) throw new UnavailableError(`${name}: wrote 0 of ${source.length - done} bytes at byte ${position + done}`);
    done += count;
  }
}

function readSome(fd: number, target: Uint8Array, start: number, position: number, name: string): number {
  try {
    return fs.readSync(fd, target, start, target.length - start, position);
  } catch (error) {
    throw new UnavailableError(`${name}: cannot read at byte ${position}`, { cause: error, retryable: true });
  }
}
