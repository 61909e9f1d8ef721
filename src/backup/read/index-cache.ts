/**
 * What one thread keeps of the indexes of all chains that it has open: merged leaves, the pages that lead to leaves, and what was vouched for
 * leaves of consolidated images. One budget for all of them, so that a hundred disks take no more memory than one.
 *
 * Leaves lie in memory that is used again for others: whoever has one looks at it before the next one is asked for, of whichever chain.
 */
import { LRUCache } from 'lru-cache';
import type { Closable } from '../../base/ownership.ts';
import { KiB, MiB } from '../../base/units.ts';
import * as format from '../format/layout.ts';
import type { LeafStates } from '../format/provenance.ts';

export interface MergedLeaf {
  /** 512 entries, each of the newest image that has one. */
  readonly entries: Uint8Array;
  /** Index into the chain of the image of each entry. */
  readonly images: Uint16Array;
}

/** What a part of a map says. */
export interface ParsedPart {
  readonly leafNumbers: readonly number[];
  readonly states: readonly LeafStates[];
}

/** Where nobody says otherwise: for a job that reads one chain or two. */
export const defaultIndexBytes = 32 * MiB;
const leafBytes = format.leafBytes + 2 * format.leafEntries;
/** So much there always is: a read needs a leaf and a page of each image on the way to it. */
const minBytes = 256 * KiB;
const share = { leaves: 5 / 8, pages: 1 / 8, parts: 2 / 8 } as const;
/** Leaves of a chain are numbered below this. */
const numbersPerChain = 2 ** 32;

/** Stands for a leaf that no image of the chain has. */
const noLeaf: MergedLeaf = { entries: new Uint8Array(0), images: new Uint16Array(0) };

export function newLeaf(): MergedLeaf {
  return { entries: new Uint8Array(format.leafBytes), images: new Uint16Array(format.leafEntries) };
}

export class IndexCache {
  readonly leaves: LRUCache<number, MergedLeaf>;
  readonly pages: LRUCache<string, Uint8Array>;
  readonly parts: LRUCache<string, ParsedPart>;
  /** Leaves whose place is free. */
  readonly #free: MergedLeaf[] = [];
  #chains = 0;

  constructor(budgetBytes: number = defaultIndexBytes) {
    const bytes = Math.max(budgetBytes, minBytes);
    this.leaves = new LRUCache({
      max: Math.floor((bytes * share.leaves) / leafBytes),
      dispose: (leaf) => this.giveBack(leaf),
    });
    this.pages = new LRUCache({ max: Math.floor((bytes * share.pages) / format.pageBytes) });
    this.parts = new LRUCache({ maxSize: Math.floor(bytes * share.parts) });
  }

  /** One chain's view, from opening it to closing it. */
  forChain(): ChainIndexCache {
    return new ChainIndexCache(this, this.#chains++);
  }

  /** A leaf with no entry. */
  take(): MergedLeaf {
    const leaf = this.#free.pop();
    if (leaf === undefined) return newLeaf();
    leaf.entries.fill(0);
    return leaf;
  }

  giveBack(leaf: MergedLeaf): void {
    if (leaf !== noLeaf) this.#free.push(leaf);
  }
}

export class ChainIndexCache implements Closable {
  readonly #cache: IndexCache;
  readonly #chain: number;

  constructor(cache: IndexCache, chain: number) {
    this.#cache = cache;
    this.#chain = chain;
  }

  /**
   * The merged leaf, until the next one is asked for; undefined where the chain has nothing there.
   * @param merge puts entries into an empty leaf; false where there are none
   * @throws what `merge` throws: nothing is kept then
   */
  leaf(leafNumber: number, merge: (into: MergedLeaf, leafNumber: number) => boolean): MergedLeaf | undefined {
    const { leaves } = this.#cache;
    const key = this.#chain * numbersPerChain + leafNumber;
    const known = leaves.get(key);
    if (known !== undefined) return known === noLeaf ? undefined : known;
    const leaf = this.#cache.take();
    let isThere = false;
    try {
      isThere = merge(leaf, leafNumber);
    } finally {
      if (!isThere) this.#cache.giveBack(leaf);
    }
    leaves.set(key, isThere ? leaf : noLeaf);
    return isThere ? leaf : undefined;
  }

  /** @param read the page of an image; undefined where it has none, which its root says from memory */
  page(imageIndex: number, pageNumber: number, read: () => Uint8Array | undefined): Uint8Array | undefined {
    const { pages } = this.#cache;
    const key = `${this.#chain}:${imageIndex}:${pageNumber}`;
    const known = pages.get(key);
    if (known !== undefined) return known;
    const page = read();
    if (page !== undefined) pages.set(key, page);
    return page;
  }

  /** Of a map of a consolidated image: the part that begins at `offset` of its file. @param sizeBytes what it takes */
  part(imageIndex: number, offset: number, sizeBytes: number, read: () => ParsedPart): ParsedPart {
    const { parts } = this.#cache;
    const key = `${this.#chain}:${imageIndex}:${offset}`;
    let part = parts.get(key);
    if (part === undefined) parts.set(key, (part = read()), { size: sizeBytes });
    return part;
  }

  /** Lets go of all that is kept of the chain. */
  close(): void {
    const { leaves, pages, parts } = this.#cache;
    for (const key of [...leaves.keys()]) if (Math.floor(key / numbersPerChain) === this.#chain) leaves.delete(key);
    const prefix = `${this.#chain}:`;
    for (const kept of [pages, parts]) for (const key of [...kept.keys()]) if (key.startsWith(prefix)) kept.delete(key);
  }
}
