/**
 * Files that were deleted behind the mount. A node holds its file, and with it the file's room on the disk, until the kernel forgets it; a look
 * at the name under the mount makes the kernel see that it is gone. Done by the main thread, some nodes at a time.
 */
import * as fs from '../../base/fs.ts';
import { systemErrorCode } from '../../base/errors.ts';
import { nativePath } from '../../base/names.ts';
import { currentPath } from '../../base/open-path.ts';
import type { NodeTable } from './node-table.ts';
import { OtherFileSystems } from './other-file-systems.ts';
import { rootNode } from './protocol.ts';

/** Nodes that are looked at in one turn. */
const nodesPerLook = 2000;

export class DeletedFiles {
  readonly #nodes: NodeTable;
  readonly #mountpoint: string;
  #next = 0;

  constructor(nodes: NodeTable, mountpoint: string) {
    this.#nodes = nodes;
    this.#mountpoint = mountpoint;
  }

  look(): void {
    if (this.#next >= this.#nodes.end) this.#next = 0;
    const span = this.#nodes.spanOf(nodesPerLook);
    const folder = currentPath(this.#nodes.descriptorOf(rootNode));
    const others = new OtherFileSystems(folder);
    for (const { fd } of this.#nodes.descriptors(this.#next, span)) {
      try {
        if (others.have(fd)) continue;
        if (fs.fstatSync(fd).nlink === 0) this.#showGone(pathOf(fd).replace(/ \(deleted\)$/, ''), folder);
      } catch (error) {
        // Forgotten this moment.
        if (systemErrorCode(error) === undefined) throw error;
      }
    }
    this.#next += span;
  }

  #showGone(path: string, folder: string): void {
    if (!path.startsWith(`${folder}/`)) return;
    const under = this.#mountpoint + path.slice(folder.length);
    fs.promises.lstat(nativePath(under)).catch(() => undefined);
  }
}

/** As the system has it: the file is not touched. */
function pathOf(fd: number): string {
  return fs.readlinkSync(`/proc/self/fd/${fd}`);
}
