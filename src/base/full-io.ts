/** Reads until full, writes until all is written. A short count is never taken for success. */
import * as fs from './fs.ts';
import { CapacityError, systemErrorCode, TooLargeError, UnavailableError, type VeneerError } from './errors.ts';

/**
 * Fills all of `target` from `position` of the file.
 * @throws UnavailableError when the file ends before or the system call fails.
 */
export function readFully(fd: number, target: Uint8Array, position: number, name: string): void {
  let done = 0;
  while (done < target.length) {
    const count = readSome(fd, target, done, position + done, name);
    if (count === 0) {
      throw new UnavailableError(
        `${name}: ends at byte ${position + done}, ${target.length - done} bytes short; was it truncated?`,
      );
    }
    done += count;
  }
}

/**
 * Fills all targets, one after the other, from `position` of the file: with one system call where the file gives all at once.
 * @throws UnavailableError when the file ends before or the system call fails.
 */
export function readFullyInto(fd: number, targets: readonly Uint8Array[], position: number, name: string): void {
  let done = targets.length > 1 ? readSomeInto(fd, targets, position, name) : 0;
  let at = position;
  for (const target of targets) {
    if (done < target.length) readFully(fd, target.subarray(done), at + done, name);
    done = Math.max(0, done - target.length);
    at += target.length;
  }
}

/**
 * Writes all of `source` at `position` of the file.
 * @throws CapacityError when the disk is full; UnavailableError when the write fails otherwise, or reports zero bytes
 */
export function writeFully(fd: number, source: Uint8Array, position: number, name: string): void {
  let done = 0;
  while (done < source.length) {
    const count = writeSome(fd, source, done, position + done, name);
    if (count <= 0)
      throw new UnavailableError(`${name}: wrote 0 of ${source.length - done} bytes at byte ${position + done}`);
    done += count;
  }
}

/** The error for a system call on `name` that failed to change it; `intent` completes "cannot …" and "no room to …". */
export function writeFailure(name: string, intent: string, cause: unknown): VeneerError {
  const code = systemErrorCode(cause);
  if (code === 'EFBIG')
    return new TooLargeError(`${name}: cannot ${intent}: its file system keeps no file so large`, { cause });
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? new CapacityError(`${name}: no room to ${intent}; free some space and run it again`, { cause })
    : new UnavailableError(`${name}: cannot ${intent}`, { cause });
}

function readSome(fd: number, target: Uint8Array, start: number, position: number, name: string): number {
  try {
    return fs.readSync(fd, target, start, target.length - start, position);
  } catch (error) {
    throw new UnavailableError(`${name}: cannot read at byte ${position}`, { cause: error, retryable: true });
  }
}

function readSomeInto(fd: number, targets: readonly Uint8Array[], position: number, name: string): number {
  try {
    return fs.readvSync(fd, targets, position);
  } catch (error) {
    throw new UnavailableError(`${name}: cannot read at byte ${position}`, { cause: error, retryable: true });
  }
}

function writeSome(fd: number, source: Uint8Array, start: number, position: number, name: string): number {
  try {
    return fs.writeSync(fd, source, start, source.length - start, position);
  } catch (error) {
    throw writeFailure(name, `write at byte ${position}`, error);
  }
}
