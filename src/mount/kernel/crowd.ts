/**
 * Keeps the table of nodes from filling up: has the kernel forget names that nobody uses. Done by the main thread alone: the kernel takes the
 * lock of a folder for it, which a caller may hold that waits for a worker.
 */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import { systemErrorCode } from '../../base/errors.ts';
import { currentPath } from '../../base/open-path.ts';
import type { NodeTable } from './node-table.ts';
import { dropName } from './notify.ts';

/** Above this share of its capacity the table is crowded, and is thinned out to the other. */
const crowdedShare = 0.4;
const thinnedShare = 0.2;
/** Above this, workers give the main thread time after each new node. */
const fullShare = 0.75;
const pauseMs = 5;
const never = new Int32Array(new SharedArrayBuffer(4));
/** Nodes that are looked at before others may use the thread. */
const nodesAtOnce = 1000;

export class Crowd {
  readonly #nodes: NodeTable;
  readonly #device: number;
  readonly #whenDone: () => void;
  #next = 0;
  #isThinning = false;

  /** @param whenDone called after each thinning */
  constructor(nodes: NodeTable, device: number, whenDone: () => void) {
    this.#nodes = nodes;
    this.#device = device;
    this.#whenDone = whenDone;
  }

  static isCrowded(nodes: NodeTable): boolean {
    return nodes.used > nodes.capacity * crowdedShare;
  }

  /** For a worker that has answered a request, and so keeps no caller from its folder's lock: waits while the table is nearly full. */
  static pauseWhereFull(nodes: NodeTable): void {
    if (nodes.used > nodes.capacity * fullShare) Atomics.wait(never, 0, 0, pauseMs);
  }

  /** Asks the kernel to forget as many as it takes; each node is looked at once. Those in use stay. */
  thin(): void {
    if (this.#isThinning) return;
    this.#isThinning = true;
    this.#step(this.#nodes.end, this.#nodes.used - this.#nodes.capacity * thinnedShare);
  }

  #step(leftToLookAt: number, leftToDrop: number): void {
    if (leftToLookAt <= 0 || leftToDrop <= 0) {
      this.#isThinning = false;
      this.#whenDone();
      return;
    }
    const folders = new Map<string, number | undefined>();
    if (this.#next >= this.#nodes.end) this.#next = 0;
    let dropped = 0;
    for (const { node, fd } of this.#nodes.descriptors(this.#next, nodesAtOnce)) {
      if (this.#drop(node, fd, folders)) dropped++;
    }
    this.#next += nodesAtOnce;
    setImmediate(() => this.#step(leftToLookAt - nodesAtOnce, leftToDrop - dropped));
  }

  #drop(node: number, fd: number, folders: Map<string, number | undefined>): boolean {
    try {
      const found = currentPath(fd);
      const folder = path.dirname(found);
      if (!folders.has(folder)) folders.set(folder, this.#nodes.find(fs.statSync(folder, { bigint: true })));
      const folderNode = folders.get(folder);
      if (folderNode === undefined) return false;
      const part = this.#nodes.partOf(node);
      return dropName(this.#device, folderNode, part === '' ? path.basename(found) : part);
    } catch (error) {
      // Forgotten this moment, or its folder is.
      if (systemErrorCode(error) === undefined) throw error;
      return false;
    }
  }
}
