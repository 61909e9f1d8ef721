/**
 * The fill: copies what a replacement does not have yet from the synthesized file. Data is copied unit by unit; what is known to be zero
 * becomes holes, a region at a time, with no byte read.
 *
 * Work is divided into regions of 64 MiB of the file, which any number of threads take one after the other. Whatever stops a thread, the map
 * says what is done, and the next one goes on there.
 *
 * Order of copying a unit:
 * 1. it is read from the synthesized file, with no lock held: that file never changes
 * 2. under the unit's lock, if it is still missing: its data, then its bit in the live map, then in memory
 * Order of zeros in a region, with the locks of all units held:
 * 1. where the data file is not empty there (a write that was never acknowledged), it is made so
 * 2. the region's bits in the live map, in one write; then in memory
 */
import { FormatError, IntegrityError, UnavailableError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import type { Extent } from '../disk/disk.ts';
import type { DataFile } from '../replacement/data-file.ts';
import { presentBit, unitBytes } from '../replacement/layout.ts';
import { recordBits, recordRange } from '../replacement/map-file.ts';
import { PresenceMap } from '../replacement/presence-map.ts';
import {
  dataFileOf,
  readVisible,
  requireSound,
  shared,
  sizeOf,
  type BaseFile,
  type SharedReplacement,
} from '../replacement/shared.ts';

/** A synthesized file whose runs of zeros are known. */
export interface FillBase extends BaseFile {
  extents(offset: number, length: number): Iterable<Extent>;
}

export const regionBytes = 64 * MiB;
const regionUnits = regionBytes / unitBytes;
/** Read from the synthesized file at a time. */
const maxChunkUnits = 16;

export class Filler {
  readonly map: PresenceMap;
  /** Units that the image cannot give, whatever is done: damaged ones. With the first one's error. */
  readonly unreadable = new Set<number>();
  firstUnreadable: Error | undefined;
  readonly #parts: SharedReplacement;
  readonly #numbers: BigInt64Array;
  readonly #base: FillBase;
  readonly #data: DataFile;
  readonly #chunk = new Uint8Array(maxChunkUnits * unitBytes);

  constructor(parts: SharedReplacement, base: FillBase) {
    this.#parts = parts;
    this.#numbers = new BigInt64Array(parts.numbers);
    this.#base = base;
    this.map = new PresenceMap(parts.presence);
    this.#data = dataFileOf(parts, this.map);
  }

  /**
   * Copies what a region lacks. Yields after each chunk the bytes that were copied: whoever stops asking for more stops the copy.
   * @param chunkUnits how much at a time, asked for anew for each chunk: less keeps others waiting for less long
   * @throws whatever the synthesized file throws (what was copied stays); CapacityError, UnavailableError of the data file
   */
  *fill(region: number, chunkUnits: () => number): Generator<number> {
    requireSound(this.#parts);
    const first = region * regionUnits;
    const end = Math.min(first + regionUnits, fileUnits(this.#parts));
    const isData = this.dataUnits(region);
    for (let unit = first; unit < end;) {
      if (this.map.isPresent(unit) || isData[unit - first] !== 1) {
        unit++;
        continue;
      }
      const limit = Math.min(end, unit + Math.min(maxChunkUnits, chunkUnits()));
      let to = unit + 1;
      while (to < limit && isData[to - first] === 1 && !this.map.isPresent(to)) to++;
      yield this.#copyWhatCanBe(unit, to);
      unit = to;
    }
    this.#zeros(first, end, (unit) => isData[unit - first] !== 1);
  }

  /** Copies the units of [first, end) that are missing. @returns bytes copied */
  copy(first: number, end: number): number {
    requireSound(this.#parts);
    const resizes = Atomics.load(this.#numbers, shared.resizes);
    const bytes = this.#read(first, end, this.#chunk);
    let copied = 0;
    for (let unit = first; unit < end; unit++) {
      const from = (unit - first) * unitBytes;
      copied += this.#put(unit, bytes.subarray(from, from + unitBytes), resizes) ?? this.#copyAnew(unit);
    }
    return copied;
  }

  /** Of a unit that was read before the size changed. */
  #copyAnew(unit: number): number {
    for (;;) {
      const resizes = Atomics.load(this.#numbers, shared.resizes);
      const copied = this.#put(unit, this.#read(unit, unit + 1, new Uint8Array(unitBytes)), resizes);
      if (copied !== undefined) return copied;
    }
  }

  /** Never with a lock held: the image may not answer. @returns the front of `target`, as far as the file goes */
  #read(first: number, end: number, target: Uint8Array): Uint8Array {
    const at = first * unitBytes;
    const bytes = target.subarray(0, Math.max(0, Math.min(end * unitBytes, sizeOf(this.#parts)) - at));
    readVisible(this.#numbers, this.#base, bytes, at);
    return bytes;
  }

  /** One damaged block keeps no other unit away. */
  #copyWhatCanBe(first: number, end: number): number {
    try {
      return this.copy(first, end);
    } catch (error) {
      if (!isDamage(error)) throw error;
      if (end - first > 1) {
        let copied = 0;
        for (let unit = first; unit < end; unit++) copied += this.#copyWhatCanBe(unit, unit + 1);
        return copied;
      }
      this.unreadable.add(first);
      this.firstUnreadable ??= error;
      return 0;
    }
  }

  /** How many units of a region hold data, and how many of these are to be copied. */
  countUnits(region: number): { data: number; missing: number } {
    const counts = { data: 0, missing: 0 };
    for (const [index, isData] of this.dataUnits(region).entries()) {
      if (isData !== 1) continue;
      counts.data++;
      if (!this.map.isPresent(region * regionUnits + index)) counts.missing++;
    }
    return counts;
  }

  /** Which units of a region hold data, as far as is known without reading any: 1 for each of these. */
  dataUnits(region: number): Uint8Array {
    const from = region * regionBytes;
    const isData = new Uint8Array(regionUnits);
    const visible = Math.min(Number(Atomics.load(this.#numbers, shared.visibleBytes)), this.#base.sizeBytes);
    const length = Math.min(regionBytes, visible - from);
    if (length <= 0) return isData;
    for (const extent of this.#base.extents(from, length)) {
      if (extent.kind === 'zero') continue;
      const start = Math.floor((extent.offset - from) / unitBytes);
      isData.fill(1, start, Math.ceil((extent.offset - from + extent.length) / unitBytes));
    }
    return isData;
  }

  /** @param resizes as it was before the bytes were read. @returns undefined where the size has changed since: nothing is done then */
  #put(unit: number, bytes: Uint8Array, resizes: bigint): number | undefined {
    return this.map.locked('unit', unit, () => {
      if (this.map.isPresent(unit)) return 0;
      if (Atomics.load(this.#numbers, shared.resizes) !== resizes) return undefined;
      if (bytes.length === 0) return 0;
      this.#data.write(bytes, unit * unitBytes);
      recordBits(this.#parts.mapFd, this.map, unit, presentBit, this.#parts.name);
      return bytes.length;
    });
  }

  #zeros(first: number, end: number, isZero: (unit: number) => boolean): void {
    const missing = (unit: number): boolean => isZero(unit) && !this.map.isPresent(unit);
    let any = false;
    for (let unit = first; unit < end && !any; unit++) any = missing(unit);
    if (!any) return;
    requireSound(this.#parts);
    this.map.allUnitsLocked(() => {
      this.#empty(first, Math.min(end, fileUnits(this.#parts)), missing);
      recordRange(this.#parts.mapFd, this.map, { first, end, bits: presentBit, which: missing }, this.#parts.name);
    });
  }

  /** Makes holes of whatever the data file has in these units. */
  #empty(first: number, end: number, which: (unit: number) => boolean): void {
    const limit = end * unitBytes;
    for (let at = this.#data.nextData(first * unitBytes); at !== undefined && at < limit;) {
      const hole = Math.min(this.#data.nextHole(at) ?? limit, limit);
      for (let unit = Math.floor(at / unitBytes); unit * unitBytes < hole; unit++)
        if (which(unit)) this.#emptyUnit(unit);
      at = this.#data.nextData(Math.max(hole, at + 1));
    }
  }

  #emptyUnit(unit: number): void {
    try {
      this.#data.makeHole(unit * unitBytes, unitBytes);
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      const length = Math.min(unitBytes, sizeOf(this.#parts) - unit * unitBytes);
      this.#data.write(new Uint8Array(Math.max(0, length)), unit * unitBytes);
    }
  }
}

/** What no second attempt mends. */
function isDamage(error: unknown): error is Error {
  return error instanceof IntegrityError || error instanceof FormatError;
}

/** Units that the file has now. */
export function fileUnits(parts: SharedReplacement): number {
  return Math.ceil(sizeOf(parts) / unitBytes);
}

export function regionCount(parts: SharedReplacement): number {
  return Math.ceil(fileUnits(parts) / regionUnits);
}

/** The first unit that is still to be copied; undefined when none is. What lies above the visible size reads as zeros with no image. */
export function firstMissing(parts: SharedReplacement, map: PresenceMap, from = 0): number | undefined {
  const visible = Number(Atomics.load(new BigInt64Array(parts.numbers), shared.visibleBytes));
  const end = Math.min(fileUnits(parts), Math.ceil(visible / unitBytes));
  if (from >= end || !map.isPresent(from)) return from < end ? from : undefined;
  const unit = map.runEnd(from, true, end);
  return unit < end ? unit : undefined;
}
