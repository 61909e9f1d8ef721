/**
 * Proof that a replacement is the synthesized file and what the guest wrote, and nothing else.
 *
 * Before the cut-over every unit is read back from the disk and compared; prove.ts says at any time what is there.
 */
import { UnavailableError } from '../base/errors.ts';
import type { DataFile } from './data-file.ts';
import { dropCached } from '../base/file-advice.ts';
import { Filler, fileUnits, regionBytes, type FillBase } from './fill.ts';
import { presentBit, unitBytes, writtenBit } from './layout.ts';
import { recordBits } from './map-file.ts';
import type { PresenceMap } from './presence-map.ts';
import { dataFileOf, readVisible, shared, sizeOf, type SharedReplacement } from './shared.ts';

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
    for (let copies = 0; !this.#isRight(unit); copies++) {
      if (copies === maxCopies)
        throw new UnavailableError(
          `${this.#parts.name}: 64 KiB at byte ${unit * unitBytes}, written and read back ${copies} times, are not what was written; check the disk below`,
        );
      this.#mend(unit);
    }
  }

  /** Also for what the guest wrote, and for what is not there: the image has that. */
  #isRight(unit: number): boolean {
    const lengthBytes = Math.max(0, Math.min(unitBytes, sizeOf(this.#parts) - unit * unitBytes));
    const found = this.#data.subarray(0, lengthBytes);
    this.#file.read(found, unit * unitBytes);
    if (this.#map.get(unit) !== presentBit) return true;
    const expected = this.#expected.subarray(0, lengthBytes);
    readVisible(this.#numbers, this.#base, expected, unit * unitBytes);
    return Buffer.compare(found, expected) === 0 || this.#map.get(unit) !== presentBit;
  }

  #mend(unit: number): void {
    const { mapFd, name } = this.#parts;
    this.#map.locked('unit', unit, () => {
      if (this.#isRight(unit)) return;
      if (Atomics.load(this.#numbers, shared.suspect) !== 0n) {
        recordBits(mapFd, this.#map, unit, writtenBit, name);
        this.adoptedUnits++;
        return;
      }
      const lengthBytes = Math.max(0, sizeOf(this.#parts) - unit * unitBytes);
      this.#file.write(this.#expected.subarray(0, lengthBytes), unit * unitBytes);
      this.repairedUnits++;
    });
  }
}
