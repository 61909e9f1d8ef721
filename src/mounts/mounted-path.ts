/**
 * The path of a mountpoint as the system lists it, found with no call that the mount would have to answer: a mount that is stuck must not stop
 * the commands that tell of it and end it.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { absolutePath } from '../base/given-names.ts';
import { UsageError } from '../base/errors.ts';
import { isMountpoint } from './mountpoint.ts';

/** As the system has it. */
const maxLinks = 40;

/**
 * @param given by a user: relative, or by way of symbolic links
 * @returns where it leads, mounted or not. @throws UsageError where that is nowhere
 */
export function mountedPath(given: string): string {
  let at = absolutePath(given);
  for (let links = 0; links < maxLinks && !isMountpoint(at); links++) {
    const parent = realFolder(path.dirname(at), given);
    const real = path.join(parent, path.basename(at));
    if (isMountpoint(real)) return real;
    const target = readLink(real, given);
    if (target === undefined) return real;
    at = absolutePath(parent, target);
  }
  return at;
}

function realFolder(folder: string, given: string): string {
  try {
    return fs.realpathSync(folder);
  } catch {
    throw new UsageError(`${given}: does not exist`);
  }
}

function readLink(file: string, given: string): string | undefined {
  const stat = fs.lstatSync(file, { throwIfNoEntry: false });
  if (stat === undefined) throw new UsageError(`${given}: does not exist`);
  return stat.isSymbolicLink() ? fs.readlinkSync(file) : undefined;
}
