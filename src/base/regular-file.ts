/**
 * Opening what must be a regular file. Where others can write to a folder, anything may have the name: a pipe would be waited for, a device
 * would do what devices do when they are opened, a link would lead elsewhere.
 */
import * as fs from './fs.ts';
import { ForbiddenError } from './errors.ts';

const { O_NOFOLLOW, O_NONBLOCK } = fs.constants;

/**
 * Opens a file that is there, and is a regular one; no link at the end of the path is followed.
 * @param shown what messages call it
 * @throws ForbiddenError for anything else; the system's error
 */
export function openRegular(filePath: string, flags: number, shown = filePath): number {
  requireRegular(fs.lstatSync(filePath), shown);
  const fd = fs.openSync(filePath, flags | O_NOFOLLOW | O_NONBLOCK);
  try {
    // Something else may have taken its name since.
    requireRegular(fs.fstatSync(fd), shown);
    return fd;
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

function requireRegular(stat: fs.Stats, shown: string): void {
  if (stat.isFile()) return;
  throw new ForbiddenError(`${shown}: is ${kindOf(stat)}, where a file is expected; move it away`);
}

function kindOf(stat: fs.Stats): string {
  if (stat.isFIFO()) return 'a named pipe';
  if (stat.isSymbolicLink()) return 'a symbolic link';
  if (stat.isSocket()) return 'a socket';
  if (stat.isDirectory()) return 'a folder';
  return 'a device';
}
