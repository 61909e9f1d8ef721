/**
 * Nodes: what the kernel knows the files of the mount by. One table in shared memory, since any worker may get any request.
 *
 * A node is a file behind the mount (device and inode) or a part that is made from it, and it holds the file by an O_PATH descriptor. A
 * table of names would have been smaller, but a descriptor stays right where names do not: a file that was renamed or deleted while it is
 * open, by us or behind the mount; hard links, which are one node; a folder that somebody replaces by a symbolic link while a request
 * passes through it. Descriptors belong to the process, so every worker can use every node's. Where a name is needed after all (a plugin
 * file's pointer is relative to its folder), the kernel tells the current one.
 *
 * The price is a descriptor for each file that the kernel remembers, which is what bounds the table. The kernel forgets nodes when it
 * needs their memory, or when it is told to, before the table is full (crowd.ts).
 *
 * A node and its generation are one file for as long as the mount lives, and no other mount has given out the same: those who keep them (an NFS
 * client) get that file, or ESTALE. A node that the kernel has forgotten keeps its file's identity until its number is used again, the longest
 * forgotten first: when the same file is looked up again it is the same node, and one who asks for it by its number alone finds where it lay.
 *
 * When a file takes another's place (finalize), the node stays, and is the new file from then on: `replace`.
 */
import { randomInt } from 'node:crypto';
import * as fs from '../../base/fs.ts';
import { bytesOfName, nameOfBytes } from '../../base/names.ts';
import { SharedLock } from '../../base/shared-lock.ts';
import { currentPath, openPath } from '../../base/open-path.ts';
import { duplicateTo } from '../../base/system-calls.ts';
import { systemError } from '../../base/system-error.ts';
import { lastingIdentity } from './lasting-identity.ts';
import { field, maxForgotten, maxPartBytes, NodeSlots, slotKeyOf, word, type SlotKey } from './node-slots.ts';
import { rootNode } from './protocol.ts';

/** Each takes 72 bytes once used, and 256 where it has a part. */
export const maxNodes = 2 ** 18;

/** Identity of a file's contents, for what must not be mixed up: size and time of change, hashed to 64 bits in two words. */
export type Stamp = readonly [number, number];

export class NodeTable {
  readonly buffer: SharedArrayBuffer;
  readonly #slots: NodeSlots;
  readonly #lock: SharedLock;

  /** @param owner this thread's number, from 1 on */
  constructor(buffer: SharedArrayBuffer, owner: number) {
    this.buffer = buffer;
    this.#slots = new NodeSlots(buffer);
    this.#lock = new SharedLock(this.#slots.words, word.lock, owner);
  }

  /** A table with the mounted folder in it. */
  static allocate(folder: string, capacity: number): NodeTable {
    const table = new NodeTable(NodeSlots.allocate(capacity), 1);
    // Another mount's handles are none of this one.
    table.#slots.words[word.generation] = randomInt(-(2 ** 31), 2 ** 31);
    const fd = openPath(folder);
    table.acquire(fs.fstatSync(fd, { bigint: true }), '', fd);
    table.#slots.set(rootNode - 1, field.generation, 0);
    return table;
  }

  get used(): number {
    return Atomics.load(this.#slots.words, word.used);
  }

  get capacity(): number {
    return this.#slots.capacity;
  }

  /** Another one once a file has taken another's place: what was found out before may be mixed. Odd while one does. */
  get epoch(): number {
    return Atomics.load(this.#slots.words, word.epoch);
  }

  /** The same, between two such moments. */
  steadyEpoch(): number {
    while (this.epoch % 2 !== 0) this.#lock.hold(() => undefined);
    return this.epoch;
  }

  /**
   * The node of a file or a part of it, made if there is none; counts one lookup, which `forget` takes back.
   * @param fd an O_PATH descriptor of the file; belongs to the table when `kept`, to the caller otherwise
   * @param epoch before the file was looked up by its name
   * @throws ENFILE when the table is full; ESTALE when a file has taken another's place since
   */
  acquire(stat: fs.BigIntStats, part: string, fd: number, epoch = this.epoch): { node: number; kept: boolean } {
    const slots = this.#slots;
    const key = slotKeyOf(stat, encodePart(part));
    return this.#lock.hold(() => {
      if (this.epoch !== epoch) throw systemError('ESTALE', 'lookup', part);
      let index = this.#known(key);
      if (index !== undefined) {
        slots.lookups[index] = (slots.lookups[index] ?? 0) + 1;
        return { node: index + 1, kept: false };
      }
      this.#requireRoom();
      index = this.#forgotten(key, stat, fd);
      if (index === undefined) {
        index = this.#take();
        slots.setKey(index, key);
        slots.putInBucket(index);
      } else slots.takeFromLine(index);
      slots.set(index, field.stampLow, 0);
      slots.set(index, field.stampHigh, 0);
      slots.lookups[index] = 1;
      slots.words[word.used] = this.used + 1;
      slots.publish(index, field.descriptor, fd + 1);
      return { node: index + 1, kept: true };
    });
  }

  /** Counts a lookup of a node that the kernel knows. @returns its descriptor; undefined where the kernel has forgotten it */
  acquireAgain(node: number): number | undefined {
    if (!this.isNode(node)) return undefined;
    return this.#lock.hold(() => {
      const fd = this.#slots.get(node - 1, field.descriptor) - 1;
      if (fd < 0) return undefined;
      this.#slots.lookups[node - 1] = (this.#slots.lookups[node - 1] ?? 0) + 1;
      return fd;
    });
  }

  /** The node of a file, if the kernel knows it. Counts no lookup. */
  find(stat: fs.BigIntStats): number | undefined {
    const index = this.#lock.hold(() => this.#known(slotKeyOf(stat, undefined)));
    return index === undefined ? undefined : index + 1;
  }

  /**
   * Takes back lookups. When none is left the kernel does not know the node any more.
   * @returns the descriptor, which is the caller's then: to say where the file lies (`remember`), and to close
   */
  forget(node: number, lookups: number): { readonly fd: number; readonly generation: number } | undefined {
    if (node === rootNode || !this.isNode(node)) return undefined;
    const slots = this.#slots;
    return this.#lock.hold(() => {
      const index = node - 1;
      const left = (slots.lookups[index] ?? 0) - lookups;
      slots.lookups[index] = left;
      const fd = slots.get(index, field.descriptor) - 1;
      if (left > 0 || fd < 0) return undefined;
      slots.takeFromBucket(index);
      slots.set(index, field.descriptor, 0);
      slots.set(index, field.backing, 0);
      slots.putInLine(index, 'first');
      slots.words[word.used] = this.used - 1;
      return { fd, generation: this.generationOf(node) };
    });
  }

  /** Where the file of a node lies that was just forgotten: until its number is used again, it is found there. */
  remember(node: number, { fd, generation }: { fd: number; generation: number }, path: string): void {
    const slots = this.#slots;
    const identity = lastingIdentity(fd, fs.fstatSync(fd, { bigint: true }));
    const index = node - 1;
    this.#lock.hold(() => {
      const isStill = slots.get(index, field.descriptor) === 0 && this.generationOf(node) === generation;
      // Others may have looked the same file up in the meantime: then it is a node of its own.
      if (!isStill || slots.inBucket(slots.keyOf(index)).next().done !== true) return;
      this.#keep(index, identity, path);
      slots.putInBucket(index);
      slots.takeFromLine(index);
      slots.putInLine(index, 'last');
    });
  }

  /** Where the file of a forgotten node lay, and its part. Whoever finds it there acquires it again: if that is the same node, it is the file. */
  placeOf(node: number): { path: string; part: string } | undefined {
    if (!this.isNode(node)) return undefined;
    const index = node - 1;
    return this.#lock.hold(() => {
      if (this.#slots.get(index, field.isFound) === 0 || this.#slots.get(index, field.descriptor) !== 0)
        return undefined;
      const path = this.#slots.places.at(this.#slots.get(index, field.place), node, this.generationOf(node));
      return path === undefined ? undefined : { path, part: this.partOf(node) };
    });
  }

  /**
   * One file takes another's place: the node of that, if there is one, is the new file's, with its number, generation and descriptor.
   * @param fd an O_PATH descriptor of the new file
   * @param backing the number that the kernel reads and writes it by, if it does
   * @param rename gives it its place. No name is looked up meanwhile.
   * @returns the node, where the kernel knows it
   */
  replace(stat: fs.BigIntStats, part: string, fd: number, backing: number, rename: () => void): number | undefined {
    const slots = this.#slots;
    return this.#lock.hold(() => {
      Atomics.add(slots.words, word.epoch, 1);
      try {
        rename();
        const key = slotKeyOf(stat, encodePart(part));
        const [index] = slots.inBucket(key);
        if (index === undefined) return undefined;
        const found = fs.fstatSync(fd, { bigint: true });
        const held = slots.get(index, field.descriptor) - 1;
        if (held >= 0) duplicateTo(fd, held);
        slots.takeFromBucket(index);
        slots.setKey(index, slotKeyOf(found, undefined));
        slots.putInBucket(index);
        if (held < 0) {
          this.#keep(index, lastingIdentity(fd, found), currentPath(fd));
          return undefined;
        }
        slots.set(index, field.stampLow, 0);
        slots.set(index, field.stampHigh, 0);
        slots.publish(index, field.backing, backing);
        return index + 1;
      } finally {
        Atomics.add(slots.words, word.epoch, 1);
      }
    });
  }

  /** @throws ESTALE where there is no such node */
  descriptorOf(node: number): number {
    const fd = this.isNode(node) ? this.#slots.get(node - 1, field.descriptor) - 1 : -1;
    if (fd < 0) throw systemError('ESTALE', 'fuse', `node ${node}`);
    return fd;
  }

  partOf(node: number): string {
    const part = this.#slots.part(node - 1);
    return part === undefined ? '' : nameOfBytes(part);
  }

  generationOf(node: number): number {
    return this.#slots.get(node - 1, field.generation) >>> 0;
  }

  /** By which number the kernel reads and writes the file by itself, where every handle of it must be such a one; else 0. */
  backingOf(node: number): number {
    return Atomics.load(this.#slots.words, this.#slots.wordOf(node - 1, field.backing));
  }

  /** Whether anybody has locked ranges of it. */
  isLocked(node: number): boolean {
    return Atomics.load(this.#slots.words, this.#slots.wordOf(node - 1, field.locks)) !== 0;
  }

  setLocked(node: number, isLocked: boolean): void {
    this.#slots.publish(node - 1, field.locks, isLocked ? 1 : 0);
  }

  /** Remembers what a node's contents are now. @returns whether they were the same the last time */
  keepStamp(node: number, [low, high]: Stamp): boolean {
    const index = node - 1;
    const same = this.#slots.get(index, field.stampLow) === low && this.#slots.get(index, field.stampHigh) === high;
    this.#slots.set(index, field.stampLow, low);
    this.#slots.set(index, field.stampHigh, high);
    return same;
  }

  /** Nodes from `from` on, at most `count` of them looked at; for the main thread, which looks after them now and then. */
  *descriptors(from: number, count: number): Generator<{ node: number; fd: number }> {
    const end = Math.min(from + count, this.end);
    for (let index = from; index < end; index++) {
      const fd = this.#slots.get(index, field.descriptor) - 1;
      if (fd >= 0) yield { node: index + 1, fd };
    }
  }

  /** Nodes that were ever used are numbered below this. */
  get end(): number {
    return this.#slots.count(word.fresh);
  }

  /** In how many numbers there are about so many that the kernel knows. */
  spanOf(nodes: number): number {
    return Math.max(nodes, Math.ceil((nodes * this.end) / Math.max(1, this.used)));
  }

  /** After the death of a thread. */
  breakLock(owner: number): void {
    this.#lock.breakFor(owner);
  }

  /** Closes all descriptors: no thread may use the table any more. */
  close(): void {
    for (const { node, fd } of this.descriptors(0, this.#slots.end)) {
      this.#slots.set(node - 1, field.descriptor, 0);
      fs.closeSync(fd);
    }
  }

  isNode(node: number): boolean {
    return Number.isInteger(node) && node >= 1 && node <= this.#slots.end;
  }

  #known(key: SlotKey): number | undefined {
    for (const index of this.#slots.inBucket(key)) if (this.#slots.get(index, field.descriptor) !== 0) return index;
    return undefined;
  }

  /** The forgotten node of this file. One of another file that had the same inode number is not found any more. */
  #forgotten(key: SlotKey, stat: fs.BigIntStats, fd: number): number | undefined {
    const slots = this.#slots;
    for (const index of slots.inBucket(key)) {
      const [low, high] = lastingIdentity(fd, stat);
      if (slots.get(index, field.stampLow) === low && slots.get(index, field.stampHigh) === high) return index;
      slots.takeFromBucket(index);
      slots.takeFromLine(index);
      slots.putInLine(index, 'first');
    }
    return undefined;
  }

  #keep(index: number, [low, high]: Stamp, path: string): void {
    const slots = this.#slots;
    slots.set(index, field.stampLow, low);
    slots.set(index, field.stampHigh, high);
    slots.set(index, field.place, slots.places.add(index + 1, this.generationOf(index + 1), path));
  }

  #requireRoom(): void {
    if (this.used < this.capacity) return;
    throw systemError(
      'ENFILE',
      'lookup',
      `the kernel remembers ${this.capacity} files of this mount, as many as it may hold; raise the limit of open files (ulimit -n)`,
    );
  }

  /** A slot for another file, with a generation that none has had. */
  #take(): number {
    const slots = this.#slots;
    const [oldest, fresh] = [slots.count(word.oldest), slots.count(word.fresh)];
    // Where more are kept than are to be, or one that nobody finds any more, that is used again.
    const isFresh =
      oldest === 0 || (slots.count(word.waiting) < maxForgotten && slots.get(oldest - 1, field.isFound) === 1);
    const index = isFresh ? fresh : oldest - 1;
    if (isFresh) slots.words[word.fresh] = fresh + 1;
    else {
      slots.takeFromLine(index);
      slots.takeFromBucket(index);
    }
    const generation = (slots.count(word.generation) + 1) | 0 || 1;
    slots.words[word.generation] = generation;
    slots.set(index, field.generation, generation);
    slots.set(index, field.locks, 0);
    return index;
  }
}

function encodePart(part: string): Buffer | undefined {
  return part === '' ? undefined : bytesOfName(part).subarray(0, maxPartBytes);
}
