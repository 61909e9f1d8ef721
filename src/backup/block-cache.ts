/**
 * Inflated blocks of all open chains of one thread, kept within a budget of bytes.
 *
 * A cached block is read-only. Buffers of evicted blocks are used again, so that steady reading allocates nothing.
 */
import { LRUCache } from 'lru-cache';
import type { Closable } from '../base/ownership.ts';

/** Positions of one chain: 2^17 chains open at once in a thread, each of at most 2^36 blocks (1 PiB in blocks of 16 KiB). */
const positionsPerChain = 2 ** 36;
const maxSpareBuffers = 16;

/** Where inflated blocks are kept, for one thread or for many. */
export interface Blocks {
  /** @param identity SHA-256 of the newest image's commit: names the very contents of the chain */
  forChain(identity: Uint8Array): ChainBlocks;
}

/** The blocks of one chain. */
export interface ChainBlocks extends Closable {
  readonly hits: number;
  readonly misses: number;
  /** Copies bytes from `within` of a block that is kept. Counts a hit, or a miss where it is not. */
  copy(position: number, blockBytes: number, within: number, target: Uint8Array): boolean;
  /** Has `fill` make the block, keeps it, and copies from it; when `fill` throws, nothing is kept. */
  load(
    position: number,
    blockBytes: number,
    within: number,
    target: Uint8Array,
    fill: (block: Uint8Array) => void,
  ): void;
}

export class BlockCache implements Blocks {
  readonly budgetBytes: number;
  readonly #blocks: LRUCache<number, Uint8Array>;
  readonly #spare: Uint8Array[] = [];
  #chains = 0;
  /** Keys of closed chains, used again: were they only counted up, they would pass 2^53 and be one another's. */
  readonly #freeKeys: number[] = [];

  constructor(budgetBytes: number) {
    this.budgetBytes = budgetBytes;
    this.#blocks = new LRUCache({
      maxSize: Math.max(1, budgetBytes),
      sizeCalculation: (block) => block.length,
      dispose: (block) => {
        if (this.#spare.length < maxSpareBuffers) this.#spare.push(block);
      },
    });
  }

  /** A view of the cache for one chain; closing it drops the chain's blocks. */
  forChain(): ChainCache {
    return new ChainCache(this, this.#freeKeys.pop() ?? this.#chains++ * positionsPerChain);
  }

  get(key: number): Uint8Array | undefined {
    return this.#blocks.get(key);
  }

  set(key: number, block: Uint8Array): void {
    this.#blocks.set(key, block);
  }

  /** A buffer to inflate into; give it to `set` when it holds a good block. */
  buffer(lengthBytes: number): Uint8Array {
    const index = this.#spare.findIndex((spare) => spare.length === lengthBytes);
    return (index < 0 ? undefined : this.#spare.splice(index, 1)[0]) ?? new Uint8Array(lengthBytes);
  }

  /** Drops the blocks of a chain that is closed. */
  dropChain(firstKey: number): void {
    for (const key of [...this.#blocks.keys()]) {
      if (key >= firstKey && key < firstKey + positionsPerChain) this.#blocks.delete(key);
    }
    this.#freeKeys.push(firstKey);
  }
}

export class ChainCache implements ChainBlocks {
  hits = 0;
  misses = 0;
  readonly #cache: BlockCache;
  readonly #firstKey: number;
  #closed = false;

  constructor(cache: BlockCache, firstKey: number) {
    this.#cache = cache;
    this.#firstKey = firstKey;
  }

  /** The cached block, or undefined. Counts a hit or a miss. */
  get(position: number): Uint8Array | undefined {
    const found = this.#cache.get(this.#firstKey + position);
    if (found === undefined) this.misses++;
    else this.hits++;
    return found;
  }

  /** Inflates by `fill` into a buffer and keeps it; when `fill` throws, nothing is kept. */
  fill(position: number, lengthBytes: number, fill: (block: Uint8Array) => void): Uint8Array {
    const block = this.#cache.buffer(lengthBytes);
    fill(block);
    this.#cache.set(this.#firstKey + position, block);
    return block;
  }

  copy(position: number, _blockBytes: number, within: number, target: Uint8Array): boolean {
    const block = this.get(position);
    if (block === undefined) return false;
    target.set(block.subarray(within, within + target.length));
    return true;
  }

  load(
    position: number,
    blockBytes: number,
    within: number,
    target: Uint8Array,
    fill: (block: Uint8Array) => void,
  ): void {
    target.set(this.fill(position, blockBytes, fill).subarray(within, within + target.length));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cache.dropChain(this.#firstKey);
  }
}
