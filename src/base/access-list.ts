/** POSIX access control lists, as a whole: the mode of a file that has one says less than the list does. */
import koffi from 'koffi';

const attribute = 'system.posix_acl_access';
/** As long as an extended attribute can be. */
const maxBytes = 65_536;

const libc = koffi.load(null);
const fgetxattr = libc.func('int64_t fgetxattr(int fd, const char *name, _Out_ uint8_t *value, size_t size)') as (
  fd: number,
  name: string,
  value: Uint8Array,
  size: number,
) => number;
const fsetxattr = libc.func(
  'int fsetxattr(int fd, const char *name, const uint8_t *value, size_t size, int flags)',
) as (fd: number, name: string, value: Uint8Array, size: number, flags: number) => number;

/**
 * Gives a file the access control list of another, where that has one.
 * @returns false where it has one, and the other file system takes none
 */
export function copyAccessList(fromFd: number, toFd: number): boolean {
  const list = new Uint8Array(maxBytes);
  const length = fgetxattr(fromFd, attribute, list, list.length);
  return length <= 0 || fsetxattr(toFd, attribute, list, length, 0) === 0;
}
