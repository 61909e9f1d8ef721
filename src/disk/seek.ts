/**
 * Data and zeros of a disk, found at the price of what lies between the start and the answer, whatever lies behind.
 *
 * A disk's extents are merged, so that one of them may be as long as the disk. They are asked for in windows therefore, each as long as all
 * that was looked at before: the price is at most twice what had to be looked at, also of a disk that is one run from here to its end.
 */
import { alignDown, alignUp } from '../base/ranges.ts';
import { MiB } from '../base/units.ts';
import type { Disk, Extent } from './disk.ts';

/** What tells runs of data and zeros. */
export type Runs = Pick<Disk, 'sizeBytes' | 'extents'>;

const firstWindowBytes = 4 * MiB;
/** Holes are told in these, since programs that read with O_DIRECT read what lies between holes, and need whole pages for it. */
const pageBytes = 4096;

/** The extents from `from` to the end; neighbours may be of one kind. */
export function* extentsFrom(runs: Runs, from: number): Generator<Extent> {
  const { sizeBytes } = runs;
  for (let at = from; at < sizeBytes;) {
    // Ends at multiples of the window, so that no page lies across two.
    const end = Math.min(alignUp(at + Math.max(firstWindowBytes, at - from), firstWindowBytes), sizeBytes);
    yield* runs.extents(at, end - at);
    at = end;
  }
}

/** The first byte at or after `from` that may be data; the size where all the rest is zero. */
export function nextDataOffset(runs: Runs, from: number): number {
  for (const extent of extentsFrom(runs, from)) if (extent.kind === 'data') return extent.offset;
  return runs.sizeBytes;
}

/** Finds data for a caller that mostly goes forward: what one look has told is not asked for again. */
export class DataCursor {
  readonly #runs: Runs;
  /** From #from to #data all is zero; from there to #end all is data. */
  #from = 0;
  #data = 0;
  #end = 0;

  constructor(runs: Runs) {
    this.#runs = runs;
  }

  /** As `nextDataOffset`. */
  next(from: number): number {
    if (from < this.#from || from >= this.#end) this.#look(from);
    return Math.max(from, this.#data);
  }

  #look(from: number): void {
    this.#from = from;
    this.#data = this.#runs.sizeBytes;
    this.#end = Number.POSITIVE_INFINITY;
    for (const extent of extentsFrom(this.#runs, from)) {
      if (extent.kind !== 'data') continue;
      this.#data = extent.offset;
      this.#end = extent.offset + extent.length;
      return;
    }
  }
}

/**
 * Where data begins at or after `offset`, in whole pages: a page with any data is data. An offset inside data is its own answer.
 * @returns undefined where only a hole follows
 */
export function seekDataPage(runs: Runs, offset: number): number | undefined {
  for (const extent of extentsFrom(runs, alignDown(offset, pageBytes)))
    if (extent.kind === 'data') return Math.max(offset, alignDown(extent.offset, pageBytes));
  return undefined;
}

/** Where a hole begins at or after `offset`, in whole pages; the end of the disk counts as one. An offset inside a hole is its own answer. */
export function seekHolePage(runs: Runs, offset: number): number {
  let dataEnd = alignDown(offset, pageBytes);
  for (const { offset: start, length, kind } of extentsFrom(runs, dataEnd)) {
    const end = start + length;
    if (kind === 'data') dataEnd = alignUp(end, pageBytes);
    // A page with data behind these zeros is no hole.
    else if (end === runs.sizeBytes ? end > dataEnd : alignDown(end, pageBytes) > dataEnd) break;
  }
  return Math.max(offset, Math.min(dataEnd, runs.sizeBytes));
}
