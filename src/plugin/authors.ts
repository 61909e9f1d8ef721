/**
 * Who may have written a plugin file. He decides what it points to; a mount of root opens that for all who may read the plugin file. So that
 * nobody gets to read by it what he may not, whatever it points to must be readable for him, too: this is judged by opening it with his rights.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { namedWriters, type NamedWriters } from '../base/access-list.ts';
import { identityOfUser } from '../base/accounts.ts';
import { ForbiddenError, systemErrorCode, UnavailableError } from '../base/errors.ts';
import { nobody, withIdentity, type Identity } from '../base/identity.ts';

/** Of a plugin file, as its inode had it when the file was read. Plain values: they go to other threads. */
export interface Ownership {
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
  readonly named: NamedWriters;
}

interface Author {
  /** In messages. */
  readonly title: string;
  readonly identity: Identity;
}

const groupMayWrite = 0o020;
const othersMayWrite = 0o002;
const { O_RDONLY, O_NONBLOCK, O_NOFOLLOW, O_DIRECTORY } = fs.constants;

/** @param fd of the file; undefined for an image that is shown with no plugin file: it points to nothing but itself */
export function ownershipOf(stat: fs.BigIntStats, fd?: number): Ownership {
  const named = fd === undefined ? { users: [], groups: [] } : namedWriters(fd);
  return { uid: Number(stat.uid), gid: Number(stat.gid), mode: Number(stat.mode), named };
}

/**
 * @param file with no symbolic links in it
 * @param folder that the mount shows or allows, with `file` in it: what lies above it is no hindrance
 * @param isSame whether a file is the one that was opened
 * @throws ForbiddenError when one of them may not read it; UnavailableError when it is another by now
 */
export function requireReadable(
  file: string,
  folder: string,
  ownership: Ownership,
  pluginPath: string,
  isSame: (stat: fs.BigIntStats) => boolean = () => true,
): void {
  for (const author of authorsOf(ownership)) {
    if (isSame(statAs(author, file, folder, pluginPath))) continue;
    throw new UnavailableError(`${file}: was replaced while it was opened; try again`, { retryable: true });
  }
}

/** None where it is root alone. */
function authorsOf({ uid, gid, mode, named }: Ownership): Author[] {
  const owner = uid === 0 ? undefined : identityOfUser(uid);
  const authors: Author[] = owner === undefined ? [] : [{ title: `user ${uid}`, identity: owner }];
  if ((mode & groupMayWrite) !== 0 && gid !== 0 && gid !== owner?.gid)
    authors.push({ title: `group ${gid}`, identity: { ...nobody, gid } });
  for (const user of named.users) {
    if (user === 0 || user === uid) continue;
    authors.push({ title: `user ${user}`, identity: identityOfUser(user) });
  }
  for (const group of named.groups)
    if (group !== 0) authors.push({ title: `group ${group}`, identity: { ...nobody, gid: group } });
  if ((mode & othersMayWrite) !== 0) authors.push({ title: 'everybody', identity: nobody });
  return authors;
}

function statAs({ title, identity }: Author, file: string, folder: string, pluginPath: string): fs.BigIntStats {
  const folderFd = fs.openSync(folder, O_RDONLY | O_DIRECTORY);
  try {
    const at = `/proc/self/fd/${folderFd}/${path.relative(folder, file)}`;
    return withIdentity(identity, () => {
      const fd = fs.openSync(at, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
      try {
        return fs.fstatSync(fd, { bigint: true });
      } finally {
        fs.closeSync(fd);
      }
    });
  } catch (error) {
    const code = systemErrorCode(error);
    if (code !== 'EACCES' && code !== 'EPERM')
      throw new UnavailableError(`${file}: cannot be opened`, { cause: error, retryable: true });
    throw new ForbiddenError(
      `${pluginPath}: ${title} may write it, but may not read ${file}, to which it points; let them read that, or mount with --trust-plugin-files if that is meant`,
    );
  } finally {
    fs.closeSync(folderFd);
  }
}
