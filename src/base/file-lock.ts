/** flock(2) through koffi: one writer for one file, released by the kernel when its process ends, however it ends. */
import os from 'node:os';
import koffi from 'koffi';
import { BusyError } from './errors.ts';

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const lockBytes = 32;

const libc = koffi.load(null);
const flock = libc.func('int flock(int fd, int operation)') as (fd: number, operation: number) => number;
const fcntl = libc.func('int fcntl(int fd, int command, ...)') as (
  fd: number,
  command: number,
  type: string,
  lock: Uint8Array,
) => number;

/** Takes the file's lock if nobody stands in the way. `unsupported` where the file system has no locks. */
export function tryLock(fd: number, kind: 'shared' | 'exclusive'): 'held' | 'taken' | 'unsupported' {
  if (flock(fd, (kind === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB) === 0) return 'held';
  return koffi.errno() === os.constants.errno.EWOULDBLOCK ? 'taken' : 'unsupported';
}

/** Takes the file's lock, when whoever has it lets it go: for what is held for a moment. */
export function waitForLock(fd: number): void {
  while (flock(fd, LOCK_EX) !== 0 && koffi.errno() === os.constants.errno.EINTR);
}

/** How long locks are waited for that somebody is about to let go, in all that it is given to. */
export interface LockPatience {
  leftMs: number;
}

const lockEveryMs = 10;

/**
 * Takes the file's lock.
 * @param patience is used up by waiting; default: none
 * @throws BusyError when another process has it, or had it open for somebody who still has
 */
export function lockExclusively(fd: number, name: string, patience: LockPatience = { leftMs: 0 }): void {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  while (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
    if (patience.leftMs <= 0) throw new BusyError(`${name}: another process is writing it; wait for it or stop it`);
    Atomics.wait(pause, 0, 0, lockEveryMs);
    patience.leftMs -= lockEveryMs;
  }
}

/**
 * Marks a folder as one in which something is done by one at a time, until the descriptor is closed; flock(2) on it stays free for others. (A
 * folder is never open for writing, and so is only locked for reading: whether somebody else has done so, is asked afterwards. Of two who
 * begin at once both may be refused.)
 */
export function tryMark(folderFd: number): 'held' | 'taken' | 'unsupported' {
  const lock = lockOf(F_RDLCK);
  if (fcntl(folderFd, F_OFD_SETLK, 'uint8_t *', lock) !== 0) return 'unsupported';
  const other = lockOf(F_WRLCK);
  if (fcntl(folderFd, F_OFD_GETLK, 'uint8_t *', other) !== 0) return 'unsupported';
  return new DataView(other.buffer).getInt16(0, true) === F_UNLCK ? 'held' : 'taken';
}

/** struct flock: type, whence, start, length (of 64 bits), process. */
function lockOf(type: number): Uint8Array {
  const lock = new Uint8Array(lockBytes);
  const view = new DataView(lock.buffer);
  view.setInt16(0, type, true);
  view.setBigInt64(16, 1n, true);
  return lock;
}
