/**
 * What is kept of images while they are open, in memory of a fixed size that threads share: inflated blocks of all chains, so that what one
 * thread has inflated serves the others, and a block that several want at once is inflated once; and the page sums of blocks that are stored
 * as they are (page-sums.ts), which are not kept here: the kernel has them in its cache of the image.
 *
 * Slots of 64 KiB stand in sets of eight; a block may lie in any slot of the set that its chain and position lead to, and pushes out the one
 * of them that was used least lately. A smaller block has a slot for itself, a larger one a slot for each 64 KiB. A slot's state is the
 * number of threads that copy from it, or the negative number of the thread that fills it: nobody fills what is read, nobody reads what is
 * being filled.
 */
import type { Closable } from '../../base/ownership.ts';
import { SharedLock } from '../../base/shared-lock.ts';
import { KiB } from '../../base/units.ts';
import { defaultIndexBytes, IndexCache } from './index-cache.ts';
import { PageSums } from './page-sums.ts';

const slotBytes = 64 * KiB;
const waysPerSet = 8;
/** Chains that were ever open. Those beyond share nothing. */
const maxChains = 8192;
const hashBytes = 32;
/** A filler that takes longer has died or waits for a disk: the block is inflated privately. */
const waitMs = 2000;

const headerWords = 8;
const word = { chainLock: 0, chains: 1, clock: 2 } as const;
const slotWords = 8;
const field = { state: 0, chain: 1, unitLow: 2, unitHigh: 3, usedAt: 4 } as const;

/** Page sums take so much of what blocks take, on top. */
export const sumsShare = 1 / 16;

export interface CacheMemory {
  readonly blocks: SharedArrayBuffer;
  readonly sums: SharedArrayBuffer;
  /** What each thread may take for indexes, on top. */
  readonly indexBytes: number;
}

export class BlockCache {
  /** Give it to another thread's `BlockCache` to share it. */
  readonly memory: CacheMemory;
  readonly sums: PageSums;
  /** This thread's own. */
  readonly index: IndexCache;
  readonly #words: Int32Array;
  readonly #hashes: Uint8Array;
  readonly #data: Uint8Array;
  readonly #slots: number;
  readonly #sets: number;
  readonly #ways: number;
  readonly #owner: number;
  readonly #setLocks: readonly SharedLock[];
  readonly #chainLock: SharedLock;

  /** @param owner this thread's number, from 1 on */
  constructor(memory: CacheMemory, owner: number) {
    const buffer = memory.blocks;
    this.memory = memory;
    this.sums = new PageSums(memory.sums);
    this.index = new IndexCache(memory.indexBytes);
    this.#owner = owner;
    const { slots, wordBytes } = layoutOf(buffer.byteLength);
    this.#slots = slots;
    this.#ways = Math.min(waysPerSet, slots);
    this.#sets = slots === 0 ? 0 : Math.floor(slots / this.#ways);
    this.#words = new Int32Array(buffer, 0, wordBytes / 4);
    this.#hashes = new Uint8Array(buffer, wordBytes, maxChains * hashBytes);
    this.#data = new Uint8Array(buffer, wordBytes + maxChains * hashBytes, slots * slotBytes);
    this.#chainLock = new SharedLock(this.#words, word.chainLock, owner);
    // A word of its first slot that the slot itself does not use.
    this.#setLocks = Array.from(
      { length: this.#sets },
      (_, set) => new SharedLock(this.#words, this.#slotAt(set * this.#ways) + slotWords - 1, owner),
    );
  }

  /** Memory is touched as it is used. @param budgetBytes of blocks. @param indexBytes of indexes, in each thread */
  static allocate(budgetBytes: number, indexBytes: number = defaultIndexBytes): CacheMemory {
    return {
      indexBytes,
      blocks: new SharedArrayBuffer(bytesFor(Math.floor(budgetBytes / slotBytes))),
      sums: PageSums.allocate(budgetBytes * sumsShare),
    };
  }

  /** A cache for one thread alone. */
  static ofOneThread(budgetBytes: number, indexBytes: number = defaultIndexBytes): BlockCache {
    return new BlockCache(BlockCache.allocate(budgetBytes, indexBytes), 1);
  }

  /** @param identity SHA-256 of the newest image's commit: names the very contents of the chain */
  forChain(identity: Uint8Array): ChainBlocks {
    return new ChainBlocks(this, this.#chainNumber(identity));
  }

  /** Copies what is cached of a unit from `within` on. @returns false where it is not cached */
  copy(chain: number, unit: number, within: number, target: Uint8Array): boolean {
    const first = this.#setOf(chain, unit) * this.#ways;
    for (let slot = first; slot < first + this.#ways && slot < this.#slots; slot++) {
      if (this.#is(slot, chain, unit) && this.#copySlot(slot, chain, unit, within, target)) return true;
    }
    return false;
  }

  /**
   * Has `fill` make a unit, in a slot where one is free, and copies from it. Another thread that makes the same unit is waited for.
   * @returns whether another thread had made it
   */
  load(
    chain: number,
    unit: number,
    lengthBytes: number,
    within: number,
    target: Uint8Array,
    fill: (block: Uint8Array) => void,
  ): boolean {
    const slot = this.#claim(chain, unit);
    if (slot === 'made' && this.copy(chain, unit, within, target)) return true;
    if (typeof slot !== 'number') {
      const block = new Uint8Array(lengthBytes);
      fill(block);
      target.set(block.subarray(within, within + target.length));
      return false;
    }
    const state = this.#slotAt(slot) + field.state;
    try {
      const block = this.#data.subarray(slot * slotBytes, slot * slotBytes + lengthBytes);
      fill(block);
      target.set(block.subarray(within, within + target.length));
    } catch (error) {
      this.#words[this.#slotAt(slot) + field.chain] = 0;
      throw error;
    } finally {
      Atomics.store(this.#words, state, 0);
      Atomics.notify(this.#words, state);
    }
    return false;
  }

  /** After the death of a thread: frees what it was filling, and the locks that it held. */
  release(owner: number): void {
    this.#chainLock.breakFor(owner);
    for (const lock of this.#setLocks) lock.breakFor(owner);
    for (let slot = 0; slot < this.#slots; slot++) {
      const at = this.#slotAt(slot);
      if (Atomics.load(this.#words, at + field.state) !== -owner) continue;
      this.#words[at + field.chain] = 0;
      Atomics.store(this.#words, at + field.state, 0);
      Atomics.notify(this.#words, at + field.state);
    }
  }

  /** A slot that this thread now fills; 'made' where another thread has made the unit; undefined where all slots are in use. */
  #claim(chain: number, unit: number): number | 'made' | undefined {
    if (this.#sets === 0 || chain === 0) return undefined;
    const set = this.#setOf(chain, unit);
    const lock = this.#setLocks[set];
    if (lock === undefined) return undefined;
    const endsBy = performance.now() + waitMs;
    for (;;) {
      const found = lock.hold(() => this.#take(set, chain, unit));
      if (found.kind !== 'filling')
        return found.kind === 'taken' ? found.slot : found.kind === 'made' ? 'made' : undefined;
      Atomics.wait(this.#words, this.#slotAt(found.slot) + field.state, found.state, waitMs);
      if (performance.now() > endsBy) return undefined;
    }
  }

  #take(set: number, chain: number, unit: number): Taken {
    let oldest = -1;
    let oldestAge = -1;
    const clock = (this.#words[word.clock] ?? 0) | 0;
    for (let slot = set * this.#ways; slot < (set + 1) * this.#ways; slot++) {
      const at = this.#slotAt(slot);
      const state = Atomics.load(this.#words, at + field.state);
      if (this.#is(slot, chain, unit)) return state < 0 ? { kind: 'filling', slot, state } : { kind: 'made' };
      const age = this.#words[at + field.chain] === 0 ? 2 ** 32 : (clock - (this.#words[at + field.usedAt] ?? 0)) >>> 0;
      if (state === 0 && age > oldestAge) {
        oldest = slot;
        oldestAge = age;
      }
    }
    const at = this.#slotAt(oldest);
    if (oldest < 0 || Atomics.compareExchange(this.#words, at + field.state, 0, -this.#owner) !== 0)
      return { kind: 'all in use' };
    this.#words[at + field.chain] = chain;
    this.#words[at + field.unitLow] = unit | 0;
    this.#words[at + field.unitHigh] = Math.floor(unit / 2 ** 32);
    this.#words[at + field.usedAt] = clock;
    this.#words[word.clock] = (clock + 1) | 0;
    return { kind: 'taken', slot: oldest };
  }

  /** False when it was taken for another unit meanwhile, or is still being filled. */
  #copySlot(slot: number, chain: number, unit: number, within: number, target: Uint8Array): boolean {
    const at = this.#slotAt(slot);
    for (let state = Atomics.load(this.#words, at); ;) {
      if (state < 0) return false;
      const found = Atomics.compareExchange(this.#words, at, state, state + 1);
      if (found === state) break;
      state = found;
    }
    const isIt = this.#is(slot, chain, unit);
    if (isIt) {
      const from = slot * slotBytes + within;
      target.set(this.#data.subarray(from, from + target.length));
      this.#words[at + field.usedAt] = this.#words[word.clock] ?? 0;
    }
    Atomics.sub(this.#words, at, 1);
    return isIt;
  }

  #is(slot: number, chain: number, unit: number): boolean {
    const at = this.#slotAt(slot);
    return (
      this.#words[at + field.unitLow] === (unit | 0) &&
      this.#words[at + field.chain] === chain &&
      this.#words[at + field.unitHigh] === Math.floor(unit / 2 ** 32)
    );
  }

  #setOf(chain: number, unit: number): number {
    let hash = Math.imul(unit | 0, 0x9e3779b1) ^ Math.imul(chain + Math.floor(unit / 2 ** 32), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    return ((hash ^ (hash >>> 13)) >>> 0) % Math.max(1, this.#sets);
  }

  /** A small number for the contents that a chain's newest image names; 0 when there are no more. */
  #chainNumber(identity: Uint8Array): number {
    return this.#chainLock.hold(() => {
      const count = this.#words[word.chains] ?? 0;
      for (let index = 0; index < count; index++) {
        if (identity.every((byte, at) => this.#hashes[index * hashBytes + at] === byte)) return index + 1;
      }
      if (count === maxChains) return 0;
      this.#hashes.set(identity, count * hashBytes);
      this.#words[word.chains] = count + 1;
      return count + 1;
    });
  }

  #slotAt(slot: number): number {
    return headerWords + slot * slotWords;
  }
}

type Taken =
  | { readonly kind: 'taken'; readonly slot: number }
  | { readonly kind: 'filling'; readonly slot: number; readonly state: number }
  | { readonly kind: 'made' | 'all in use' };

/** One chain's view: blocks by position. */
export class ChainBlocks implements Closable {
  hits = 0;
  misses = 0;
  readonly #cache: BlockCache;
  readonly #chain: number;
  #large = new Uint8Array(0);

  constructor(cache: BlockCache, chain: number) {
    this.#cache = cache;
    this.#chain = chain;
  }

  /** Copies bytes from `within` of a block that is kept. Counts a hit, or a miss where it is not. */
  copy(position: number, blockBytes: number, within: number, target: Uint8Array): boolean {
    const found =
      this.#chain !== 0 &&
      (blockBytes <= slotBytes
        ? this.#cache.copy(this.#chain, position, within, target)
        : this.#copyPieces(position, blockBytes, within, target));
    if (found) this.hits++;
    else this.misses++;
    return found;
  }

  /** Has `fill` make the block, keeps it, and copies from it; when `fill` throws, nothing is kept. */
  load(
    position: number,
    blockBytes: number,
    within: number,
    target: Uint8Array,
    fill: (block: Uint8Array) => void,
  ): void {
    if (blockBytes <= slotBytes) {
      const wasMade = this.#cache.load(this.#chain, position, blockBytes, within, target, fill);
      if (!wasMade) return;
      this.misses--;
      this.hits++;
      return;
    }
    if (this.#large.length !== blockBytes) this.#large = new Uint8Array(blockBytes);
    const block = this.#large;
    fill(block);
    target.set(block.subarray(within, within + target.length));
    const pieces = blockBytes / slotBytes;
    for (let piece = 0; piece < pieces; piece++) {
      const bytes = block.subarray(piece * slotBytes, (piece + 1) * slotBytes);
      this.#cache.load(this.#chain, position * pieces + piece, slotBytes, 0, nothing, (slot) => slot.set(bytes));
    }
  }

  /** The blocks stay: another thread may have the chain open, and it may be opened again. */
  close(): void {
    this.#large = new Uint8Array(0);
  }

  #copyPieces(position: number, blockBytes: number, within: number, target: Uint8Array): boolean {
    const pieces = blockBytes / slotBytes;
    for (let done = 0; done < target.length;) {
      const piece = Math.floor((within + done) / slotBytes);
      const start = within + done - piece * slotBytes;
      const length = Math.min(slotBytes - start, target.length - done);
      const part = target.subarray(done, done + length);
      if (!this.#cache.copy(this.#chain, position * pieces + piece, start, part)) return false;
      done += length;
    }
    return true;
  }
}

const nothing = new Uint8Array(0);

function bytesFor(slots: number): number {
  return (headerWords + slots * slotWords) * 4 + maxChains * hashBytes + slots * slotBytes;
}

function layoutOf(bufferBytes: number): { slots: number; wordBytes: number } {
  const slots = Math.round((bufferBytes - bytesFor(0)) / (bytesFor(1) - bytesFor(0)));
  return { slots, wordBytes: (headerWords + slots * slotWords) * 4 };
}
