/**
 * The BAT of a foreign VHDX ([MS-VHDX] 2.5) and its sector bitmaps (2.4.2), read in pages as they are asked for: the table of a large
 * disk has hundreds of MiB and is never in memory as a whole.
 */
import { LRUCache } from 'lru-cache';
import { FormatError } from '../../base/errors.ts';
import { alignDown } from '../../base/ranges.ts';
import { KiB, MiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import {
  batEntryBytes,
  batEntryCount,
  batIndexOfBitmap,
  batIndexOfPayload,
  bitmapState,
  chunkRatio,
  headerSectionBytes,
  payloadState,
  sectorBitmapBytes,
  type BlockGeometry,
} from './layout.ts';
import { overlap, type Region } from './metadata.ts';

const pageBytes = 64 * KiB;

/** A run of the disk that comes from one place. `fileOffset` is there for `file` only. */
export interface Piece {
  readonly source: 'zero' | 'file' | 'parent';
  readonly offset: number;
  readonly length: number;
  readonly fileOffset: number;
}

export class BlockTable {
  readonly #file: Disk;
  readonly #blocks: BlockGeometry;
  readonly #bat: Region;
  /** Where no block may lie: the log, the BAT, the metadata. */
  readonly #taken: readonly Region[];
  readonly #isDifferencing: boolean;
  readonly #ratio: number;
  readonly #pages: LRUCache<number, Uint8Array>;

  /**
   * @param cacheBytes what the pages of the BAT and of the sector bitmaps may take in memory
   * @throws FormatError when the BAT is too short for the disk
   */
  constructor(
    file: Disk,
    blocks: BlockGeometry,
    places: { readonly bat: Region; readonly taken: readonly Region[] },
    isDifferencing: boolean,
    cacheBytes: number,
  ) {
    this.#file = file;
    this.#blocks = blocks;
    this.#bat = places.bat;
    this.#taken = places.taken;
    this.#isDifferencing = isDifferencing;
    this.#ratio = chunkRatio(blocks);
    this.#pages = new LRUCache({ maxSize: Math.max(cacheBytes, pageBytes), sizeCalculation: (page) => page.length });
    const needed = batEntryCount(blocks, isDifferencing) * batEntryBytes;
    if (needed > this.#bat.lengthBytes) {
      throw new FormatError(
        'VHDX BAT',
        'length',
        this.#bat.offset,
        `${this.#bat.lengthBytes} bytes where ${needed} are needed`,
      );
    }
  }

  /**
   * The pieces of [offset, offset+length) of the disk, in order, without gaps, inside payload blocks.
   * @throws FormatError when an entry on the way cannot be
   */
  *pieces(offset: number, length: number): Generator<Piece> {
    const { payloadBlockBytes } = this.#blocks;
    const end = offset + length;
    for (let at = offset; at < end;) {
      const block = Math.floor(at / payloadBlockBytes);
      const within = at - block * payloadBlockBytes;
      const pieceBytes = Math.min(payloadBlockBytes - within, end - at);
      const { state, offsetMiB, entryAt } = this.#entry(batIndexOfPayload(block, this.#ratio));
      if (state === payloadState.fullyPresent) {
        const fileOffset = this.#payloadOffset(block, offsetMiB, entryAt) + within;
        yield { source: 'file', offset: at, length: pieceBytes, fileOffset };
      } else if (state === payloadState.partiallyPresent && this.#isDifferencing) {
        yield* this.#partial(block, this.#payloadOffset(block, offsetMiB, entryAt), within, pieceBytes);
      } else {
        yield { source: this.#absentSource(state, entryAt), offset: at, length: pieceBytes, fileOffset: 0 };
      }
      at += pieceBytes;
    }
  }

  /** 2.5.1.1: only what was never written shows the parent; undefined and unmapped blocks promise nothing, and read as zeros here. */
  #absentSource(state: number, entryAt: number): 'zero' | 'parent' {
    if (state === payloadState.notPresent) return this.#isDifferencing ? 'parent' : 'zero';
    if (state === payloadState.undefined || state === payloadState.zero || state === payloadState.unmapped)
      return 'zero';
    throw new FormatError('VHDX BAT entry', 'state', entryAt, `${state} is not a state of such a payload block`);
  }

  /** A block of which the sector bitmap tells, sector by sector, whether it is here (1) or in the parent (0). */
  *#partial(block: number, blockOffset: number, within: number, length: number): Generator<Piece> {
    const sectorBytes = this.#blocks.logicalSectorBytes;
    const bitmap = this.#bitmapOf(block);
    const start = block * this.#blocks.payloadBlockBytes;
    const isHere = (sector: number): boolean => ((bitmap[Math.floor(sector / 8)] ?? 0) & (1 << (sector % 8))) !== 0;
    const end = within + length;
    for (let at = within; at < end;) {
      const first = Math.floor(at / sectorBytes);
      const here = isHere(first);
      let sector = first + 1;
      while (sector * sectorBytes < end && isHere(sector) === here) sector++;
      const to = Math.min(sector * sectorBytes, end);
      const fileOffset = here ? blockOffset + at : 0;
      yield { source: here ? 'file' : 'parent', offset: start + at, length: to - at, fileOffset };
      at = to;
    }
  }

  /** The bits of one payload block's sectors: at most 64 KiB, within one sector bitmap block. */
  #bitmapOf(block: number): Uint8Array {
    const chunk = Math.floor(block / this.#ratio);
    const { state, offsetMiB, entryAt } = this.#entry(batIndexOfBitmap(chunk, this.#ratio));
    if (state !== bitmapState.present) {
      throw new FormatError(
        'VHDX BAT entry',
        'state',
        entryAt,
        `${state} for the sector bitmap of a partially present block`,
      );
    }
    const bitmapOffset = this.#placeOf(offsetMiB, sectorBitmapBytes, entryAt);
    const lengthBytes = sectorBitmapBytes / this.#ratio;
    return this.#cached(bitmapOffset + (block % this.#ratio) * lengthBytes, lengthBytes);
  }

  /** The last block may end with the disk: some writers leave the file short there. */
  #payloadOffset(block: number, offsetMiB: number, entryAt: number): number {
    const { virtualBytes, payloadBlockBytes } = this.#blocks;
    return this.#placeOf(offsetMiB, Math.min(payloadBlockBytes, virtualBytes - block * payloadBlockBytes), entryAt);
  }

  /** Byte offset of a block that lies inside the file, and not over its metadata. */
  #placeOf(offsetMiB: number, lengthBytes: number, entryAt: number): number {
    const offset = offsetMiB * MiB;
    const place = { offset, lengthBytes };
    const fits = offset >= headerSectionBytes && offset + lengthBytes <= this.#file.sizeBytes;
    if (fits && !this.#taken.some((region) => overlap(region, place))) return offset;
    throw new FormatError(
      'VHDX BAT entry',
      'fileOffset',
      entryAt,
      `${lengthBytes} bytes at ${offsetMiB} MiB cannot be a block`,
    );
  }

  #entry(index: number): { state: number; offsetMiB: number; entryAt: number } {
    const entryAt = this.#bat.offset + index * batEntryBytes;
    const bytes = this.#cached(entryAt, batEntryBytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset, batEntryBytes);
    const low = view.getUint32(0, true);
    const state = low % 8;
    if (low % MiB !== state) throw new FormatError('VHDX BAT entry', 'reserved', entryAt, 'reserved bits are set');
    // Above 2^53 bytes no file reaches, and the number of MiB is still exact.
    return { state, offsetMiB: view.getUint32(4, true) * 4096 + Math.floor(low / MiB), entryAt };
  }

  /** A range of the file that does not cross a page: read-only. */
  #cached(offset: number, lengthBytes: number): Uint8Array {
    const pageAt = alignDown(offset, pageBytes);
    let page = this.#pages.get(pageAt);
    if (page === undefined) {
      page = new Uint8Array(Math.min(pageBytes, this.#file.sizeBytes - pageAt));
      this.#file.read(page, pageAt);
      this.#pages.set(pageAt, page);
    }
    return page.subarray(offset - pageAt, offset - pageAt + lengthBytes);
  }
}

/** Joins neighbours that go on in the same place: one system call where the writer kept blocks together. */
export function* joinPieces(pieces: Iterable<Piece>): Generator<Piece> {
  let pending: Piece | undefined;
  for (const piece of pieces) {
    if (pending !== undefined && pending.source === piece.source && continues(pending, piece)) {
      pending = { ...pending, length: pending.length + piece.length };
      continue;
    }
    if (pending !== undefined) yield pending;
    pending = piece;
  }
  if (pending !== undefined) yield pending;
}

function continues(before: Piece, after: Piece): boolean {
  return before.source !== 'file' || before.fileOffset + before.length === after.fileOffset;
}
