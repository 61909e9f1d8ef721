/**
 * Reads of a volume whose contents nobody vouches for: every read is held against the volume's end, and all of them together have a budget,
 * so that no structure, however it points in circles, makes a plan take for ever.
 */
import { FormatError, UnsupportedError } from '../base/errors.ts';
import { GiB, MiB } from '../base/units.ts';
import type { Disk } from '../disk/disk.ts';

/** One read: a folder's block, a node of a tree, a piece of a file. */
const maxReadBytes = 64 * MiB;
/** Far above what a plan needs (a kernel's modules and a hive or two: some 200 MiB in 50,000 reads). */
const maxReads = 2_000_000;
const maxTotalBytes = 4 * GiB;

export class VolumeReader {
  readonly volume: Disk;
  /** For errors: `ext4`. */
  readonly kind: string;
  #reads = 0;
  #bytes = 0;

  constructor(volume: Disk, kind: string) {
    this.volume = volume;
    this.kind = kind;
  }

  get sizeBytes(): number {
    return this.volume.sizeBytes;
  }

  /**
   * Fresh bytes, which the caller may keep.
   * @throws FormatError naming `structure` when the range is not inside the volume
   * @throws UnsupportedError when the budget is used up
   */
  read(offset: number, length: number, structure: string): Uint8Array {
    this.#requireInside(offset, length, structure);
    this.#reads++;
    this.#bytes += length;
    if (this.#reads > maxReads || this.#bytes > maxTotalBytes) {
      throw new UnsupportedError(
        `${this.kind}: more than ${maxReads} reads or ${maxTotalBytes} bytes of its structures; the file system is broken or too large to be read`,
      );
    }
    return this.#fresh(offset, length);
  }

  /** The same of a file's data, which counts for nothing: whoever reads a file bounds how much. */
  readData(offset: number, length: number): Uint8Array {
    this.#requireInside(offset, length, 'data');
    return this.#fresh(offset, length);
  }

  #fresh(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.volume.read(bytes, offset);
    return bytes;
  }

  #requireInside(offset: number, length: number, structure: string): void {
    const inside = Number.isSafeInteger(offset) && offset >= 0 && length >= 0 && offset + length <= this.sizeBytes;
    if (inside && length <= maxReadBytes) return;
    const detail = `${length} bytes there are not inside a volume of ${this.sizeBytes} bytes`;
    throw new FormatError(`${this.kind} ${structure}`, 'place', offset, detail);
  }
}
