/**
 * Checksums of the single pages of blocks that are stored as they are, so that a page can be read alone and is checked all the same: a
 * record has one checksum for all of it, and only whoever has read and checked the whole record may remember those of its pages. Of sealed
 * blocks the same table remembers tags of their pages (sealed-pages.ts).
 *
 * The table has a fixed size and lies in memory that threads may share; what does not fit pushes out what was there. It is read and written
 * with no lock: an entry is of one record of one image, and each sum in it starts from that record's own checksum, so that an entry that is
 * being overwritten, or that is another record's, matches no page. A page that does not match is never given away: the caller judges the
 * whole record anew.
 */
import { KiB } from '../../base/units.ts';
import { crc32c } from '../../bytes/checksum.ts';

export const sumPageBytes = 4 * KiB;
/** An entry is for so much of a block: larger blocks have several. */
export const sumPieceBytes = 64 * KiB;

const keyWords = 4;
/** Of 32 bits: what is remembered of a piece. */
export const pieceWords = sumPieceBytes / sumPageBytes;
const entryWords = keyWords + pieceWords;
const entryBytes = entryWords * 4;
/** An entry may lie in any of so many places that follow each other. */
const ways = 4;

/** Which part of which record: where it lies in which image, and what checksum the index gives the record. */
export interface PieceKey {
  /** The first 8 bytes of the image's commit hash: names its contents. */
  readonly imageLow: number;
  readonly imageHigh: number;
  /** In the image file. */
  readonly offset: number;
  /** Of the whole record. */
  readonly recordCrc32c: number;
}

export class PageSums {
  /** Give it to another thread's `PageSums` to share it. */
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly #sets: number;

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.words = new Int32Array(buffer);
    this.#sets = Math.floor(buffer.byteLength / (entryBytes * ways));
  }

  /** Memory is touched as it is used: 80 bytes for each 64 KiB of blocks that were read. */
  static allocate(budgetBytes: number): SharedArrayBuffer {
    return new SharedArrayBuffer(Math.floor(budgetBytes / (entryBytes * ways)) * entryBytes * ways);
  }

  /** Index of the first of the `pieceWords` words that are remembered of a piece; undefined when it is not known. */
  find(key: PieceKey): number | undefined {
    const first = this.#firstOf(key);
    for (let at = first; at < first + ways * entryWords && at < this.words.length; at += entryWords) {
      if (this.#isAt(at, key)) return at + keyWords;
    }
    return undefined;
  }

  /** A place for the words of a piece, in the place of another's where none is free; undefined in a table without room. */
  claim(key: PieceKey): number | undefined {
    if (this.#sets === 0) return undefined;
    const known = this.find(key);
    if (known !== undefined) return known;
    const at = this.#freePlace(key);
    this.words[at] = key.imageLow | 0;
    this.words[at + 1] = key.imageHigh | 0;
    this.words[at + 2] = key.offset | 0;
    this.words[at + 3] = highWord(key.offset);
    return at + keyWords;
  }

  /** Whether whole pages that were just read, `firstPage` of the piece first, are those whose sums stand at `sums`. */
  matches(sums: number, key: PieceKey, firstPage: number, pages: Uint8Array): boolean {
    for (let done = 0; done < pages.length; done += sumPageBytes) {
      const page = pages.length === sumPageBytes ? pages : pages.subarray(done, done + sumPageBytes);
      const sum = this.words[sums + firstPage + done / sumPageBytes];
      if (sum !== (crc32c(page, key.recordCrc32c) | 0)) return false;
    }
    return true;
  }

  /** @param piece bytes of a record that has met its checksum just now */
  remember(key: PieceKey, piece: Uint8Array): void {
    const sums = this.claim(key);
    if (sums === undefined) return;
    for (let page = 0; page * sumPageBytes < piece.length; page++) {
      const bytes = piece.subarray(page * sumPageBytes, (page + 1) * sumPageBytes);
      this.words[sums + page] = crc32c(bytes, key.recordCrc32c) | 0;
    }
  }

  /** A free entry, else one that the record's checksum picks. */
  #freePlace(key: PieceKey): number {
    const first = this.#firstOf(key);
    for (let at = first; at < first + ways * entryWords; at += entryWords) {
      if (this.words[at] === 0 && this.words[at + 1] === 0 && this.words[at + 2] === 0) return at;
    }
    return first + (key.recordCrc32c % ways) * entryWords;
  }

  #isAt(at: number, key: PieceKey): boolean {
    return (
      this.words[at + 2] === (key.offset | 0) &&
      this.words[at] === (key.imageLow | 0) &&
      this.words[at + 1] === (key.imageHigh | 0) &&
      this.words[at + 3] === highWord(key.offset)
    );
  }

  #firstOf(key: PieceKey): number {
    let hash = Math.imul(key.offset | 0, 0x9e3779b1) ^ Math.imul(key.imageLow + highWord(key.offset), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    return (((hash ^ (hash >>> 13)) >>> 0) % Math.max(1, this.#sets)) * ways * entryWords;
  }
}

function highWord(offset: number): number {
  return Math.floor(offset / 2 ** 32);
}
