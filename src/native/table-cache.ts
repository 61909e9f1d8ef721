/** Entries of tables that stay in the file: pages of it are kept within a budget of bytes, however large the tables are. */
import { LRUCache } from 'lru-cache';
import { alignDown } from '../base/ranges.ts';
import { KiB, MiB } from '../base/units.ts';
import type { Disk } from '../disk/disk.ts';
import { checkInside } from './reader.ts';

const pageBytes = 64 * KiB;
export const defaultTableCacheBytes = 8 * MiB;

export class TableCache {
  readonly #file: Disk;
  readonly #structure: string;
  readonly #pages: LRUCache<number, DataView>;
  /** The page of the last entry: walks over a table stay in it. */
  #lastStart = -1;
  #last: DataView = new DataView(new ArrayBuffer(0));

  /** @param structure names the tables in errors */
  constructor(file: Disk, structure: string, budgetBytes: number = defaultTableCacheBytes) {
    this.#file = file;
    this.#structure = structure;
    this.#pages = new LRUCache({
      maxSize: Math.max(budgetBytes, pageBytes),
      sizeCalculation: (page) => page.byteLength,
    });
  }

  u8(offset: number): number {
    return this.#page(offset, 1).getUint8(offset % pageBytes);
  }

  u32le(offset: number): number {
    return this.#page(offset, 4).getUint32(offset % pageBytes, true);
  }

  u32be(offset: number): number {
    return this.#page(offset, 4).getUint32(offset % pageBytes);
  }

  u64le(offset: number): bigint {
    return this.#page(offset, 8).getBigUint64(offset % pageBytes, true);
  }

  u64be(offset: number): bigint {
    return this.#page(offset, 8).getBigUint64(offset % pageBytes);
  }

  /**
   * How many entries from `offset` on go up by `step` each, the one at `offset` included: neighbours in the file, or, with step 0,
   * absent ones. At most `limit`, and none past the page: a caller that wants more asks again.
   */
  countSteps(offset: number, limit: number, step: number, littleEndian: boolean): number {
    const page = this.#page(offset, 4);
    const first = offset % pageBytes;
    const end = Math.min(limit, Math.floor((page.byteLength - first) / 4));
    const value = page.getUint32(first, littleEndian);
    let count = 1;
    while (count < end && page.getUint32(first + count * 4, littleEndian) === value + count * step) count++;
    return count;
  }

  /** The same for entries of 64 bits; it also ends where the lower 32 bits overflow. */
  countSteps64(offset: number, limit: number, step: number, littleEndian = false): number {
    const page = this.#page(offset, 8);
    const first = offset % pageBytes;
    const end = Math.min(limit, Math.floor((page.byteLength - first) / 8));
    const [highAt, lowAt] = littleEndian ? [first + 4, first] : [first, first + 4];
    const [high, low] = [page.getUint32(highAt, littleEndian), page.getUint32(lowAt, littleEndian)];
    let count = 1;
    while (
      count < end &&
      page.getUint32(lowAt + count * 8, littleEndian) === low + count * step &&
      page.getUint32(highAt + count * 8, littleEndian) === high
    ) {
      count++;
    }
    return count;
  }

  /** The page that holds an entry. @throws FormatError when the entry is outside the file, or lies across two pages. */
  #page(offset: number, entryBytes: number): DataView {
    checkInside(this.#file, this.#structure, 'table entry', offset, entryBytes);
    const start = alignDown(offset, pageBytes);
    if (start === this.#lastStart) return this.#last;
    let page = this.#pages.get(start);
    if (page === undefined) {
      const bytes = new Uint8Array(Math.min(pageBytes, this.#file.sizeBytes - start));
      this.#file.read(bytes, start);
      page = new DataView(bytes.buffer);
      this.#pages.set(start, page);
    }
    this.#lastStart = start;
    this.#last = page;
    return page;
  }
}
