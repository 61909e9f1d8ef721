/** Ranges of a disk's bytes, by offset and length. */
import { firstIndex } from '../base/search.ts';

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** The same bytes as ranges in order, of which no two touch and none is empty. */
export function mergeRanges(ranges: readonly ByteRange[]): ByteRange[] {
  const merged: { offset: number; length: number }[] = [];
  for (const range of [...ranges].sort((a, b) => a.offset - b.offset)) {
    const last = merged.at(-1);
    if (range.length === 0) continue;
    if (last !== undefined && range.offset <= last.offset + last.length) {
      last.length = Math.max(last.length, range.offset + range.length - last.offset);
    } else {
      merged.push({ ...range });
    }
  }
  return merged;
}

/** The index of the first range that ends behind `offset`; their number when there is none. `ranges` as `mergeRanges` returns them. */
export function firstEndingAfter(ranges: readonly ByteRange[], offset: number): number {
  return firstIndex(ranges.length, (index) => {
    const range = ranges[index];
    return range !== undefined && range.offset + range.length > offset;
  });
}
