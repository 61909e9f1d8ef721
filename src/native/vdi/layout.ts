/**
 * VDI, version 1.1 (VirtualBox: src/VBox/Storage/VDICore.h). All numbers are little-endian.
 *
 * ```
 * 0        512 (offBlocks)                      offData (whole MiB)
 * | header | block map: 4 bytes per block | gap | block 0 | block 1 | ...
 *
 * static:  every block is there: disk offset v lies at offData + v
 * dynamic: only blocks that hold data, in guest order
 * ```
 */
import { alignUp } from '../../base/ranges.ts';
import { MiB, TiB } from '../../base/units.ts';
import type { Guid } from '../../bytes/guid.ts';
import { ascii, guid, layout, reserved, text, u32le, u64le, type Decoded } from '../../bytes/layout.ts';

export const header = layout('VDI header', 472, {
  fileInfo: text(0, 64, 'utf8'), // for people; readers look at the signature
  signature: ascii(64, '\x7f\x10\xda\xbe'),
  version: u32le(68),
  headerSize: u32le(72), // bytes from here on
  imageType: u32le(76),
  flags: u32le(80),
  comment: text(84, 256, 'utf8'),
  blocksOffset: u32le(340), // bytes: offBlocks
  dataOffset: u32le(344), // bytes: offData
  legacyCylinders: u32le(348),
  legacyHeads: u32le(352),
  legacySectors: u32le(356),
  legacySectorSize: u32le(360), // bytes; 512
  reserved1: reserved(364, 4),
  diskSize: u64le(368), // bytes
  blockSize: u32le(376), // bytes; 1 MiB
  blockExtraSize: u32le(380), // bytes before each block's data; 0
  blockCount: u32le(384),
  blocksAllocated: u32le(388),
  uuidCreate: guid(392),
  uuidModify: guid(408),
  uuidLinkage: guid(424), // of the parent; null
  uuidParentModify: guid(440),
  cylinders: u32le(456),
  heads: u32le(460),
  sectors: u32le(464),
  sectorSize: u32le(468), // bytes; 512
});
export type Header = Decoded<typeof header>;

export const fileInfo = '<<< Oracle VM VirtualBox Disk Image >>>\n';
export const version = 0x0001_0001;
/** Of the structure from headerSize to its end. */
export const headerSize = 400;
/** QEMU leaves out the last structure, the geometry. */
export const minHeaderSize = 384;
export const imageType = { dynamic: 1, static: 2, differencing: 4 } as const;

/** Every reader refuses any other block size. */
export const blockBytes = MiB;
/** In the map: never written; discarded. Both read as zeros in an image without parent. */
export const freeEntry = 0xffff_ffff;
export const discardedEntry = 0xffff_fffe;
export const mapEntryBytes = 4;
export const mapOffset = 512;

/** QEMU's limit on the map is 2^27 entries; we keep file offsets of the map far below. */
export const maxDiskBytes = 64 * TiB;
export const maxBlocks = 2 ** 27;

interface CommonGeometry {
  readonly format: 'vdi';
  readonly sizeBytes: number;
  readonly identity: Guid;
}
export interface StaticGeometry extends CommonGeometry {
  readonly layout: 'static';
}
export interface DynamicGeometry extends CommonGeometry {
  readonly layout: 'dynamic';
  /** The blocks that hold data, by `encodeRuns`. */
  readonly allocation: string;
}
export type VdiGeometry = StaticGeometry | DynamicGeometry;

/** Bytes from the map's start to the first block. */
export function mapBytes(blockCount: number): number {
  return dataOffset(blockCount) - mapOffset;
}

/** offData: whole MiB, so that blocks lie as in the guest's disk. */
export function dataOffset(blockCount: number): number {
  return alignUp(mapOffset + blockCount * mapEntryBytes, MiB);
}
