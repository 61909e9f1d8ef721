/**
 * Files that appear whole or not at all.
 *
 * Crash order of a durable commit:
 * 1. write everything to NAME.part
 * 2. fdatasync NAME.part
 * 3. rename NAME.part to NAME
 * 4. fsync the folder
 */
import fs from 'node:fs';
import path from 'node:path';
import { writeFully } from './full-io.ts';

/** The suffix of a file that is not finished; a file with it is never opened as what it may become. */
export const unfinishedSuffix = '.part';

/** Makes a rename or a new name in `folder` durable. */
export function syncFolder(folder: string): void {
  const fd = fs.openSync(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Steps 2 to 4: gives an open, completely written NAME.part its final name. */
export function commitFile(fd: number, finalPath: string): void {
  fs.fdatasyncSync(fd);
  fs.renameSync(finalPath + unfinishedSuffix, finalPath);
  syncFolder(path.dirname(finalPath));
}

/** Writes a small file in one durable commit; on failure nothing is left behind. */
export function writeFileDurably(finalPath: string, contents: Uint8Array): void {
  const unfinished = finalPath + unfinishedSuffix;
  const fd = fs.openSync(unfinished, 'w');
  try {
    writeFully(fd, contents, 0, unfinished);
    commitFile(fd, finalPath);
  } catch (error) {
    fs.rmSync(unfinished, { force: true });
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}
