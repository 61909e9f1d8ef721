/**
 * Files that were deleted behind the mount. A node holds its file, and with it the file's room on the disk, until the kernel forgets it; a look
 * at the name under the mount makes the kernel see that it is gone. Done by the main thread, some nodes at a time.
 */
import * as fs from '../../base/fs.ts';
import { systemErrorCode } from '../../base/errors.ts';
import { nativePath } from '../../base/names.ts';
import type { NodeTable } from './node-table.ts';
import { OtherFileSystems } from './other-file-systems.ts';

/** Nodes that are looked at in one turn. */
const nodesPerLook = 2000;

export class DeletedFiles {
  readonly #nodes: NodeTable;
  readonly #folder: string;
  readonly #mountpoint: string;
  #next = 0;

  constructor(nodes: NodeTable, folder: string, mountpoint: string) {
    this.#nodes = nodes;
    this.#folder = folder;
    this.#mountpoint = mountpoint;
  }

  look(): void {
    if (this.#next >= this.#nodes.end) this.#next = 0;
    const span = this.#nodes.spanOf(nodesPerLook);
    const others = new OtherFileSystems(this.#folder);
    for (const { fd } of this.#nodes.descriptors(this.#next, span)) {
      try {
        if (others.have(fd)) continue;
        if (fs.fstatSync(fd).nlink === 0) this.#showGone(pathOf(fd).replace(/ \(deleted\)$/, ''));
      } catch (error) {
        // Forgotten this moment.
        if (systemErrorCode(error) === undefined) throw error;
      }
    }
    this.#next += span;
  }

  #showGone(path: string): void {
    if (!path.startsWith(`${this.#folder}/`)) return;
    const under = this.#mountpoint + path.slice(this.#folder.length);
    fs.promises.lstat(nativePath(under)).catch(() => undefined);
  }
}

/** As the system has it: the file is not touched. */
function pathOf(fd: number): string {
  return fs.readlinkSync(`/proc/self/fd/${fd}`);
}
