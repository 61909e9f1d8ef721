/**
 * Units of a native file that are stored compressed. Of one that is read in part the rest is wanted soon, and so it is kept; one that is read
 * whole goes to the caller alone.
 */
import { LRUCache } from 'lru-cache';
import { MiB } from '../base/units.ts';
import type { Disk } from '../disk/disk.ts';

const cacheBytes = 16 * MiB;

export class PackedUnits {
  readonly #file: Disk;
  readonly #kept = new LRUCache<number, Uint8Array>({ maxSize: cacheBytes, sizeCalculation: (unit) => unit.length });
  #stored = new Uint8Array(0);

  constructor(file: Disk) {
    this.#file = file;
  }

  /**
   * Fills target from byte `within` of the unit that is stored at `at`.
   * @param unpack makes the whole unit, where it is not kept
   */
  read(target: Uint8Array, within: number, at: number, unpack: () => Uint8Array): void {
    let unit = this.#kept.get(at);
    if (unit === undefined) {
      unit = unpack();
      if (target.length < unit.length) this.#kept.set(at, unit);
    }
    target.set(unit.subarray(within, within + target.length));
  }

  /** Bytes of the file, which lie inside it: valid until the next call. */
  stored(offset: number, lengthBytes: number): Uint8Array {
    if (this.#stored.length < lengthBytes) this.#stored = new Uint8Array(lengthBytes);
    const bytes = this.#stored.subarray(0, lengthBytes);
    this.#file.read(bytes, offset);
    return bytes;
  }
}

/** For zlib: room for all of a unit at once, and for the step in which it notices the end. */
export function inflatedAtOnce(unitBytes: number): { maxOutputLength: number; chunkSize: number } {
  return { maxOutputLength: unitBytes, chunkSize: unitBytes + 64 };
}
