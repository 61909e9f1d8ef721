/**
 * Files that appear whole or not at all.
 *
 * Crash order of a durable commit:
 * 1. write everything to NAME.veneer-part
 * 2. fdatasync NAME.veneer-part
 * 3. rename NAME.veneer-part to NAME
 * 4. fsync the folder
 */
import * as fs from './fs.ts';
import path from 'node:path';
import { UnavailableError, UsageError } from './errors.ts';
import { writeFailure, writeFully } from './full-io.ts';
import { suffixed } from './suffixed.ts';

/** The suffix of a file that is not finished; a file with it is never opened as what it may become. */
export const unfinishedSuffix = '.veneer-part';

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = fs.constants;

/** What earlier versions called it: not written or removed any more, and never opened as what it may become. */
const earlierSuffix = '.part';

/** Whether a file is called as one that is not finished. */
export function isUnfinishedName(name: string): boolean {
  return name.endsWith(unfinishedSuffix) || name.endsWith(earlierSuffix);
}

/** NAME.veneer-part. */
export function unfinishedPathOf(finalPath: string): string {
  return suffixed(finalPath, unfinishedSuffix);
}

/**
/**
 * Opens NAME.veneer-part for writing: a new file in the place of whatever had that name (an interrupted job's, or something that was put there for
 * us to write into), or, for one who locks it first, with what an interrupted job left in it. A link there is not followed, for it may lead
 * anywhere, and a pipe not waited for.
 * @param mode of fileModes
 * @param shown what messages call the file that it is to become
 * @throws UsageError when something that is no regular file has the final name; CapacityError, UnavailableError
 */
export function openUnfinished(
  finalPath: string,
  contents: 'empty' | 'as it is',
  mode: number,
  shown = finalPath,
): number {
  requireReplaceable(finalPath, shown);
  const unfinished = unfinishedPathOf(finalPath);
  try {
    if (contents === 'as it is' && isOwn(unfinished))
      return fs.openSync(unfinished, O_RDWR | O_NOFOLLOW | O_NONBLOCK, mode);
    fs.rmSync(unfinished, { force: true });
    return fs.openSync(unfinished, O_RDWR | O_CREAT | O_EXCL, mode);
  } catch (error) {
    throw writeFailure(unfinishedPathOf(shown), 'create it', error);
  }
}

/**
 * A rename would replace a link, a device or a pipe itself, and not what it stands for.
 * @throws UsageError, of a folder UnavailableError, when something that is no regular file has this name
 */
function requireReplaceable(finalPath: string, shown: string): void {
  const stat = lstatOrNothing(finalPath);
  if (stat === undefined || stat.isFile()) return;
  if (stat.isSymbolicLink())
    throw new UsageError(
      `${shown}: is a symbolic link, and would be replaced itself; name the file that it leads to (${fs.readlinkSync(finalPath)})`,
    );
  const message = `${shown}: is ${kindOf(stat)}, which no file takes the place of; choose another name`;
  throw stat.isDirectory() ? new UnavailableError(message) : new UsageError(message);
}

/** What cannot be looked at cannot be opened either, which tells why. */
function lstatOrNothing(file: string): fs.Stats | undefined {
  try {
    return fs.lstatSync(file, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function kindOf(stat: fs.Stats): string {
  if (stat.isDirectory()) return 'a folder';
  if (stat.isBlockDevice()) return 'a block device';
  if (stat.isCharacterDevice()) return 'a character device';
  return stat.isFIFO() ? 'a pipe' : 'a socket';
}

/** Whether a file is there that this user's own job has left. */
function isOwn(unfinished: string): boolean {
  const stat = fs.lstatSync(unfinished, { throwIfNoEntry: false });
  return stat?.isFile() === true && stat.uid === process.geteuid?.() && stat.nlink === 1;
}

/** Makes what was written durable. After a failure none of it may be relied on. @throws CapacityError, UnavailableError */
export function flushFile(fd: number, name: string): void {
  try {
    fs.fdatasyncSync(fd);
  } catch (error) {
    throw writeFailure(name, 'flush it to the disk', error);
  }
}

/** Sets the length of a file. @throws CapacityError, UnavailableError */
export function resizeFile(fd: number, sizeBytes: number, name: string): void {
  try {
    fs.ftruncateSync(fd, sizeBytes);
  } catch (error) {
    throw writeFailure(name, `make it ${sizeBytes} bytes long`, error);
  }
}

/** Makes a rename or a new name in `folder` durable. @throws CapacityError, UnavailableError */
export function syncFolder(folder: string, shown = folder): void {
  try {
    const fd = fs.openSync(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    throw writeFailure(shown, 'flush the folder to the disk', error);
  }
}

/**
 * Steps 2 to 4: gives an open, completely written NAME.veneer-part its final name.
 * @param shown what messages call the file
 * @throws CapacityError, UnavailableError; when step 4 fails the file has its final name and is complete, but a power loss may undo that
 */
export function commitFile(fd: number, finalPath: string, shown = finalPath): void {
  const unfinished = unfinishedPathOf(finalPath);
  flushFile(fd, unfinishedPathOf(shown));
  requireOurs(fd, unfinished, shown);
  requireReplaceable(finalPath, shown);
  try {
    fs.renameSync(unfinished, finalPath);
  } catch (error) {
    throw writeFailure(unfinishedPathOf(shown), `rename it to ${path.basename(finalPath)}`, error);
  }
  syncFolder(path.dirname(finalPath), path.dirname(shown));
}

/** Another process that makes the same file has put its own in our place: what is renamed then would be half of that. */
function requireOurs(fd: number, unfinished: string, shown: string): void {
  const ours = fs.fstatSync(fd, { bigint: true });
  const named = fs.lstatSync(unfinished, { bigint: true, throwIfNoEntry: false });
  if (named?.dev === ours.dev && named.ino === ours.ino) return;
  throw new UnavailableError(`${shown}: another process is making it, too; see which of them is to stay`, {
    retryable: true,
  });
}

/** Whose a file is to be. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

/**
 * Writes a small file in one durable commit; on failure nothing is left behind.
 * @param mode of fileModes
 * @param owner of a file that it is written anew for, or that it goes with: it belongs to the same, where the system lets it, and is for no others
 * @param onWritten called when all is written, just before the file takes its name; what it throws leaves everything as it was
 */
export function writeFileDurably(
  finalPath: string,
  contents: Uint8Array,
  mode: number,
  owner?: FileOwner,
  onWritten?: () => void,
): void {
  const unfinished = unfinishedPathOf(finalPath);
  const fd = openUnfinished(finalPath, 'empty', mode);
  try {
    if (owner !== undefined) giveTo(fd, owner);
    writeFully(fd, contents, 0, unfinished);
    flushFile(fd, unfinished);
    onWritten?.();
    commitFile(fd, finalPath);
  } catch (error) {
    fs.rmSync(unfinished, { force: true });
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

/** Only root may give files away; of another user it is his own, who has written it now. */
function giveTo(fd: number, { uid, gid, mode }: FileOwner): void {
  if (process.geteuid?.() === 0) fs.fchownSync(fd, uid, gid);
  fs.fchmodSync(fd, mode & 0o666);
}
