/**
 * A replacement that serves alone: complete, or final. Its data file is the disk: every byte of it, to its real length, whoever wrote it, also
 * the kernel by itself. Which units the map has, is not asked any more, nor does a file end where the map does.
 *
 * The map is kept for one use: it tells what the guest has changed of the synthesized file. So it must not claim less than that: a written bit is
 * set before the data, and what is cut off counts as changed from then on. Once the kernel has written by itself (`direct`), or behind the last
 * unit of the map, everything counts as changed, and nothing is recorded.
 */
import type { Extent } from '../disk/disk.ts';
import type { DataFile } from './data-file.ts';
import { recordBits } from './map-file.ts';
import { bothBits, type PresenceMap } from './presence-map.ts';
import { commitHeader, orPoison, shared, type SharedReplacement } from './shared.ts';

export class AloneFile {
  readonly #parts: SharedReplacement;
  readonly #numbers: BigInt64Array;
  readonly #map: PresenceMap;
  readonly #data: DataFile;

  constructor(parts: SharedReplacement, map: PresenceMap, data: DataFile) {
    this.#parts = parts;
    this.#numbers = new BigInt64Array(parts.numbers);
    this.#map = map;
    this.#data = data;
  }

  /** The caller holds the unit's lock. */
  write(unit: number, source: Uint8Array, at: number): void {
    this.#noteWritten(unit);
    this.#data.write(source, at);
  }

  /** As `write`, of zeros, inside the file: no byte beside them is touched. */
  zero(unit: number, at: number, lengthBytes: number): void {
    this.#noteWritten(unit);
    this.#data.zero(at, lengthBytes);
  }

  /**
   * Before a cut: what is cut off is not as synthesized any more, also when the file grows again. The caller keeps everybody else away.
   * Crash order: 1. the header, durably; 2. the cut. A crash between them leaves a file of which more counts as changed than was.
   */
  unclaim(sizeBytes: number): void {
    if (this.#isDirect || BigInt(sizeBytes) >= Atomics.load(this.#numbers, shared.visibleBytes)) return;
    const header = { visibleBytes: sizeBytes, cutting: 0 } as const;
    orPoison(this.#parts, header, () => commitHeader(this.#parts, header));
    Atomics.store(this.#numbers, shared.visibleBytes, BigInt(sizeBytes));
  }

  *extents(offset: number, length: number): Generator<Extent> {
    const end = offset + length;
    for (let at = offset; at < end;) {
      const data = Math.min(this.#data.nextData(at) ?? end, end);
      if (data > at) yield { offset: at, length: data - at, kind: 'zero' };
      if (data >= end) return;
      at = Math.min(this.#data.nextHole(data) ?? end, end);
      yield { offset: data, length: at - data, kind: 'data' };
    }
  }

  get #isDirect(): boolean {
    return Atomics.load(this.#numbers, shared.direct) !== 0n;
  }

  #noteWritten(unit: number): void {
    if (this.#isDirect || unit >= this.#map.unitCount) return;
    recordBits(this.#parts.mapFd, this.#map, unit, bothBits, this.#parts.name);
  }
}
