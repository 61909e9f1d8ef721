/**
 * Reads blocks of a chain from their records. No byte is given away that has not met a checksum, or a seal, in this very read:
 *
 * - a record is read whole and meets its own checksum or, where it is sealed and the key is there, its seal; records that lie next to each
 *   other in their file are read with one call, stored blocks right to where they are wanted
 * - of a block that is stored as it is, pages are read alone once its record has been read and their checksums are remembered
 *   (page-sums.ts), of a sealed one their tags (sealed-pages.ts); when one does not match, the whole record is read and judged again
 */
import { AssertionError, FormatError } from '../../base/errors.ts';
import { KiB } from '../../base/units.ts';
import { nonceBytes } from '../crypto/aes-gcm.ts';
import { sealOverheadBytes, type ChainKey } from '../crypto/seal.ts';
import { inflateBlock } from '../format/codec.ts';
import * as format from '../format/layout.ts';
import type { Found } from './chain-index.ts';
import type { Image } from './image.ts';
import { sumPageBytes, sumPieceBytes, type PageSums, type PieceKey } from './page-sums.ts';
import { requirePlain } from './record-opener.ts';
import { SealedPages, sealedPieceBytes } from './sealed-pages.ts';

const plainCodec = format.codecs.indexOf('none');
/** What is read at once of records whose bytes are not wanted as they are. */
const runBytes = 256 * KiB;
/** Records that are read at once: each takes two places of the vector that one call fills, which has 1024. */
const maxRunRecords = 256;

/** Whether pages of the block can be had from its record alone: they stand there as they are, sealed perhaps. */
export function isStored({ entry }: Found): boolean {
  return entry.codec === plainCodec;
}

/** What stands in a record in front of the block, or of its ciphertext. */
function headBytes({ opener }: Found): number {
  return format.recordHeaderBytes + (opener === undefined ? 0 : sealOverheadBytes);
}

/** How much of a record is read elsewhere than to where its block is wanted. */
function scratchBytesOf(found: Found): number {
  return isStored(found) ? headBytes(found) : format.recordHeaderBytes + found.entry.storedBytes;
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
  readonly #sealedPages: SealedPages | undefined;
  /** Records that lie next to each other in one file, to be read at once. */
  readonly #run: Wanted[] = [];
  #runStart = 0;
  #runEnd = 0;
  /** Of the run, what goes through the scratch. */
  #runScratchBytes = 0;

  /** @param key of the chain, where it is sealed and the key is there */
  constructor(blockBytes: number, sums: PageSums, key: ChainKey | undefined) {
    this.#blockBytes = blockBytes;
    this.#recordBytes = format.recordHeaderBytes + blockBytes + format.maxSealOverheadBytes;
    this.#sums = sums;
    this.#sealedPages = key === undefined ? undefined : new SealedPages(sums, key);
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
    const scratchBytes = scratchBytesOf(found);
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
      const bytes = buffer.subarray(at, at + scratchBytesOf(wanted));
      at += bytes.length;
      if (isStored(wanted)) {
        this.unknownReads++;
        this.#checkStored(wanted, bytes);
      } else {
        inflate(wanted, this.#checked(wanted, bytes), wanted.target);
      }
    }
    this.#run.length = 0;
  }

  /** Fills `target` with a whole block, at once. @throws IntegrityError, FormatError, UnavailableError, VeneerError */
  readBlock(found: Found, target: Uint8Array): void {
    const { image, opener, entry, position } = found;
    if (opener === undefined) requirePlain(image, entry, position);
    inflate(found, this.#checked(found, this.#readRecord(found)), target);
  }

  /** Fills `target` from `within` on of a stored block. @throws as `readBlock` */
  readPages(found: Found, within: number, target: Uint8Array): void {
    const { image, opener, entry, position } = found;
    if (opener === undefined) requirePlain(image, entry, position);
    const pieceBytes = opener === undefined ? sumPieceBytes : sealedPieceBytes;
    for (let done = 0; done < target.length;) {
      const start = within + done;
      const length = Math.min(pieceBytes - (start % pieceBytes), target.length - done);
      const part = target.subarray(done, done + length);
      if (this.#readKnown(found, start, part)) {
        this.knownReads++;
        done += length;
      } else {
        this.unknownReads++;
        this.#readWhole(found, start, target.subarray(done));
        return;
      }
    }
  }

  /** Fills `target` from `start` on of a block, within one piece. @returns false where its pages are not known, or do not match */
  #readKnown(found: Found, start: number, target: Uint8Array): boolean {
    const { image, opener, entry, position } = found;
    const { offset } = image.placeOfRecord(entry, position);
    const from = start - (start % sumPageBytes);
    const end = Math.min(Math.ceil((start + target.length) / sumPageBytes) * sumPageBytes, this.#blockBytes);
    const key = pieceKey(found, offset, from);
    const at = this.#sums.find(key);
    if (at === undefined) return false;
    const isWholePages = end - from === target.length;
    const pages = isWholePages ? target : scratchOf(this.#recordBytes).subarray(0, end - from);
    image.readUnchecked([pages], offset + headBytes(found) + from);
    if (opener === undefined) {
      if (!this.#sums.matches(at, key, (from % sumPieceBytes) / sumPageBytes, pages)) return false;
    } else {
      const nonce = this.#sealedPages?.judge(at, key, from, pages);
      if (nonce === undefined) return false;
      opener.openPart(entry, position, nonce, from, pages, pages);
    }
    if (!isWholePages) target.set(pages.subarray(start - from, start - from + target.length));
    return true;
  }

  /** Judges the whole record, gives its part, and remembers its pages. */
  #readWhole(found: Found, within: number, target: Uint8Array): void {
    const { image, opener, entry, position } = found;
    const record = this.#readRecord(found);
    const block = this.#checked(found, record);
    requireBlockSize(image, position, block.length, this.#blockBytes);
    const { offset } = image.placeOfRecord(entry, position);
    const stored = record.subarray(headBytes(found));
    if (opener === undefined) {
      for (let at = 0; at < stored.length; at += sumPieceBytes)
        this.#sums.remember(pieceKey(found, offset, at), stored.subarray(at, at + sumPieceBytes));
    } else {
      const nonce = record.subarray(format.recordHeaderBytes, format.recordHeaderBytes + nonceBytes);
      for (let at = 0; at < stored.length; at += sealedPieceBytes)
        this.#sealedPages?.remember(pieceKey(found, offset, at), nonce, at, stored.subarray(at, at + sealedPieceBytes));
    }
    target.set(block.subarray(within, within + target.length));
  }

  /** A whole record, not checked yet, in the scratch. */
  #readRecord({ image, entry, position }: Found): Uint8Array {
    const { offset, lengthBytes } = image.placeOfRecord(entry, position);
    const record = scratchOf(this.#recordBytes).subarray(0, lengthBytes);
    image.readUnchecked([record], offset);
    return record;
  }

  /** What a record holds, as its codec has it, when it meets its seal or its checksum. Until the next one is read. */
  #checked(found: Found, record: Uint8Array): Uint8Array {
    const { image, opener, entry, position } = found;
    const stored = record.subarray(format.recordHeaderBytes);
    if (opener !== undefined) return opener.tryOpen(entry, position, stored) ?? this.#refuse(found);
    image.checkRecord(entry, position, record.subarray(0, format.recordHeaderBytes), stored);
    return stored;
  }

  /** Checks a stored block that has been read to where it is wanted, and opens it there. @param head what stands in front of it */
  #checkStored(wanted: Wanted, head: Uint8Array): void {
    const { image, opener, entry, position, target } = wanted;
    if (opener === undefined) {
      image.checkRecord(entry, position, head, target);
    } else {
      const front = head.subarray(format.recordHeaderBytes);
      if (!opener.openInto(entry, position, front, target, target)) this.#refuse(wanted);
    }
  }

  /** Of a record whose seal does not hold: its checksum tells whether it has decayed or somebody has changed it. */
  #refuse({ image, opener, entry, position }: Found): never {
    image.readRecord(entry, position, scratchOf(this.#recordBytes));
    throw opener?.brokenSeal(entry, position) ?? new AssertionError('a record without a key has no seal');
  }

  /** Where one read of the run puts its bytes: stored blocks go where they are wanted, all else through the scratch. */
  #runTargets(buffer: Uint8Array): Uint8Array[] {
    const targets: Uint8Array[] = [];
    let from = 0;
    let to = 0;
    for (const wanted of this.#run) {
      const { image, entry, position, target } = wanted;
      to += scratchBytesOf(wanted);
      if (!isStored(wanted)) continue;
      const storedBytes = format.recordHeaderBytes + entry.storedBytes - headBytes(wanted);
      requireBlockSize(image, position, storedBytes, this.#blockBytes);
      targets.push(buffer.subarray(from, to), target);
      from = to;
    }
    if (to > from) targets.push(buffer.subarray(from, to));
    return targets;
  }
}

/** @param block as its codec has it, checked */
function inflate({ image, entry, position }: Found, block: Uint8Array, target: Uint8Array): void {
  const name = image.blockName(position);
  const codec = format.codecs[entry.codec];
  if (codec === undefined) throw new FormatError(name, 'codec', 21, `${entry.codec} is unknown`);
  inflateBlock(codec, block, target, name);
}

function requireBlockSize(image: Image, position: number, storedBytes: number, blockBytes: number): void {
  if (storedBytes === blockBytes) return;
  const found = `inflates to ${storedBytes} bytes; ${blockBytes} belong there`;
  throw new FormatError(image.blockName(position), 'none data', 0, found);
}

/** @param within the block: where the piece begins, or anywhere in it */
function pieceKey({ image, opener, entry }: Found, recordOffset: number, within: number): PieceKey {
  const [imageLow, imageHigh] = image.shortHash;
  const pieceBytes = opener === undefined ? sumPieceBytes : sealedPieceBytes;
  const offset = recordOffset + within - (within % pieceBytes);
  return { imageLow, imageHigh, offset, recordCrc32c: entry.crc32c };
}
