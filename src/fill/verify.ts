/**
 * Proof that a replacement is the synthesized file and what the guest wrote, and nothing else.
 *
 * Before the cut-over every unit is read back from the disk and compared; prove.ts says at any time what is there.
 */
import { UnavailableError } from '../base/errors.ts';
import type { DataFile } from '../replacement/data-file.ts';
import { dropCached } from '../base/file-advice.ts';
import { presentBit, unitBytes, writtenBit } from '../replacement/layout.ts';
import { recordBits } from '../replacement/map-file.ts';
import type { PresenceMap } from '../replacement/presence-map.ts';
import { dataFileOf, readVisible, shared, sizeOf, type SharedReplacement } from '../replacement/shared.ts';
import { Filler, fileUnits, regionBytes, type FillBase } from './filler.ts';

const regionUnits = regionBytes / unitBytes;
/** A unit that was copied again and still differs after so many times cannot be kept by the disk. */
const maxCopies = 3;

export class Verifier {
  /** Units that had to be copied again. */
  repairedUnits = 0;
  /** Units that differ after a power loss: they hold writes of the guest that no flush had covered. */
  adoptedUnits = 0;
  readonly #parts: SharedReplacement;
  readonly #numbers: BigInt64Array;
  readonly #base: FillBase;
  readonly #file: DataFile;
  readonly #map: PresenceMap;
  readonly #filler: Filler;
  /** A range of the data file that is known to be a hole. */
  #emptyFrom = 0;
  #emptyTo = 0;
  readonly #data = new Uint8Array(unitBytes);
  readonly #expected = new Uint8Array(unitBytes);

  constructor(parts: SharedReplacement, base: FillBase) {
    this.#parts = parts;
    this.#numbers = new BigInt64Array(parts.numbers);
    this.#base = base;
    this.#filler = new Filler(parts, base);
    this.#map = this.#filler.map;
    this.#file = dataFileOf(parts, this.#map);
  }

  /**
   * Reads a region back and compares it with the synthesized file. What differs is copied again. Yields after each unit the bytes checked.
   * What was flushed before is read from the disk, not from memory.
   * @throws UnavailableError for a unit that the disk does not keep; whatever either file throws
   */
  *verify(region: number): Generator<number> {
    const first = region * regionUnits;
    dropCached(this.#parts.dataFd, first * unitBytes, regionBytes);
    const isData = this.#filler.dataUnits(region);
    const end = Math.min(first + regionUnits, fileUnits(this.#parts));
    for (let unit = first; unit < end; unit++) {
      if (isData[unit - first] !== 1 && this.#isEmpty(unit)) continue;
      this.#verifyUnit(unit);
      yield unitBytes;
    }
  }

  /** What becomes data behind our back was written by the guest, and is not compared. */
  #isEmpty(unit: number): boolean {
    if (unit * unitBytes < this.#emptyFrom || (unit + 1) * unitBytes > this.#emptyTo) {
      this.#emptyFrom = unit * unitBytes;
      this.#emptyTo = this.#file.nextData(this.#emptyFrom) ?? Infinity;
    }
    return (unit + 1) * unitBytes <= this.#emptyTo;
  }

  #verifyUnit(unit: number): void {
    for (let copies = 0; ;) {
      const resizes = Atomics.load(this.#numbers, shared.resizes);
      const expected = this.#expect(unit);
      if (this.#isRight(unit, expected) || expected === undefined) return;
      if (copies === maxCopies)
        throw new UnavailableError(
          `${this.#parts.name}: 64 KiB at byte ${unit * unitBytes}, written and read back ${copies} times, are not what was written; check the disk below`,
        );
      if (this.#mend(unit, expected, resizes)) copies++;
    }
  }

  #lengthOf(unit: number): number {
    return Math.max(0, Math.min(unitBytes, sizeOf(this.#parts) - unit * unitBytes));
  }

  /** What the image has; undefined for what the guest wrote, and for what is not there. Never with a lock held: the image may not answer. */
  #expect(unit: number): Uint8Array | undefined {
    if (this.#map.get(unit) !== presentBit) return undefined;
    const expected = this.#expected.subarray(0, this.#lengthOf(unit));
    readVisible(this.#numbers, this.#base, expected, unit * unitBytes);
    return expected;
  }

  /** Reads the unit in any case. */
  #isRight(unit: number, expected: Uint8Array | undefined): boolean {
    const found = this.#data.subarray(0, Math.min(expected?.length ?? unitBytes, this.#lengthOf(unit)));
    this.#file.read(found, unit * unitBytes);
    if (expected === undefined || this.#map.get(unit) !== presentBit) return true;
    return Buffer.compare(found, expected.subarray(0, found.length)) === 0;
  }

  /** @param resizes as it was before `expected` was read. @returns false where the size has changed since: nothing is done then */
  #mend(unit: number, expected: Uint8Array, resizes: bigint): boolean {
    const { mapFd, name } = this.#parts;
    return this.#map.locked('unit', unit, () => {
      if (Atomics.load(this.#numbers, shared.resizes) !== resizes) return false;
      if (this.#isRight(unit, expected)) return true;
      if (Atomics.load(this.#numbers, shared.suspect) !== 0n) {
        recordBits(mapFd, this.#map, unit, writtenBit, name);
        this.adoptedUnits++;
      } else {
        this.#file.write(expected, unit * unitBytes);
        this.repairedUnits++;
      }
      return true;
    });
  }
}
