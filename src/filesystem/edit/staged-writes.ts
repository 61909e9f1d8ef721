/** Writes to a volume that are not made: they become patches. What was written before is read back by later steps. */
import { alignDown } from '../../base/ranges.ts';
import { checkRange, type Disk } from '../../disk/disk.ts';
import { changedRuns } from './changed-runs.ts';
import type { Patch } from './patch.ts';

const pageBytes = 4096;

interface Page {
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

export class StagedWrites {
  readonly #disk: Disk;
  readonly #pages = new Map<number, Page>();

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** @throws UsageError outside the volume */
  read(offset: number, lengthBytes: number): Uint8Array {
    checkRange(this.#disk, offset, lengthBytes);
    const bytes = new Uint8Array(lengthBytes);
    this.#eachPage(offset, lengthBytes, (page, within, done, length) => {
      bytes.set(page.after.subarray(within, within + length), done);
    });
    return bytes;
  }

  /**
   * The volume as it will be, for readers of structures: what is read through it is not kept in memory. It closes nothing: the disk
   * below stays its owner's.
   */
  view(): Disk {
    return {
      sizeBytes: this.#disk.sizeBytes,
      read: (target, offset) => this.#peek(target, offset),
      extents: (offset, length) => this.#disk.extents(offset, length),
      close: () => undefined,
    };
  }

  /** @throws UsageError outside the volume */
  write(offset: number, bytes: Uint8Array): void {
    checkRange(this.#disk, offset, bytes.length);
    this.#eachPage(offset, bytes.length, (page, within, done, length) => {
      page.after.set(bytes.subarray(done, done + length), within);
    });
  }

  /** In the order of the volume; only what differs. */
  patches(): Patch[] {
    return [...this.#pages]
      .sort(([a], [b]) => a - b)
      .flatMap(([start, { before, after }]) =>
        changedRuns(before, after).map(({ offset, length }) => ({
          offsetBytes: start + offset,
          before: before.slice(offset, offset + length),
          after: after.slice(offset, offset + length),
        })),
      );
  }

  #peek(target: Uint8Array, offset: number): void {
    checkRange(this.#disk, offset, target.length);
    this.#disk.read(target, offset);
    for (let start = alignDown(offset, pageBytes); start < offset + target.length; start += pageBytes) {
      const page = this.#pages.get(start);
      if (page === undefined) continue;
      const from = Math.max(offset, start);
      const to = Math.min(offset + target.length, start + page.after.length);
      target.set(page.after.subarray(from - start, to - start), from - offset);
    }
  }

  #eachPage(
    offset: number,
    lengthBytes: number,
    use: (page: Page, within: number, done: number, length: number) => void,
  ): void {
    for (let done = 0; done < lengthBytes;) {
      const start = alignDown(offset + done, pageBytes);
      const within = offset + done - start;
      const length = Math.min(pageBytes - within, lengthBytes - done);
      use(this.#page(start), within, done, length);
      done += length;
    }
  }

  #page(start: number): Page {
    const known = this.#pages.get(start);
    if (known !== undefined) return known;
    const before = new Uint8Array(Math.min(pageBytes, this.#disk.sizeBytes - start));
    this.#disk.read(before, start);
    const page = { before, after: new Uint8Array(before) };
    this.#pages.set(start, page);
    return page;
  }
}
