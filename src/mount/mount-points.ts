/**
 * On which names of a folder something is mounted: another file system, or a folder or file of this one. Read from the system's list, and only
 * when that has changed: the system says so to who polls it.
 */
import * as fs from '../base/fs.ts';
import { mountPoints } from '../base/mount-points.ts';
import { hasChanged } from '../base/system-calls.ts';

const list = '/proc/self/mountinfo';
const none: ReadonlySet<string> = new Set();

export class MountPoints {
  #fd: number | undefined;
  #names: ReadonlyMap<string, ReadonlySet<string>> = new Map();

  /** @param folder absolute, with no symbolic links */
  namesIn(folder: string): ReadonlySet<string> {
    const isFirst = this.#fd === undefined;
    this.#fd ??= fs.openSync(list, fs.constants.O_RDONLY);
    // Asked before it is read: a change after that shows the next time.
    if (hasChanged(this.#fd) || isFirst) this.#names = read();
    return this.#names.get(folder) ?? none;
  }

  close(): void {
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
  }
}

function read(): Map<string, Set<string>> {
  const names = new Map<string, Set<string>>();
  for (const absolute of mountPoints()) {
    const slash = absolute.lastIndexOf('/');
    const folder = slash === 0 ? '/' : absolute.slice(0, slash);
    names.set(folder, (names.get(folder) ?? new Set()).add(absolute.slice(slash + 1)));
  }
  return names;
}
