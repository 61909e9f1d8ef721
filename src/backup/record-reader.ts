/**
 * Reads blocks of a chain from their records. No byte is given away that has not met a checksum in this very read:
 *
 * - a record is read whole and meets its own checksum; records that lie next to each other in their file are read with one call
 * - of a block that is stored as it is, pages are read alone once its record has been read and their checksums are remembered
 *   (page-sums.ts); when one does not match, the whole record is read and judged again
 */
import { FormatError } from '../base/errors.ts';
import { KiB } from '../base/units.ts';
import { requirePlain } from './block-seal.ts';
import type { Found } from './chain-index.ts';
import { inflateBlock } from './codec.ts';
import type { Image } from './image.ts';
import * as format from './layout.ts';
import { sumPageBytes, sumPieceBytes, type PageSums, type PieceKey } from './page-sums.ts';

const plainCodec = format.codecs.indexOf('none');
/** What is read at once of records whose bytes are not wanted as they are. */
const runBytes = 256 * KiB;
/** Records that are read at once: each takes two places of the vector that one call fills, which has 1024. */
const maxRunRecords = 256;

/** Whether the block's bytes stand in its record as they are. */
export function isPlain({ image, entry }: Found): boolean {
  return entry.codec === plainCodec && entry.flags === 0 && !image.description.sealed;
}

/** One for all readers of the thread: nothing in it outlives the call that fills it. */
let scratch = new Uint8Array(0);

function scratchOf(lengthBytes: number): Uint8Array {
  if (scratch.length < lengthBytes) scratch = new Uint8Array(lengthBytes);
  return scratch;
}

interface Wanted extends Found {
  /** All of a block. */
  readonly target: Uint8Array;
}

export class RecordReader {
  /** Reads of pages whose checksums were known, and of blocks that were not. */
  knownReads = 0;
  unknownReads = 0;
  readonly #blockBytes: number;
  readonly #recordBytes: number;
  readonly #sums: PageSums;
  /** Records that lie next to each other in one file, to be read at once. */
  readonly #run: Wanted[] = [];
  #runStart = 0;
  #runEnd = 0;
  /** Of the run, what goes through the scratch. */
  #runScratchBytes = 0;

  constructor(blockBytes: number, sums: PageSums) {
    this.#blockBytes = blockBytes;
    this.#recordBytes = format.recordHeaderBytes + blockBytes + format.maxSealOverheadBytes;
    this.#sums = sums;
  }

  /** Before the first `add` of a read: what an earlier one that failed still wanted is wanted no more. */
  start(): void {
    this.#run.length = 0;
  }

  /**
   * Wants a whole block in `target`, which is filled when `finish` returns at the latest.
   * @throws whatever reading it, or one that was wanted before it, throws
   */
  add(found: Found, target: Uint8Array): void {
    const { image, opener, entry, position } = found;
    if (opener === undefined) requirePlain(image, entry, position);
    const { offset, lengthBytes } = image.placeOfRecord(entry, position);
    const scratchBytes = isPlain(found) ? format.recordHeaderBytes : lengthBytes;
    const continues =
      this.#run[0]?.image === image &&
      offset === this.#runEnd &&
      this.#run.length < maxRunRecords &&
      this.#runScratchBytes + scratchBytes <= runBytes;
    if (!continues) {
      this.finish();
      this.#runStart = offset;
      this.#runScratchBytes = 0;
    }
    this.#run.push({ image, opener, entry, position, target });
    this.#runEnd = offset + lengthBytes;
    this.#runScratchBytes += scratchBytes;
  }

  /** Fills all that was wanted. @throws whatever reading it throws */
  finish(): void {
    const image = this.#run[0]?.image;
    if (image === undefined) return;
    const buffer = scratchOf(Math.max(this.#runScratchBytes, this.#recordBytes));
    image.readUnchecked(this.#runTargets(buffer), this.#runStart);
    let at = 0;
    for (const wanted of this.#run) {
      const { entry, position, target } = wanted;
      const header = buffer.subarray(at, at + format.recordHeaderBytes);
      at += format.recordHeaderBytes;
      if (isPlain(wanted)) {
        this.unknownReads++;
        image.checkRecord(entry, position, header, target);
        continue;
      }
      const stored = buffer.subarray(at, at + entry.storedBytes);
      at += entry.storedBytes;
      image.checkRecord(entry, position, header, stored);
      inflate(wanted, stored, target);
    }
    this.#run.length = 0;
  }

  /** Fills `target` with a whole block, at once. @throws IntegrityError, FormatError, UnavailableError, VeneerError */
  readBlock(found: Found, target: Uint8Array): void {
    const { image, opener, entry, position } = found;
    if (opener === undefined) requirePlain(image, entry, position);
    inflate(found, image.readRecord(entry, position, scratchOf(this.#recordBytes)), target);
  }

  /** Fills `target` from `within` on of a block that is stored as it is. @throws as `readBlock` */
  readPages(found: Found, within: number, target: Uint8Array): void {
    for (let done = 0; done < target.length;) {
      const piece = Math.floor((within + done) / sumPieceBytes);
      const start = within + done - piece * sumPieceBytes;
      const length = Math.min(sumPieceBytes - start, target.length - done);
      const part = target.subarray(done, done + length);
      if (this.#readSummed(found, piece, start, part)) {
        this.knownReads++;
      } else {
        this.unknownReads++;
        this.#readWhole(found, within + done, part);
      }
      done += length;
    }
  }

  /** @returns false where the pages' checksums are not known, or do not match */
  #readSummed({ image, entry, position }: Found, piece: number, start: number, target: Uint8Array): boolean {
    const record = image.placeOfRecord(entry, position).offset;
    const key = pieceKey(image, entry, record, piece);
    const at = this.#sums.find(key);
    if (at === undefined) return false;
    const from = start - (start % sumPageBytes);
    const end = Math.ceil((start + target.length) / sumPageBytes) * sumPageBytes;
    const isWholePages = end - from === target.length;
    const pages = isWholePages ? target : scratchOf(this.#recordBytes).subarray(0, end - from);
    image.readUnchecked([pages], record + format.recordHeaderBytes + piece * sumPieceBytes + from);
    if (!this.#sums.matches(at, key, from / sumPageBytes, pages)) return false;
    if (!isWholePages) target.set(pages.subarray(start - from, start - from + target.length));
    return true;
  }

  /** Judges the whole record, gives its part, and remembers its pages. */
  #readWhole({ image, entry, position }: Found, within: number, target: Uint8Array): void {
    const stored = image.readRecord(entry, position, scratchOf(this.#recordBytes));
    requireBlockSize(image, position, stored.length, this.#blockBytes);
    const record = image.placeOfRecord(entry, position).offset;
    for (let at = 0; at < stored.length; at += sumPieceBytes) {
      const key = pieceKey(image, entry, record, at / sumPieceBytes);
      this.#sums.remember(key, stored.subarray(at, at + sumPieceBytes));
    }
    target.set(stored.subarray(within, within + target.length));
  }

  /** Where one read of the run puts its bytes: what is stored as it is goes where it is wanted, all else through the scratch. */
  #runTargets(buffer: Uint8Array): Uint8Array[] {
    const targets: Uint8Array[] = [];
    let from = 0;
    let to = 0;
    for (const wanted of this.#run) {
      const { image, entry, position, target } = wanted;
      to += format.recordHeaderBytes;
      if (!isPlain(wanted)) {
        to += entry.storedBytes;
        continue;
      }
      requireBlockSize(image, position, entry.storedBytes, this.#blockBytes);
      targets.push(buffer.subarray(from, to), target);
      from = to;
    }
    if (to > from) targets.push(buffer.subarray(from, to));
    return targets;
  }
}

/** @param stored bytes of a record that has met its checksum */
function inflate({ image, opener, entry, position }: Found, stored: Uint8Array, target: Uint8Array): void {
  const name = image.blockName(position);
  const codec = format.codecs[entry.codec];
  if (codec === undefined) throw new FormatError(name, 'codec', 21, `${entry.codec} is unknown`);
  inflateBlock(codec, opener?.open(entry, position, stored) ?? stored, target, name);
}

function requireBlockSize(image: Image, position: number, storedBytes: number, blockBytes: number): void {
  if (storedBytes === blockBytes) return;
  const found = `inflates to ${storedBytes} bytes; ${blockBytes} belong there`;
  throw new FormatError(image.blockName(position), 'none data', 0, found);
}

function pieceKey(image: Image, entry: format.LeafEntry, recordOffset: number, piece: number): PieceKey {
  const [imageLow, imageHigh] = image.shortHash;
  return { imageLow, imageHigh, offset: recordOffset + piece * sumPieceBytes, recordCrc32c: entry.crc32c };
}
