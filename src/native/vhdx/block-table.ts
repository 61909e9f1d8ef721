/**
 * Where a foreign VHDX keeps the blocks of its disk: the BAT ([MS-VHDX] 2.5) and the sector bitmaps (2.4.2), read in pages as they are
 * asked for. The table of a large disk has hundreds of MiB and is never in memory as a whole.
 */
import { FormatError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import type { Run } from '../mapped-disk.ts';
import { TableCache } from '../table-cache.ts';
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

export class BlockTable {
  readonly #file: Disk;
  readonly #blocks: BlockGeometry;
  readonly #bat: Region;
  /** Where no block may lie: the log, the BAT, the metadata. */
  readonly #taken: readonly Region[];
  readonly #isDifferencing: boolean;
  readonly #ratio: number;
  readonly #tables: TableCache;

  /**
   * @param cacheBytes what the pages of the BAT and of the sector bitmaps may take in memory
   * @throws FormatError when the BAT is too short for the disk
   */
  constructor(
    file: Disk,
    blocks: BlockGeometry,
    places: { readonly bat: Region; readonly taken: readonly Region[] },
    isDifferencing: boolean,
    cacheBytes?: number,
  ) {
    this.#file = file;
    this.#blocks = blocks;
    this.#bat = places.bat;
    this.#taken = places.taken;
    this.#isDifferencing = isDifferencing;
    this.#ratio = chunkRatio(blocks);
    this.#tables = new TableCache(file, 'VHDX', cacheBytes);
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
   * Where the bytes at `offset` of the disk are, as many of the next `lengthBytes` as lie in one place of one payload block.
   * @throws FormatError when the entry of that block cannot be
   */
  locate(offset: number, lengthBytes: number): Run {
    const { payloadBlockBytes } = this.#blocks;
    const block = Math.floor(offset / payloadBlockBytes);
    const within = offset - block * payloadBlockBytes;
    const inBlock = Math.min(payloadBlockBytes - within, lengthBytes);
    const { state, offsetMiB, entryAt } = this.#entry(batIndexOfPayload(block, this.#ratio));
    if (state === payloadState.fullyPresent) {
      return {
        kind: 'stored',
        lengthBytes: inBlock,
        fileOffset: this.#payloadOffset(block, offsetMiB, entryAt) + within,
      };
    }
    if (state === payloadState.partiallyPresent && this.#isDifferencing) {
      return this.#partial(block, this.#payloadOffset(block, offsetMiB, entryAt), within, inBlock);
    }
    return { kind: this.#absent(state, entryAt), lengthBytes: inBlock };
  }

  /** 2.5.1.1: only what was never written shows the parent; undefined and unmapped blocks promise nothing, and read as zeros here. */
  #absent(state: number, entryAt: number): 'zero' | 'parent' {
    if (state === payloadState.notPresent) return this.#isDifferencing ? 'parent' : 'zero';
    if (state === payloadState.undefined || state === payloadState.zero || state === payloadState.unmapped)
      return 'zero';
    throw new FormatError('VHDX BAT entry', 'state', entryAt, `${state} is not a state of such a payload block`);
  }

  /** A block of which the sector bitmap tells, sector by sector, whether it is here (1) or in the parent (0). */
  #partial(block: number, blockOffset: number, within: number, lengthBytes: number): Run {
    const sectorBytes = this.#blocks.logicalSectorBytes;
    const bitmapOffset = this.#bitmapOffset(block);
    const isHere = (sector: number): boolean => {
      return (this.#tables.u8(bitmapOffset + Math.floor(sector / 8)) & (1 << (sector % 8))) !== 0;
    };
    const end = within + lengthBytes;
    let sector = Math.floor(within / sectorBytes);
    const here = isHere(sector);
    do sector++;
    while (sector * sectorBytes < end && isHere(sector) === here);
    const runBytes = Math.min(sector * sectorBytes, end) - within;
    if (!here) return { kind: 'parent', lengthBytes: runBytes };
    return { kind: 'stored', lengthBytes: runBytes, fileOffset: blockOffset + within };
  }

  /** Where the bits of one payload block's sectors begin, inside the sector bitmap block of its chunk. */
  #bitmapOffset(block: number): number {
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
    return (
      this.#placeOf(offsetMiB, sectorBitmapBytes, entryAt) + (block % this.#ratio) * (sectorBitmapBytes / this.#ratio)
    );
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
    const low = this.#tables.u32le(entryAt);
    const state = low % 8;
    if (low % MiB !== state) throw new FormatError('VHDX BAT entry', 'reserved', entryAt, 'reserved bits are set');
    // Above 2^53 bytes no file reaches, and the number of MiB is still exact.
    return { state, offsetMiB: this.#tables.u32le(entryAt + 4) * 4096 + Math.floor(low / MiB), entryAt };
  }
}
