/** Descriptors that name a file (O_PATH), and what the file of one is called by now. */
import * as fs from './fs.ts';

/** A descriptor that names a file and nothing more: no permission is needed, nothing is opened, no link is followed. */
export function openPath(at: string, follow = false): number {
  return fs.openSync(at, O_PATH | (follow ? 0 : fs.constants.O_NOFOLLOW));
}

/** Node does not name it. The same on all machines that Node runs on. */
const O_PATH = 0o10000000;

const deletedSuffix = ' (deleted)';

/** Whether a name that the system tells of a descriptor is that of a deleted file. One that is called so may count as deleted, too. */
export function isDeleted(name: string): boolean {
  return name.endsWith(deletedSuffix);
}

/** What the file of a descriptor is called now; what it was called last, when it is deleted. */
export function currentPath(fd: number): string {
  const found = fs.readlinkSync(`/proc/self/fd/${fd}`);
  if (!found.endsWith(deletedSuffix) || fs.lstatSync(found, { throwIfNoEntry: false }) !== undefined) return found;
  return found.slice(0, -deletedSuffix.length);
}
