/**
 * Extended attributes of a file behind, of those kinds that are shown under the mount: access control lists, by which the kernel judges who
 * may open what, and those that users keep for themselves. All others are for the system behind: capabilities, labels, what root trusts.
 *
 * Paths lead to the file by `/proc/self/fd/N`, which no link is followed behind.
 */
import koffi from 'koffi';
import { systemErrorCode } from '../base/errors.ts';
import { bytesOfName, nameOfBytes, zeroTerminated } from '../base/names.ts';
import { errorOfErrno, systemError } from '../base/system-error.ts';

const accessList = 'system.posix_acl_access';
/** Of a folder: what is made in it gets this one. */
const defaultList = 'system.posix_acl_default';
const usersPrefix = 'user.';
/** XATTR_LIST_MAX: no list of names is longer. */
const maxListBytes = 64 * 1024;
const nothing = new Uint8Array(0);

const libc = koffi.load(null);
const getxattr = libc.func(
  'int64_t getxattr(const uint8_t *path, const uint8_t *name, _Out_ uint8_t *value, size_t size)',
) as (path: Uint8Array, name: Uint8Array, value: Uint8Array, size: number) => number;
const setxattr = libc.func(
  'int setxattr(const uint8_t *path, const uint8_t *name, const uint8_t *value, size_t size, int flags)',
) as (path: Uint8Array, name: Uint8Array, value: Uint8Array, size: number, flags: number) => number;
const listxattr = libc.func('int64_t listxattr(const uint8_t *path, _Out_ uint8_t *list, size_t size)') as (
  path: Uint8Array,
  list: Uint8Array,
  size: number,
) => number;
const removexattr = libc.func('int removexattr(const uint8_t *path, const uint8_t *name)') as (
  path: Uint8Array,
  name: Uint8Array,
) => number;

/**
 * @param value is filled from its start; an empty one asks for the length alone
 * @returns the attribute's length
 * @throws ENODATA where there is none; ERANGE where it is longer than `value`; EOPNOTSUPP for a kind that is not shown
 */
export function readAttribute(at: string, name: string, value: Uint8Array): number {
  requireShown(name);
  try {
    return checked(getxattr(zeroTerminated(at), zeroTerminated(name), value, value.length), 'getxattr', name);
  } catch (error) {
    // A file system without these lists has none for any file.
    if (isList(name) && systemErrorCode(error) === 'EOPNOTSUPP') throw systemError('ENODATA', 'getxattr', name);
    throw error;
  }
}

/** @param flags of setxattr(2) */
export function writeAttribute(at: string, name: string, value: Uint8Array, flags: number): void {
  requireShown(name);
  checked(setxattr(zeroTerminated(at), zeroTerminated(name), value, value.length, flags), 'setxattr', name);
}

export function removeAttribute(at: string, name: string): void {
  requireShown(name);
  checked(removexattr(zeroTerminated(at), zeroTerminated(name)), 'removexattr', name);
}

/** The names that are shown, each ending in a zero byte. */
export function listAttributes(at: string): Uint8Array {
  const list = Buffer.allocUnsafe(maxListBytes);
  const lengthBytes = checked(listxattr(zeroTerminated(at), list, list.length), 'listxattr', at);
  const names = nameOfBytes(list.subarray(0, lengthBytes)).split('\0');
  return bytesOfName(
    names
      .filter(isShown)
      .map((name) => `${name}\0`)
      .join(''),
  );
}

/** Whether what is made in a folder gets its rights from the folder, and not from the umask of who makes it. */
export function handsRightsOn(folder: string): boolean {
  return getxattr(zeroTerminated(folder), zeroTerminated(defaultList), nothing, 0) > 0;
}

function requireShown(name: string): void {
  if (!isShown(name)) throw systemError('EOPNOTSUPP', 'xattr', name);
}

function isShown(name: string): boolean {
  return isList(name) || name.startsWith(usersPrefix);
}

function isList(name: string): boolean {
  return name === accessList || name === defaultList;
}

function checked(result: number, syscall: string, name: string): number {
  if (result < 0) throw errorOfErrno(koffi.errno(), syscall, name);
  return result;
}
