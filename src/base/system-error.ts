/** Errors as the system would have thrown them: for names that exist only under the mount, and for system calls that Node does not have. */
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { shownPath } from './fs.ts';

type ErrnoName = keyof typeof constants.errno;

export function systemError(code: ErrnoName, syscall: string, name: string): Error {
  return Object.assign(new Error(`${code}: ${syscall} '${shownPath(name)}'`), {
    code,
    errno: -constants.errno[code],
    syscall,
  });
}

/** @param errno positive, as a system call left it */
export function errorOfErrno(errno: number, syscall: string, name: string): Error {
  return systemError((errno > 0 ? getSystemErrorName(-errno) : 'EIO') as ErrnoName, syscall, name);
}
