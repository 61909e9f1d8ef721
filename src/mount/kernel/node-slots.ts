/**
 * The memory of the node table: a slot for each node, buckets to find them by their files, and the order in which slots are used again. All
 * of it is shared by the workers; who calls this holds the table's lock, but for reading the fields of a node that the kernel knows.
 */
import type * as fs from '../../base/fs.ts';
import { ForgottenPlaces, placesBytes } from './forgotten-places.ts';

export const maxPartBytes = 256;
/** Nodes that are kept when they are forgotten: there are so many slots more than files may be held. */
export const maxForgotten = 2 ** 16;

/**
 * `oldest` and `newest` are the ends of the list of slots that may be used again (`waiting` of them), one more than their indexes; below
 * `fresh` they were used before; `epoch` counts files that took another's place.
 */
export const word = {
  lock: 0,
  used: 1,
  oldest: 2,
  newest: 3,
  waiting: 4,
  fresh: 5,
  capacity: 6,
  generation: 7,
  epoch: 8,
} as const;
const headerWords = 16;

/**
 * Of each node. `descriptor` is one more than it is: 0 means that the kernel does not know the node. `next` links its bucket, `older` and
 * `newer` the slots that may be used again; all are one more than an index. `isFound`: whether it is in its bucket. While it is forgotten, the
 * stamp is what its file is known by for good (lasting-identity.ts), and `place` says where its path is kept.
 */
export const field = {
  inodeLow: 0,
  inodeHigh: 1,
  device: 2,
  descriptor: 3,
  next: 4,
  partBytes: 5,
  stampLow: 6,
  stampHigh: 7,
  generation: 8,
  older: 9,
  newer: 10,
  isFound: 11,
  place: 12,
  locks: 13,
  backing: 14,
} as const;
type Field = (typeof field)[keyof typeof field];
const nodeWords = 16;

/** A file, and the part of it that is meant, as slots have them. */
export interface SlotKey {
  readonly low: number;
  readonly high: number;
  readonly device: number;
  readonly part: Buffer | undefined;
}

export class NodeSlots {
  readonly words: Int32Array;
  /** How often the kernel was given each node, and has not given it back. */
  readonly lookups: Float64Array;
  readonly places: ForgottenPlaces;
  /** How many nodes the kernel may know at once. */
  readonly capacity: number;
  /** How many slots there are. */
  readonly end: number;
  readonly #buckets: Int32Array;
  readonly #parts: Uint8Array;

  constructor(buffer: SharedArrayBuffer) {
    this.capacity = new Int32Array(buffer)[word.capacity] ?? 0;
    this.end = this.capacity + maxForgotten;
    const { words, lookups, places, buckets, parts } = sections(this.end);
    this.words = new Int32Array(buffer, 0, words / 4);
    this.lookups = new Float64Array(buffer, words, lookups / 8);
    this.places = new ForgottenPlaces(new Uint8Array(buffer, words + lookups, places));
    this.#buckets = new Int32Array(buffer, words + lookups + places, buckets / 4);
    this.#parts = new Uint8Array(buffer, words + lookups + places + buckets, parts);
  }

  /** Memory is touched as nodes are used. */
  static allocate(capacity: number): SharedArrayBuffer {
    const buffer = new SharedArrayBuffer(
      Object.values(sections(capacity + maxForgotten)).reduce((sum, bytes) => sum + bytes, 0),
    );
    new Int32Array(buffer)[word.capacity] = capacity;
    return buffer;
  }

  wordOf(index: number, name: Field): number {
    return headerWords + index * nodeWords + name;
  }

  get(index: number, name: Field): number {
    return this.words[this.wordOf(index, name)] ?? 0;
  }

  set(index: number, name: Field, value: number): void {
    this.words[this.wordOf(index, name)] = value;
  }

  /** For what others read without the lock. */
  publish(index: number, name: Field, value: number): void {
    Atomics.store(this.words, this.wordOf(index, name), value);
  }

  count(name: number): number {
    return this.words[name] ?? 0;
  }

  part(index: number): Buffer | undefined {
    const length = this.get(index, field.partBytes);
    if (length === 0) return undefined;
    return Buffer.from(this.#parts.slice(index * maxPartBytes, index * maxPartBytes + length));
  }

  keyOf(index: number): SlotKey {
    const [low, high] = [this.get(index, field.inodeLow), this.get(index, field.inodeHigh)];
    return { low, high, device: this.get(index, field.device), part: this.part(index) };
  }

  setKey(index: number, { low, high, device, part }: SlotKey): void {
    this.set(index, field.inodeLow, low);
    this.set(index, field.inodeHigh, high);
    this.set(index, field.device, device);
    this.set(index, field.partBytes, part?.length ?? 0);
    if (part !== undefined) this.#parts.set(part, index * maxPartBytes);
  }

  /** Those of a file, the kernel's or forgotten ones. */
  *inBucket(key: SlotKey): Generator<number> {
    for (let at = this.#first(bucketOf(key, this.#buckets.length)); at >= 0;) {
      const next = this.get(at, field.next) - 1;
      if (this.#is(at, key)) yield at;
      at = next;
    }
  }

  putInBucket(index: number): void {
    const bucket = bucketOf(this.keyOf(index), this.#buckets.length);
    this.set(index, field.next, this.#first(bucket) + 1);
    this.#buckets[bucket] = index + 1;
    this.set(index, field.isFound, 1);
  }

  takeFromBucket(index: number): void {
    if (this.get(index, field.isFound) === 0) return;
    this.set(index, field.isFound, 0);
    const bucket = bucketOf(this.keyOf(index), this.#buckets.length);
    const next = this.get(index, field.next);
    if (this.#first(bucket) === index) {
      this.#buckets[bucket] = next;
      return;
    }
    let at = this.#first(bucket);
    while (at >= 0 && this.get(at, field.next) !== index + 1) at = this.get(at, field.next) - 1;
    if (at >= 0) this.set(at, field.next, next);
  }

  /** To be used again: after all others, or before them. */
  putInLine(index: number, end: 'last' | 'first'): void {
    const [tail, head] = end === 'last' ? [word.newest, word.oldest] : [word.oldest, word.newest];
    const [behind, before] = end === 'last' ? [field.older, field.newer] : [field.newer, field.older];
    const neighbour = this.count(tail);
    this.set(index, behind, neighbour);
    this.set(index, before, 0);
    if (neighbour === 0) this.words[head] = index + 1;
    else this.set(neighbour - 1, before, index + 1);
    this.words[tail] = index + 1;
    this.words[word.waiting] = this.count(word.waiting) + 1;
  }

  takeFromLine(index: number): void {
    const [older, newer] = [this.get(index, field.older), this.get(index, field.newer)];
    if (older === 0) this.words[word.oldest] = newer;
    else this.set(older - 1, field.newer, newer);
    if (newer === 0) this.words[word.newest] = older;
    else this.set(newer - 1, field.older, older);
    this.words[word.waiting] = this.count(word.waiting) - 1;
  }

  #is(index: number, { low, high, device, part }: SlotKey): boolean {
    return (
      this.get(index, field.inodeLow) === low &&
      this.get(index, field.inodeHigh) === high &&
      this.get(index, field.device) === device &&
      this.get(index, field.partBytes) === (part?.length ?? 0) &&
      (part?.every((byte, at) => this.#parts[index * maxPartBytes + at] === byte) ?? true)
    );
  }

  /** Index of the first node of a bucket; -1 where it is empty. */
  #first(bucket: number): number {
    return (this.#buckets[bucket] ?? 0) - 1;
  }
}

export function slotKeyOf(stat: fs.BigIntStats, part: Buffer | undefined): SlotKey {
  return {
    low: Number(BigInt.asIntN(32, stat.ino)),
    high: Number(BigInt.asIntN(32, stat.ino >> 32n)),
    device: Number(BigInt.asIntN(32, stat.dev ^ (stat.dev >> 32n))),
    part,
  };
}

function bucketOf({ low, high, device, part }: SlotKey, buckets: number): number {
  let hash = Math.imul(low, 0x9e3779b1) ^ Math.imul(high ^ device, 0x85ebca6b);
  for (const byte of part ?? []) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash ^ (hash >>> 15)) & (buckets - 1);
}

/** Sizes in bytes, in the order in which they lie; each begins where 8-byte values may lie. */
function sections(slots: number) {
  return {
    words: (headerWords + slots * nodeWords) * 4,
    lookups: slots * 8,
    places: placesBytes,
    buckets: 2 ** Math.ceil(Math.log2(slots)) * 4,
    parts: slots * maxPartBytes,
  };
}
