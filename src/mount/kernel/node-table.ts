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
 */
import * as fs from '../../base/fs.ts';
import { bytesOfName, nameOfBytes } from '../../base/names.ts';
import { openPath } from '../place.ts';
import { systemError } from '../system-error.ts';
import { rootNode } from './protocol.ts';
import { SharedLock } from '../../base/shared-lock.ts';

/** Each takes 48 bytes once used, and 256 where it has a part. */
export const maxNodes = 2 ** 18;
const maxPartBytes = 256;

const word = { lock: 0, used: 1, free: 2, fresh: 3, capacity: 4 } as const;
const headerWords = 8;
/** Of each node. `descriptor` is one more than it is, so that 0 means that the node is free; `next` links its bucket or the free list. */
const field = {
  inodeLow: 0,
  inodeHigh: 1,
  device: 2,
  descriptor: 3,
  next: 4,
  partBytes: 5,
  stampLow: 6,
  stampHigh: 7,
} as const;
const nodeWords = 8;

/** Identity of a file's contents, for what must not be mixed up: size and time of change, hashed to 64 bits in two words. */
export type Stamp = readonly [number, number];

export class NodeTable {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #lookups: Float64Array;
  readonly #buckets: Int32Array;
  readonly #parts: Uint8Array;
  readonly #lock: SharedLock;
  readonly #capacity: number;

  /** @param owner this thread's number, from 1 on */
  constructor(buffer: SharedArrayBuffer, owner: number) {
    this.buffer = buffer;
    this.#capacity = new Int32Array(buffer)[word.capacity] ?? 0;
    const [words, lookups, buckets] = sections(this.#capacity);
    this.#words = new Int32Array(buffer, 0, words / 4);
    this.#lookups = new Float64Array(buffer, words, lookups / 8);
    this.#buckets = new Int32Array(buffer, words + lookups, buckets / 4);
    this.#parts = new Uint8Array(buffer, words + lookups + buckets, this.#capacity * maxPartBytes);
    this.#lock = new SharedLock(this.#words, word.lock, owner);
  }

  /** A table with the mounted folder in it. Memory is touched as nodes are used. */
  static allocate(folder: string, capacity: number): NodeTable {
    const size = sections(capacity).reduce((sum, bytes) => sum + bytes, capacity * maxPartBytes);
    const buffer = new SharedArrayBuffer(size);
    new Int32Array(buffer)[word.capacity] = capacity;
    const table = new NodeTable(buffer, 1);
    const fd = openPath(folder);
    table.acquire(fs.fstatSync(fd, { bigint: true }), '', fd);
    return table;
  }

  get used(): number {
    return Atomics.load(this.#words, word.used);
  }

  get capacity(): number {
    return this.#capacity;
  }

  /**
   * The node of a file or a part of it, made if there is none; counts one lookup, which `forget` takes back.
   * @param fd an O_PATH descriptor of the file; belongs to the table when `kept`, to the caller otherwise
   * @throws ENFILE when the table is full
   */
  acquire(stat: fs.BigIntStats, part: string, fd: number): { node: number; kept: boolean } {
    const { low, high, device } = identityOf(stat);
    const encoded = part === '' ? undefined : bytesOfName(part).subarray(0, maxPartBytes);
    return this.#lock.hold(() => {
      const bucket = this.#bucketOf(low, high, device, encoded);
      const known = this.#indexOf(bucket, low, high, device, encoded);
      if (known >= 0) {
        this.#lookups[known] = (this.#lookups[known] ?? 0) + 1;
        return { node: known + 1, kept: false };
      }
      const index = this.#take();
      this.#set(index, field.inodeLow, low);
      this.#set(index, field.inodeHigh, high);
      this.#set(index, field.device, device);
      this.#set(index, field.partBytes, encoded?.length ?? 0);
      if (encoded !== undefined) this.#parts.set(encoded, index * maxPartBytes);
      this.#set(index, field.stampLow, 0);
      this.#set(index, field.stampHigh, 0);
      this.#lookups[index] = 1;
      this.#set(index, field.next, this.#bucket(bucket) + 1);
      this.#buckets[bucket] = index + 1;
      Atomics.store(this.#words, headerWords + index * nodeWords + field.descriptor, fd + 1);
      return { node: index + 1, kept: true };
    });
  }

  /** The node of a file, if the kernel knows it. Counts no lookup. */
  find(stat: fs.BigIntStats): number | undefined {
    const { low, high, device } = identityOf(stat);
    return this.#lock.hold(() => {
      const index = this.#indexOf(this.#bucketOf(low, high, device, undefined), low, high, device, undefined);
      return index < 0 ? undefined : index + 1;
    });
  }

  /**
   * Takes back lookups. When none is left the node is gone.
   * @returns the descriptor to close then
   */
  forget(node: number, lookups: number): number | undefined {
    if (node === rootNode || !this.isNode(node)) return undefined;
    return this.#lock.hold(() => {
      const index = node - 1;
      const left = (this.#lookups[index] ?? 0) - lookups;
      this.#lookups[index] = left;
      const fd = this.#get(index, field.descriptor) - 1;
      if (left > 0 || fd < 0) return undefined;
      this.#unlink(index);
      this.#set(index, field.descriptor, 0);
      this.#set(index, field.next, this.#words[word.free] ?? 0);
      this.#words[word.free] = index + 1;
      this.#words[word.used] = this.used - 1;
      return fd;
    });
  }

  /** @throws ESTALE where there is no such node */
  descriptorOf(node: number): number {
    const fd = this.isNode(node) ? this.#get(node - 1, field.descriptor) - 1 : -1;
    if (fd < 0) throw systemError('ESTALE', 'fuse', `node ${node}`);
    return fd;
  }

  partOf(node: number): string {
    const index = node - 1;
    const length = this.#get(index, field.partBytes);
    if (length === 0) return '';
    return nameOfBytes(this.#parts.slice(index * maxPartBytes, index * maxPartBytes + length));
  }

  /** Remembers what a node's contents are now. @returns whether they were the same the last time */
  keepStamp(node: number, [low, high]: Stamp): boolean {
    const index = node - 1;
    const same = this.#get(index, field.stampLow) === low && this.#get(index, field.stampHigh) === high;
    this.#set(index, field.stampLow, low);
    this.#set(index, field.stampHigh, high);
    return same;
  }

  /** Nodes from `from` on, at most `count` of them looked at; for the main thread, which looks after them now and then. */
  *descriptors(from: number, count: number): Generator<{ node: number; fd: number }> {
    const end = Math.min(from + count, this.#words[word.fresh] ?? 0);
    for (let index = from; index < end; index++) {
      const fd = this.#get(index, field.descriptor) - 1;
      if (fd >= 0) yield { node: index + 1, fd };
    }
  }

  /** Nodes that were ever used are numbered below this. */
  get end(): number {
    return this.#words[word.fresh] ?? 0;
  }

  /** After the death of a thread. */
  breakLock(owner: number): void {
    this.#lock.breakFor(owner);
  }

  /** Closes all descriptors: no thread may use the table any more. */
  close(): void {
    for (const { node, fd } of this.descriptors(0, this.#capacity)) {
      this.#set(node - 1, field.descriptor, 0);
      fs.closeSync(fd);
    }
  }

  isNode(node: number): boolean {
    return Number.isInteger(node) && node >= 1 && node <= this.#capacity;
  }

  /** Index of a node in its bucket; -1 where it is not there. The lock is held. */
  #indexOf(bucket: number, low: number, high: number, device: number, part: Buffer | undefined): number {
    let index = this.#bucket(bucket);
    while (index >= 0 && !this.#is(index, low, high, device, part)) index = this.#get(index, field.next) - 1;
    return index;
  }

  #take(): number {
    const free = this.#words[word.free] ?? 0;
    const fresh = this.#words[word.fresh] ?? 0;
    if (free === 0 && fresh >= this.#capacity) {
      throw systemError(
        'ENFILE',
        'lookup',
        `the kernel remembers ${this.#capacity} files of this mount, as many as it may hold; raise the limit of open files (ulimit -n)`,
      );
    }
    this.#words[word.used] = this.used + 1;
    if (free === 0) {
      this.#words[word.fresh] = fresh + 1;
      return fresh;
    }
    this.#words[word.free] = this.#get(free - 1, field.next);
    return free - 1;
  }

  #unlink(index: number): void {
    const part = this.#get(index, field.partBytes);
    const encoded =
      part === 0 ? undefined : Buffer.from(this.#parts.slice(index * maxPartBytes, index * maxPartBytes + part));
    const bucket = this.#bucketOf(
      this.#get(index, field.inodeLow),
      this.#get(index, field.inodeHigh),
      this.#get(index, field.device),
      encoded,
    );
    const next = this.#get(index, field.next);
    if (this.#bucket(bucket) === index) {
      this.#buckets[bucket] = next;
      return;
    }
    for (let at = this.#bucket(bucket); at >= 0; at = this.#get(at, field.next) - 1) {
      if (this.#get(at, field.next) === index + 1) {
        this.#set(at, field.next, next);
        return;
      }
    }
  }

  #is(index: number, low: number, high: number, device: number, part: Buffer | undefined): boolean {
    return (
      this.#get(index, field.inodeLow) === low &&
      this.#get(index, field.inodeHigh) === high &&
      this.#get(index, field.device) === device &&
      this.#get(index, field.partBytes) === (part?.length ?? 0) &&
      (part?.every((byte, at) => this.#parts[index * maxPartBytes + at] === byte) ?? true)
    );
  }

  #bucketOf(low: number, high: number, device: number, part: Buffer | undefined): number {
    let hash = Math.imul(low, 0x9e3779b1) ^ Math.imul(high ^ device, 0x85ebca6b);
    for (const byte of part ?? []) hash = Math.imul(hash ^ byte, 0x01000193);
    return (hash ^ (hash >>> 15)) & (this.#buckets.length - 1);
  }

  /** Index of the first node of a bucket; -1 where it is empty. */
  #bucket(bucket: number): number {
    return (this.#buckets[bucket] ?? 0) - 1;
  }

  #get(index: number, name: number): number {
    return this.#words[headerWords + index * nodeWords + name] ?? 0;
  }

  #set(index: number, name: number, value: number): void {
    this.#words[headerWords + index * nodeWords + name] = value;
  }
}

function identityOf(stat: fs.BigIntStats): { low: number; high: number; device: number } {
  return {
    low: Number(BigInt.asIntN(32, stat.ino)),
    high: Number(BigInt.asIntN(32, stat.ino >> 32n)),
    device: Number(BigInt.asIntN(32, stat.dev ^ (stat.dev >> 32n))),
  };
}

/** Sizes in bytes of words, lookup counts and buckets. */
function sections(capacity: number): readonly [number, number, number] {
  const words = headerWords + capacity * nodeWords;
  return [words * 4, capacity * 8, 2 ** Math.ceil(Math.log2(capacity)) * 4];
}
