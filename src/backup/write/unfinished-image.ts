/** The file that becomes an image: IMAGE.veneer-part, written by one process at a time, and removed when that fails. */
import * as fs from '../../base/fs.ts';
import { openUnfinished, resizeFile, unfinishedPathOf } from '../../base/durable.ts';
import { UsageError } from '../../base/errors.ts';
import { fileModes } from '../../base/file-modes.ts';
import { lockExclusively } from '../../base/file-lock.ts';

const permissions = 0o777;

/**
 * Has `write` fill IMAGE.veneer-part, which it gives its name itself. What an interrupted job left in the file is gone before.
 * @param check called before anything is written, once the file is ours
 * @param from images that it is made of, or on: nobody may read it who may not read all of them
 * @throws BusyError when another process writes it; whatever `write` throws: the file is removed then
 */
export async function writeUnfinished(
  imagePath: string,
  check: () => void,
  write: (fd: number, name: string) => Promise<void> | void,
  from: readonly string[] = [],
): Promise<void> {
  const unfinished = unfinishedPathOf(imagePath);
  const fd = openUnfinished(imagePath, 'as it is', fileModes.image);
  try {
    lockExclusively(fd, unfinished);
    assertStillUnfinished(fd, unfinished);
    try {
      check();
      restrictMode(fd, from);
      resizeFile(fd, 0, unfinished);
      await write(fd, unfinished);
    } catch (error) {
      fs.rmSync(unfinished, { force: true });
      throw error;
    }
  } finally {
    fs.closeSync(fd);
  }
}

function restrictMode(fd: number, from: readonly string[]): void {
  const { mode } = fs.fstatSync(fd);
  const allowed = from.reduce<number>((bits, file) => bits & fs.statSync(file).mode, fileModes.image);
  if ((mode & permissions & ~allowed) !== 0) fs.fchmodSync(fd, mode & allowed);
}

/** Whoever had the lock before us may have renamed the file, which is a finished image then, or removed it. */
function assertStillUnfinished(fd: number, unfinished: string): void {
  const ours = fs.fstatSync(fd, { bigint: true });
  const named = fs.statSync(unfinished, { bigint: true, throwIfNoEntry: false });
  if (named?.dev === ours.dev && named.ino === ours.ino) return;
  throw new UsageError(`${unfinished}: another process has just finished it; look at what it made, or run it again`);
}
