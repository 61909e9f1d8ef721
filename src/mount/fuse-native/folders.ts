/**
 * From a path of FUSE's, such as `/sub/vm.vhdx`, to the place behind the mount. Its folders are opened one in the other, and no link is
 * followed: the kernel has followed those that it met, so one that is there now was put there since, and leads elsewhere.
 */
import * as fs from '../../base/fs.ts';
import type { Closable } from '../../base/ownership.ts';
import { openPath } from '../../base/open-path.ts';
import type { Filter } from '../filter.ts';
import { HeldPlace, type Place } from '../place.ts';

export class Folders implements Closable {
  readonly #filter: Filter;
  readonly #rootFd: number;

  constructor(filter: Filter) {
    this.#filter = filter;
    this.#rootFd = openPath(filter.root.at, true);
  }

  /** @param use has the place until it returns: only its last name can be one that the folder behind does not have */
  withPlace<T>(fusePath: string, use: (place: Place) => T): T {
    const names = namesOf(fusePath);
    const last = names.pop();
    return this.withFolder(names, (folder) => use(last === undefined ? folder : this.#filter.child(folder, last)));
  }

  /** @param use as for `withPlace` @throws ENOTDIR where a name is no folder, or is a link by now */
  withFolder<T>(names: readonly string[], use: (folder: Place) => T): T {
    let fd = this.#rootFd;
    try {
      for (const name of names) {
        const next = openPath(`/proc/self/fd/${fd}/${name}`);
        this.#letGo(fd);
        fd = next;
      }
      return use(new HeldPlace(fd, '', [this.#filter.root.path, ...names].join('/')));
    } finally {
      this.#letGo(fd);
    }
  }

  close(): void {
    fs.closeSync(this.#rootFd);
  }

  #letGo(fd: number): void {
    if (fd !== this.#rootFd) fs.closeSync(fd);
  }
}

export function namesOf(fusePath: string): string[] {
  return fusePath.split('/').filter((name) => name !== '');
}
