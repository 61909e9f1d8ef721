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

/** Whom a list names besides the owner, the owner's group and all others. */
export interface NamedWriters {
  readonly users: readonly number[];
  readonly groups: readonly number[];
}

/** acl(5): a version, then entries of tag, permissions and id; numbers are little-endian. */
const entriesAt = 4;
const entryBytes = 8;
const tag = { user: 0x02, group: 0x08, mask: 0x10 } as const;
const mayWrite = 0o2;

/** Who may write a file by its list. None where it has none, or its file system knows none. */
export function namedWriters(fd: number): NamedWriters {
  const list = Buffer.alloc(maxBytes);
  const length = fgetxattr(fd, attribute, list, list.length);
  const entries = Array.from({ length: Math.max(0, Math.floor((length - entriesAt) / entryBytes)) }, (_, index) => {
    const at = entriesAt + index * entryBytes;
    return { tag: list.readUInt16LE(at), permissions: list.readUInt16LE(at + 2), id: list.readUInt32LE(at + 4) };
  });
  const mask = entries.find((entry) => entry.tag === tag.mask)?.permissions ?? mayWrite;
  const idsOf = (wanted: number): number[] =>
    entries.flatMap((entry) => (entry.tag === wanted && (entry.permissions & mask & mayWrite) !== 0 ? [entry.id] : []));
  return { users: idsOf(tag.user), groups: idsOf(tag.group) };
}

/**
 * Gives a file the access control list of another, where that has one.
 * @returns false where it has one, and the other file system takes none
 */
export function copyAccessList(fromFd: number, toFd: number): boolean {
  const list = new Uint8Array(maxBytes);
  const length = fgetxattr(fromFd, attribute, list, list.length);
  return length <= 0 || fsetxattr(toFd, attribute, list, length, 0) === 0;
}
