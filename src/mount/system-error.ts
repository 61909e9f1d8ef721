/** Errors as the system would have thrown them, for names that exist only under the mount. */
import { constants } from 'node:os';

export function systemError(code: keyof typeof constants.errno, syscall: string, name: string): Error {
  return Object.assign(new Error(`${code}: ${syscall} '${name}'`), { code, errno: -constants.errno[code], syscall });
}
