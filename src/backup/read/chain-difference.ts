/**
 * Where two chains of one lineage may differ, from their indexes alone: no block is read.
 *
 * Both hold their newest common ancestor, as an image of its own or within a consolidated one. A block is the same in both when both have it
 * from one image that is not newer than that ancestor, or when it reads as zeros in both. Sequence numbers tell which image a block comes from,
 * wherever its record lies by now: below and at the ancestor there is one image of each.
 *
 * Only some leaves can hold a difference: those in which an image newer than the ancestor has something, and those behind the smallest disk
 * that any of them saw, where it has hidden what was there. A consolidated image with no parent leaves out what it makes zero: where such a
 * one is newer than the ancestor, all leaves are looked at.
 */
import { mergeRanges, type ByteRange } from '../../disk/byte-ranges.ts';
import * as format from '../format/layout.ts';
import type { ChainDisk } from './chain.ts';
import type { Image } from './image.ts';
import type { MergedLeaf } from './index-cache.ts';

const stateOffset = format.leafEntry.offsetOf('state');
const originOffset = format.leafEntry.offsetOf('originSequence');

/**
 * @returns whole blocks, sorted and merged, to the end of the larger disk; undefined where nothing is known: the chains have no ancestor in
 *   common, or other blocks
 * @throws what reading an index throws
 */
export function chainDifference(one: ChainDisk, other: ChainDisk): ByteRange[] | undefined {
  const ancestor = commonAncestor(one.images, other.images);
  if (ancestor === undefined || one.blockBytes !== other.blockBytes) return undefined;
  const { blockBytes } = one;
  const ranges: ByteRange[] = [];
  const origins = [new Float64Array(format.leafEntries), new Float64Array(format.leafEntries)] as const;
  for (const leafNumber of leavesOfInterest([one, other], ancestor)) {
    originsOf(one.mergedLeaf(leafNumber), origins[0]);
    originsOf(other.mergedLeaf(leafNumber), origins[1]);
    const start = leafNumber * format.leafEntries;
    for (let index = 0; index < format.leafEntries; index++) {
      const [first, second] = [origins[0][index], origins[1][index]];
      if (first !== second || (first !== undefined && first > ancestor))
        ranges.push({ offset: (start + index) * blockBytes, length: blockBytes });
    }
  }
  return mergeRanges(ranges);
}

/** Its sequence number. */
function commonAncestor(one: readonly Image[], other: readonly Image[]): number | undefined {
  if (one[0]?.description.chainId !== other[0]?.description.chainId) return undefined;
  const known = new Map(other.flatMap((image) => image.sources().map(({ imageId, sequence }) => [imageId, sequence])));
  const found = one.flatMap((image) => image.sources()).find((source) => known.get(source.imageId) === source.sequence);
  return found?.sequence;
}

function leavesOfInterest(chains: readonly [ChainDisk, ChainDisk], ancestor: number): number[] {
  const images = chains.flatMap((chain) => chain.images);
  const newer = images.filter(({ description }) => description.sequence > ancestor);
  const leafSpan = format.leafEntries * chains[0].blockBytes;
  const largestBytes = Math.max(...chains.map(({ sizeBytes }) => sizeBytes));
  const smallestBytes = Math.min(
    ...newer.flatMap(({ description }) => [description.sourceSizeBytes, description.visibleBytes]),
    ...chains.map(({ sizeBytes }) => sizeBytes),
  );
  const hidesZeros = newer.some(({ description }) => description.parent === undefined);
  const leaves = new Set(newer.flatMap((image) => [...image.leafNumbers()]));
  const from = hidesZeros ? 0 : smallestBytes < largestBytes ? Math.floor(smallestBytes / leafSpan) : Infinity;
  if (from < Infinity)
    for (const image of images) for (const leaf of image.leafNumbers()) if (leaf >= from) leaves.add(leaf);
  return [...leaves].sort((a, b) => a - b);
}

/** Of each block the sequence number of the image that it comes from; -1 where it reads as zeros. A leaf is looked at before the next one is. */
function originsOf(leaf: MergedLeaf | undefined, origins: Float64Array): void {
  origins.fill(-1);
  if (leaf === undefined) return;
  const view = new DataView(leaf.entries.buffer, leaf.entries.byteOffset, leaf.entries.byteLength);
  for (let index = 0; index < format.leafEntries; index++) {
    const at = index * format.leafEntryBytes;
    if (!format.readsAsZeros(view.getUint8(at + stateOffset))) origins[index] = view.getUint32(at + originOffset, true);
  }
}
