/**
 * The leaves of several images, newest first, merged into what the chain holds: for each block the newest image that has it.
 *
 * What an older image holds past the end of a newer one is gone: each image narrows what is seen of those behind it.
 */
import * as format from '../format/layout.ts';
import type { Image } from './image.ts';
import { IndexCache, newLeaf, type ChainIndexCache, type MergedLeaf } from './index-cache.ts';
import type { VouchedLeaves } from './vouched-leaves.ts';

const stateOffset = format.leafEntry.offsetOf('state');

export class LeafMerger {
  readonly #images: readonly Image[];
  readonly #vouched: readonly (VouchedLeaves | undefined)[];
  /** Whatever says of a page that something is there. */
  readonly #holders: readonly (Image | VouchedLeaves)[];
  readonly #kept: ChainIndexCache;
  /** A leaf as it is in its image, until it is merged. */
  readonly #leaf = new Uint8Array(format.leafBytes);

  /**
   * @param images newest first; not owned
   * @param vouched of each image, where its leaves are to be checked
   * @param kept where pages are kept; the caller's
   */
  constructor(
    images: readonly Image[],
    vouched: readonly (VouchedLeaves | undefined)[] = [],
    kept: ChainIndexCache = new IndexCache().forChain(),
  ) {
    this.#images = images;
    this.#vouched = vouched;
    this.#kept = kept;
    this.#holders = [...images, ...vouched.filter((one) => one !== undefined)];
  }

  /** Undefined when no image has anything there. @throws VeneerError (INTEGRITY), FormatError, UnavailableError */
  merge(leafNumber: number): MergedLeaf | undefined {
    const merged = newLeaf();
    return this.mergeInto(merged, leafNumber) ? merged : undefined;
  }

  /** @param merged has no entry yet. @returns false when no image has anything there. @throws as `merge` */
  mergeInto(merged: MergedLeaf, leafNumber: number): boolean {
    let isThere = false;
    let missing = format.leafEntries;
    let visibleBytes = Number.POSITIVE_INFINITY;
    for (const [imageIndex, image] of this.#images.entries()) {
      const { sourceSizeBytes, blockBytes } = image.description;
      visibleBytes = Math.min(visibleBytes, sourceSizeBytes);
      const leaf = this.#readLeaf(image, imageIndex, leafNumber);
      this.#vouched[imageIndex]?.check(leafNumber, leaf);
      if (leaf !== undefined) {
        isThere = true;
        const visible = Math.ceil(visibleBytes / blockBytes) - leafNumber * format.leafEntries;
        missing -= takeMissing(merged, leaf, imageIndex, visible);
        if (missing === 0) break;
      }
      visibleBytes = Math.min(visibleBytes, image.description.visibleBytes);
    }
    return isThere;
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

  #readLeaf(image: Image, imageIndex: number, leafNumber: number): Uint8Array | undefined {
    const pageNumber = Math.floor(leafNumber / format.pageReferences);
    const page = this.#kept.page(imageIndex, pageNumber, () => image.readPage(pageNumber));
    const reference = page === undefined ? undefined : image.leafReference(page, leafNumber);
    return reference === undefined ? undefined : image.readLeaf(leafNumber, reference, this.#leaf);
  }
}

/** Copies the entries that `merged` lacks and `leaf` has, up to `visible`, a run at a time; returns how many. */
function takeMissing(merged: MergedLeaf, leaf: Uint8Array, imageIndex: number, visible: number): number {
  const end = Math.min(format.leafEntries, visible);
  let taken = 0;
  for (let index = 0; index < end;) {
    const first = index;
    while (index < end && isMissing(merged, leaf, index)) index++;
    if (index === first) {
      index++;
      continue;
    }
    const at = first * format.leafEntryBytes;
    merged.entries.set(leaf.subarray(at, index * format.leafEntryBytes), at);
    merged.images.fill(imageIndex, first, index);
    taken += index - first;
  }
  return taken;
}

function isMissing(merged: MergedLeaf, leaf: Uint8Array, index: number): boolean {
  const at = index * format.leafEntryBytes + stateOffset;
  return merged.entries[at] === format.blockState.absent && leaf[at] !== format.blockState.absent;
}
