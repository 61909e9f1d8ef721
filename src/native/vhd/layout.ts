/**
 * VHD (Microsoft: Virtual Hard Disk Image Format Specification, 2006). All numbers are big-endian.
 *
 * ```
 * fixed:    | disk, zeros up to a whole MiB | footer |
 *
 * dynamic:  0        512             1536   ...                                      | ... end
 *           | footer | dynamic header | BAT | gap | bitmap | 2 MiB | gap | bitmap | 2 MiB | footer |
 *                                                 ^ block
 * ```
 * A gap brings the data of each block to a multiple of 4 KiB, as in Hyper-V's own files, so that the guest's aligned reads stay
 * aligned in the file.
 */
import { alignUp } from '../../base/ranges.ts';
import { GiB, KiB, MiB } from '../../base/units.ts';
import type { Guid } from '../../bytes/guid.ts';
import {
  ascii,
  bytes,
  layout,
  reserved,
  text,
  u16be,
  u32be,
  u64be,
  u8,
  uuid,
  type Decoded,
} from '../../bytes/layout.ts';
import { sectorBytes } from '../geometry.ts';

export const footer = layout('VHD footer', 512, {
  cookie: ascii(0, 'conectix'),
  features: u32be(8), // bit 1 is always set
  fileFormatVersion: u32be(12),
  dataOffset: u64be(16), // of the dynamic header; all ones in a fixed disk
  timestamp: u32be(24), // seconds since 2000-01-01 UTC
  creatorApplication: text(28, 4, 'utf8'),
  creatorVersion: u32be(32),
  creatorHostOs: text(36, 4, 'utf8'),
  originalSize: u64be(40), // bytes
  currentSize: u64be(48), // bytes
  cylinders: u16be(56),
  heads: u8(58),
  sectorsPerTrack: u8(59),
  diskType: u32be(60),
  checksum: u32be(64), // one's complement of the sum of all bytes but these four
  uniqueId: uuid(68),
  savedState: u8(84),
  reserved: reserved(85, 427),
});
export type Footer = Decoded<typeof footer>;

export const parentNameBytes = 512;
export const dynamicHeader = layout('VHD dynamic header', 1024, {
  cookie: ascii(0, 'cxsparse'),
  dataOffset: u64be(8), // unused, all ones
  tableOffset: u64be(16), // bytes
  headerVersion: u32be(24),
  maxTableEntries: u32be(28),
  blockSize: u32be(32), // bytes of data in a block
  checksum: u32be(36),
  parentUniqueId: uuid(40),
  parentTimestamp: u32be(56),
  reserved1: reserved(60, 4),
  parentUnicodeName: bytes(64, parentNameBytes), // UTF-16, big-endian
  parentLocators: bytes(576, 192), // eight entries
  reserved2: reserved(768, 256),
});
export type DynamicHeader = Decoded<typeof dynamicHeader>;

export const parentLocator = layout('VHD parent locator', 24, {
  platformCode: text(0, 4, 'utf8'),
  platformDataSpace: u32be(4),
  platformDataLength: u32be(8), // bytes
  reserved: reserved(12, 4),
  platformDataOffset: u64be(16), // bytes
});
export const parentLocatorCount = 8;

export const diskType = { fixed: 2, dynamic: 3, differencing: 4 } as const;
export const formatVersion = 0x0001_0000;
/** In every footer of ours, as the same file must always have the same bytes; a child repeats its parent's. */
export const footerTimestamp = 0;
export const noOffset = 0xffff_ffff_ffff_ffffn;
/** In the BAT: the block is not in the file. */
export const unusedEntry = 0xffff_ffff;
export const batEntryBytes = 4;

/** Where the tables of a synthesized dynamic disk lie. */
export const dynamicHeaderOffset = footer.sizeBytes;
export const tableOffset = dynamicHeaderOffset + dynamicHeader.sizeBytes;
const dataAlignmentBytes = 4 * KiB;

/** The format's limit, and that of every hypervisor. */
export const maxDiskBytes = 2040 * GiB;
/** Azure takes fixed VHDs only as a whole number of MiB. */
export const fixedAlignmentBytes = MiB;
export const defaultBlockBytes = 2 * MiB;
/** Block sizes that Hyper-V opens. */
export const blockSizes: readonly number[] = [512 * KiB, 2 * MiB];

interface CommonGeometry {
  readonly format: 'vhd';
  /** The guest's disk. */
  readonly sizeBytes: number;
  readonly identity: Guid;
}
export interface FixedGeometry extends CommonGeometry {
  readonly layout: 'fixed';
  /** What the file says its disk has: sizeBytes up to a whole MiB. The bytes behind the guest's disk are zeros. */
  readonly virtualSizeBytes: number;
}
export interface DynamicGeometry extends CommonGeometry {
  readonly layout: 'dynamic';
  readonly blockBytes: number;
  /** The blocks that hold data, by `encodeRuns`. */
  readonly allocation: string;
}
export type VhdGeometry = FixedGeometry | DynamicGeometry;

/** Sectors before a block's data: one bit for each sector of it, in whole sectors. */
export function bitmapBytes(blockBytes: number): number {
  return alignUp(Math.ceil(blockBytes / sectorBytes / 8), sectorBytes);
}

/** What the file says its disk has. */
export function virtualBytesOf(geometry: VhdGeometry): number {
  return geometry.layout === 'fixed' ? geometry.virtualSizeBytes : geometry.sizeBytes;
}

/** Bytes of the BAT, in whole sectors. */
export function tableBytes(blockCount: number): number {
  return alignUp(blockCount * batEntryBytes, sectorBytes);
}

/** The file offset of the bitmap of the allocated block number `rank`; its data follows. */
export function blockOffset(blockCount: number, blockBytes: number, rank: number): number {
  const bitmap = bitmapBytes(blockBytes);
  const firstData = alignUp(tableOffset + tableBytes(blockCount) + bitmap, dataAlignmentBytes);
  return firstData - bitmap + rank * alignUp(bitmap + blockBytes, dataAlignmentBytes);
}

/** Cylinders, heads and sectors per track for a disk (specification: "CHS Calculation"). */
export function chsOf(sizeBytes: number): { cylinders: number; heads: number; sectorsPerTrack: number } {
  const sectors = Math.min(sizeBytes / sectorBytes, 65_535 * 16 * 255);
  if (sectors >= 65_535 * 16 * 63) return withGeometry(sectors, 16, 255);
  const headsOf17 = Math.max(Math.ceil(Math.floor(sectors / 17) / 1024), 4);
  if (headsOf17 <= 16 && Math.floor(sectors / 17) < headsOf17 * 1024) return withGeometry(sectors, headsOf17, 17);
  if (Math.floor(sectors / 31) < 16 * 1024) return withGeometry(sectors, 16, 31);
  return withGeometry(sectors, 16, 63);
}

function withGeometry(
  sectors: number,
  heads: number,
  sectorsPerTrack: number,
): { cylinders: number; heads: number; sectorsPerTrack: number } {
  return { cylinders: Math.floor(Math.floor(sectors / sectorsPerTrack) / heads), heads, sectorsPerTrack };
}

/** One's complement of the sum of a structure's bytes, its own checksum field taken as zero. */
export function checksumWithoutField(structure: Uint8Array, fieldOffset: number): number {
  let sum = 0;
  for (const [index, byte] of structure.entries()) {
    if (index < fieldOffset || index >= fieldOffset + 4) sum += byte;
  }
  return ~sum >>> 0;
}
