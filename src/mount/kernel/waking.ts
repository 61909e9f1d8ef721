/** Waking workers that wait for the kernel: it is made to tell them of a file. */
import type { NodeTable } from './node-table.ts';
import { wakeWorker } from './notify.ts';

export class Waking {
  readonly #device: number;
  readonly #nodes: NodeTable;
  #node: number | undefined;

  constructor(device: number, nodes: NodeTable) {
    this.#device = device;
    this.#nodes = nodes;
  }

  /** Waiting workers get requests in turns, so that as many as there are workers wake each of them; a busy one needs no waking. */
  wake(workers: number): void {
    for (let count = 0; count < workers; count++) {
      if (this.#node !== undefined && wakeWorker(this.#device, this.#node)) continue;
      this.#node = this.#byAnyFile();
      if (this.#node === undefined) return;
    }
  }

  /** A file that the kernel still knows is there as long as an image is open or the mount in use. */
  #byAnyFile(): number | undefined {
    for (const { node } of this.#nodes.descriptors(0, this.#nodes.end)) {
      if (wakeWorker(this.#device, node)) return node;
    }
    return undefined;
  }
}
