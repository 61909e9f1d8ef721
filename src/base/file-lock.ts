/** flock(2) through koffi: one writer for one file, released by the kernel when its process ends, however it ends. */
import os from 'node:os';
import koffi from 'koffi';
import { UsageError } from './errors.ts';

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

const flock = koffi.load(null).func('int flock(int fd, int operation)') as (fd: number, operation: number) => number;

/** Takes the file's lock if nobody stands in the way. `unsupported` where the file system has no locks. */
export function tryLock(fd: number, kind: 'shared' | 'exclusive'): 'held' | 'taken' | 'unsupported' {
  if (flock(fd, (kind === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB) === 0) return 'held';
  return koffi.errno() === os.constants.errno.EWOULDBLOCK ? 'taken' : 'unsupported';
}

/** Takes the file's lock, when whoever has it lets it go: for what is held for a moment. */
export function waitForLock(fd: number): void {
  while (flock(fd, LOCK_EX) !== 0 && koffi.errno() === os.constants.errno.EINTR);
}

/** Takes the file's lock. @throws UsageError when another process has it */
export function lockExclusively(fd: number, name: string): void {
  if (flock(fd, LOCK_EX | LOCK_NB) !== 0)
    throw new UsageError(`${name}: another process is writing it; wait for it or stop it`);
}
