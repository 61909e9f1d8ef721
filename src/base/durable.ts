/**
 * Files that appear whole or not at all.
 *
 * Crash order of a durable commit:
 * 1. write everything to NAME.part
 * 2. fdatasync NAME.part
 * 3. rename NAME.part to NAME
 * 4. fsync the folder
 */
import * as fs from './fs.ts';
import path from 'node:path';
import { writeFailure, writeFully } from './full-io.ts';

/** The suffix of a file that is not finished; a file with it is never opened as what it may become. */
export const unfinishedSuffix = '.part';

const { O_CREAT, O_NOFOLLOW, O_RDWR, O_TRUNC } = fs.constants;

/**
 * Opens NAME.part for writing: empty, or for one who locks it first with what an interrupted job left in it. A link there is not
 * followed, for it may lead anywhere.
 * @param mode of fileModes
 * @throws CapacityError, UnavailableError
 */
export function openUnfinished(finalPath: string, contents: 'empty' | 'as it is', mode: number): number {
  const flags = O_RDWR | O_CREAT | O_NOFOLLOW | (contents === 'empty' ? O_TRUNC : 0);
  try {
    return fs.openSync(finalPath + unfinishedSuffix, flags, mode);
  } catch (error) {
    throw writeFailure(finalPath + unfinishedSuffix, 'create it', error);
  }
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
export function syncFolder(folder: string): void {
  try {
    const fd = fs.openSync(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    throw writeFailure(folder, 'flush the folder to the disk', error);
  }
}

/**
 * Steps 2 to 4: gives an open, completely written NAME.part its final name.
 * @throws CapacityError, UnavailableError; when step 4 fails the file has its final name and is complete, but a power loss may undo that
 */
export function commitFile(fd: number, finalPath: string): void {
  const unfinished = finalPath + unfinishedSuffix;
  flushFile(fd, unfinished);
  try {
    fs.renameSync(unfinished, finalPath);
  } catch (error) {
    throw writeFailure(unfinished, `rename it to ${path.basename(finalPath)}`, error);
  }
  syncFolder(path.dirname(finalPath));
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
 */
export function writeFileDurably(finalPath: string, contents: Uint8Array, mode: number, owner?: FileOwner): void {
  const unfinished = finalPath + unfinishedSuffix;
  const fd = openUnfinished(finalPath, 'empty', mode);
  try {
    if (owner !== undefined) giveTo(fd, owner);
    writeFully(fd, contents, 0, unfinished);
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
