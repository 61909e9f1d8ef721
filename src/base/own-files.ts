/**
 * Files and folders that nobody but this user has a hand in: they are his, they are where they seem to be, and others can neither write nor
 * read them. What somebody else has put there before is refused.
 */
import * as fs from './fs.ts';
import path from 'node:path';
import { ForbiddenError, systemErrorCode } from './errors.ts';
import { fileModes } from './file-modes.ts';

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
const groupAndOthers = 0o077;
const othersMayWrite = 0o002;
const stickyBit = 0o1000;

/**
 * Makes a folder, or takes the one that is there if it is this user's alone, and nobody else can put another in its place.
 * @throws ForbiddenError
 */
export function ownFolder(folder: string): void {
  fs.mkdirSync(folder, { recursive: true, mode: fileModes.runFolder });
  const above = fs.statSync(path.dirname(folder));
  if (![0, ownUid()].includes(above.uid) || ((above.mode & othersMayWrite) !== 0 && (above.mode & stickyBit) === 0))
    throw new ForbiddenError(
      `${path.dirname(folder)}: others may rename what is in it; set XDG_RUNTIME_DIR to a folder of your own`,
    );
  const stat = fs.lstatSync(folder);
  if (!stat.isDirectory()) throw new ForbiddenError(`${folder}: is no folder; move it away`);
  requireOwn(folder, stat);
  if ((stat.mode & groupAndOthers) !== 0)
    throw new ForbiddenError(
      `${folder}: others may use it, and may have put files there; look what is in it, and run: chmod 700 ${folder}`,
    );
}

/**
 * Opens a file of a folder of this user's, or makes it. Never through a link.
 * @param flags of open(2) @returns a descriptor
 * @throws ForbiddenError where something else lies there
 */
export function openOwnFile(file: string, flags: number, mode: number): number {
  let fd: number;
  try {
    fd = fs.openSync(file, flags | O_CREAT | O_NOFOLLOW | O_NONBLOCK, mode);
  } catch (error) {
    if (systemErrorCode(error) === 'ELOOP') throw new ForbiddenError(`${file}: is a symbolic link; remove it`);
    throw error;
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() || stat.nlink !== 1) throw new ForbiddenError(`${file}: is no file of its own; remove it`);
    requireOwn(file, stat);
    if ((stat.mode & groupAndOthers & ~mode) !== 0) fs.fchmodSync(fd, mode);
    return fd;
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

function requireOwn(name: string, { uid }: fs.Stats): void {
  if (uid !== ownUid()) throw new ForbiddenError(`${name}: belongs to user ${uid}; remove it`);
}

function ownUid(): number {
  return process.geteuid?.() ?? 0;
}
