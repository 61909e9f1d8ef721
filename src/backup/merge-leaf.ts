/**
 * The leaves of several images, newest first, merged into what the chain holds: for each block the newest image that has it.
 *
 * What an older image holds past the end of a newer one is gone: each image narrows what is seen of those behind it.
 */
import { LRUCache } from 'lru-cache';
import { MiB } from '../base/units.ts';
import type { Image } from './image.ts';
import * as format from './layout.ts';
import type { VouchedLeaves } from './vouched-leaves.ts';

/** Memory for pages of one chain (4 KiB for each 8 GiB of disk and image). */
const pageBudgetBytes = 8 * MiB;
const stateOffset = format.leafEntry.offsetOf('state');

export interface MergedLeaf {
  /** 512 entries, each of the newest image that has one. */
  readonly entries: Uint8Array;
  /** Index into the chain of the image of each entry. */
  readonly images: Uint16Array;
}

export class LeafMerger {
  readonly #images: readonly Image[];
  readonly #vouched: readonly (VouchedLeaves | undefined)[];
  /** Whatever says of a page that something is there. */
  readonly #holders: readonly (Image | VouchedLeaves)[];
  /** Pages by image index and page number. Where an image has no page, its root says so from memory. */
  readonly #pages = new LRUCache<string, Uint8Array>({
    maxSize: pageBudgetBytes,
    sizeCalculation: (page) => page.length,
  });

  /**
   * @param images newest first; not owned
   * @param vouched of each image, where its leaves are to be checked
   */
  constructor(images: readonly Image[], vouched: readonly (VouchedLeaves | undefined)[] = []) {
    this.#images = images;
    this.#vouched = vouched;
    this.#holders = [...images, ...vouched.filter((one) => one !== undefined)];
  }

  /** Undefined when no image has anything there. @throws VeneerError (INTEGRITY), FormatError, UnavailableError */
  merge(leafNumber: number): MergedLeaf | undefined {
    let merged: MergedLeaf | undefined;
    let missing = format.leafEntries;
    let visibleBytes = Number.POSITIVE_INFINITY;
    for (const [imageIndex, image] of this.#images.entries()) {
      const { sourceSizeBytes, blockBytes } = image.description;
      visibleBytes = Math.min(visibleBytes, sourceSizeBytes);
      const leaf = this.#readLeaf(image, imageIndex, leafNumber);
      this.#vouched[imageIndex]?.check(leafNumber, leaf);
      if (leaf !== undefined) {
        merged ??= { entries: new Uint8Array(format.leafBytes), images: new Uint16Array(format.leafEntries) };
        const visible = Math.ceil(visibleBytes / blockBytes) - leafNumber * format.leafEntries;
        missing -= takeMissing(merged, leaf, imageIndex, visible);
        if (missing === 0) break;
      }
      visibleBytes = Math.min(visibleBytes, image.description.visibleBytes);
    }
    return merged;
  }

  /** The first page at or after `from` in which any image of the chain holds something. */
  nextPage(from: number): number | undefined {
    let next: number | undefined;
    for (const holder of this.#holders) {
      const page = holder.nextPage(from);
      if (page === from) return from;
      if (page !== undefined) next = Math.min(next ?? page, page);
    }
    return next;
  }

  /** The leaves that any image may hold something in, in order. */
  *leafNumbers(): Generator<number> {
    for (let page = this.nextPage(0); page !== undefined; page = this.nextPage(page + 1)) {
      for (let index = 0; index < format.pageReferences; index++) yield page * format.pageReferences + index;
    }
  }

  /** Drops what is cached. */
  clear(): void {
    this.#pages.clear();
  }

  #readLeaf(image: Image, imageIndex: number, leafNumber: number): Uint8Array | undefined {
    const pageNumber = Math.floor(leafNumber / format.pageReferences);
    const key = `${imageIndex}:${pageNumber}`;
    let page = this.#pages.get(key);
    if (page === undefined) {
      page = image.readPage(pageNumber);
      if (page === undefined) return undefined;
      this.#pages.set(key, page);
    }
    const reference = image.leafReference(page, leafNumber);
    return reference === undefined ? undefined : image.readLeaf(leafNumber, reference);
  }
}

/** Copies the entries that `merged` lacks and `leaf` has, up to `visible`; returns how many. */
function takeMissing(merged: MergedLeaf, leaf: Uint8Array, imageIndex: number, visible: number): number {
  let taken = 0;
  for (let index = 0; index < format.leafEntries && index < visible; index++) {
    const at = index * format.leafEntryBytes;
    if (merged.entries[at + stateOffset] !== format.blockState.absent) continue;
    if (leaf[at + stateOffset] === format.blockState.absent) continue;
    merged.entries.set(leaf.subarray(at, at + format.leafEntryBytes), at);
    merged.images[index] = imageIndex;
    taken++;
  }
  return taken;
}
