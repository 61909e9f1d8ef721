/**
 * VHDX: its structures, limits and arithmetic, after [MS-VHDX] version 1. Section numbers below are those of that document.
 *
 * The file as Hyper-V lays it out, and as `synthesize` does:
 *
 *     0          file type identifier (2.2.1)
 *     64 KiB     header 1 (2.2.2)
 *     128 KiB    header 2: the one with the higher sequence number counts
 *     192 KiB    region table 1 (2.2.3)
 *     256 KiB    region table 2, a copy
 *     1 MiB      log (2.3), empty when the header's LogGuid is nil
 *     2 MiB      metadata region (2.6): table of 64 KiB, then the items
 *     3 MiB      block allocation table, BAT (2.5), a whole number of MiB
 *     3 MiB+BAT  1 MiB of zeros, so that the kernel's readahead behind the BAT does not reach into guest data and open the image
 *     then       payload blocks (2.4), each at a multiple of 1 MiB
 *
 * The BAT has one 64-bit entry for each payload block, and after every `chunk ratio` of them one for a sector bitmap block, which
 * only a differencing file uses:
 *
 *     P0 P1 ... P(r-1) B0  Pr ... P(2r-1) B1  ...
 */
import { alignUp } from '../../base/ranges.ts';
import { KiB, MiB, TiB } from '../../base/units.ts';
import type { Guid } from '../../bytes/guid.ts';
import { ascii, guid, layout, reserved, text, u16le, u32le, u64le, type Decoded } from '../../bytes/layout.ts';

/** 2.6.2.2 */
export const maxVirtualBytes = 64 * TiB;
/** 2.6.2.1 */
export const payloadBlockSizes: readonly number[] = [1, 2, 4, 8, 16, 32, 64, 128, 256].map((size) => size * MiB);
/** 2.6.2.4 and 2.6.2.5 */
export const sectorSizes: readonly number[] = [512, 4096];
/** Regions, the log and blocks lie at multiples of this (2.2). */
export const regionAlignment = MiB;
/** The header section takes the first MiB; nothing else may lie in it (2.2). */
export const headerSectionBytes = MiB;

export const headerOffsets = [64 * KiB, 128 * KiB] as const;
export const headerBytes = 4 * KiB;
export const regionTableOffsets = [192 * KiB, 256 * KiB] as const;
export const regionTableBytes = 64 * KiB;
/** 2.2.3.1 */
export const maxRegionEntries = 2047;
/** 2.6.1.1 */
export const metadataTableBytes = 64 * KiB;
export const maxMetadataEntries = 2047;
/** 2.6.1.2 */
export const maxMetadataItemBytes = MiB;

/** 2.2.1 */
export const fileTypeIdentifier = layout('VHDX file type identifier', 520, {
  signature: ascii(0, 'vhdxfile'),
  creator: text(8, 512, 'utf16le'), // for diagnosis only
});

/** 2.2.2 */
export const header = layout('VHDX header', headerBytes, {
  signature: ascii(0, 'head'),
  checksum: u32le(4), // CRC-32C of the 4 KiB, this field as zero
  sequenceNumber: u64le(8),
  fileWriteGuid: guid(16), // changes before the file is first written after an open
  dataWriteGuid: guid(32), // changes before the disk's data is; what a child names its parent by
  logGuid: guid(48), // nil: the log holds nothing to replay
  logVersion: u16le(64), // 0
  version: u16le(66), // 1
  logLengthBytes: u32le(68), // a multiple of 1 MiB
  logOffset: u64le(72),
  reserved: reserved(80, 4016),
});
export type Header = Decoded<typeof header>;

/** 2.2.3.1 */
export const regionTableHeader = layout('VHDX region table', 16, {
  signature: ascii(0, 'regi'),
  checksum: u32le(4), // CRC-32C of the 64 KiB, this field as zero
  entryCount: u32le(8),
  reserved: reserved(12, 4),
});

/** 2.2.3.2 */
export const regionTableEntry = layout('VHDX region table entry', 32, {
  regionId: guid(0),
  fileOffset: u64le(16), // a multiple of 1 MiB, at least 1 MiB
  lengthBytes: u32le(24), // a multiple of 1 MiB
  required: u32le(28), // bit 0: who does not know this region must not open the file
});

export const batRegionId: Guid = '2dc27766-f623-4200-9d64-115e9bfd4a08';
export const metadataRegionId: Guid = '8b7ca206-4790-4b9a-b8fe-575f050f886e';

/** 2.6.1.1 */
export const metadataTableHeader = layout('VHDX metadata table', 32, {
  signature: ascii(0, 'metadata'),
  reserved1: reserved(8, 2),
  entryCount: u16le(10),
  reserved2: reserved(12, 20),
});

/** 2.6.1.2 */
export const metadataTableEntry = layout('VHDX metadata table entry', 32, {
  itemId: guid(0),
  offset: u32le(16), // from the start of the region, at least 64 KiB; zero for an empty item
  lengthBytes: u32le(20),
  flags: u32le(24),
  reserved: reserved(28, 4),
});

export const metadataIsUser = 1;
export const metadataIsVirtualDisk = 2;
/** Who does not know this item must not open the file. */
export const metadataIsRequired = 4;

/** 2.6.2 */
export const metadataItems = {
  fileParameters: 'caa16737-fa36-4d43-b3b6-33f0aa44e76b',
  virtualDiskSize: '2fa54224-cd1b-4876-b211-5dbed83bf4b8',
  virtualDiskId: 'beca12ab-b2e6-4523-93ef-c309e000c746',
  logicalSectorSize: '8141bf1d-a96f-4709-ba47-f233a8faab5f',
  physicalSectorSize: 'cda348c7-445d-4471-9cc9-e9885251c556',
  parentLocator: 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c',
} as const satisfies Record<string, Guid>;

/** 2.6.2.1 */
export const fileParameters = layout('VHDX file parameters', 8, {
  blockBytes: u32le(0), // a power of two, 1 to 256 MiB
  flags: u32le(4),
});
/** A fixed file: no payload block may lose its place. */
export const leaveBlocksAllocated = 1;
/** A differencing file. */
export const hasParent = 2;

/** 2.6.2.2 to 2.6.2.5 */
export const virtualDiskSize = layout('VHDX virtual disk size', 8, { sizeBytes: u64le(0) });
export const virtualDiskIdItem = layout('VHDX virtual disk id', 16, { id: guid(0) }); // SCSI page 83
export const sectorSize = layout('VHDX sector size', 4, { sizeBytes: u32le(0) });

/** 2.6.2.6.1 */
export const parentLocatorHeader = layout('VHDX parent locator', 20, {
  locatorType: guid(0),
  reserved: reserved(16, 2),
  keyValueCount: u16le(18),
});
/** 2.6.2.6.2; offsets are from the start of the item, texts are UTF-16LE without a terminator. */
export const parentLocatorEntry = layout('VHDX parent locator entry', 12, {
  keyOffset: u32le(0),
  valueOffset: u32le(4),
  keyLengthBytes: u16le(8),
  valueLengthBytes: u16le(10),
});
/** 2.6.2.6.3: the parent is a VHDX too. */
export const vhdxLocatorType: Guid = 'b04aefb7-d19e-4a81-b789-25b8e9445913';

/** 2.5.1.1: bits 0 to 2 of a BAT entry; bits 3 to 19 are reserved; the rest is the file offset in MiB. */
export const payloadState = {
  notPresent: 0,
  undefined: 1,
  zero: 2,
  unmapped: 3,
  fullyPresent: 6,
  partiallyPresent: 7,
} as const;
/** 2.5.1.2 */
export const bitmapState = { notPresent: 0, present: 6 } as const;
export const batEntryBytes = 8;
/** 2.4.2: one bit for each sector of a chunk. */
export const sectorBitmapBytes = MiB;

/** Places in a synthesized file, the same that Hyper-V chooses. */
export const logOffset = MiB;
export const logBytes = MiB;
export const metadataOffset = 2 * MiB;
export const metadataBytes = MiB;
export const batOffset = 3 * MiB;
/** Zeros between the BAT and the payload: more than the kernel reads ahead. */
export const guardBytes = MiB;

/** What a plugin file keeps of a VHDX: enough to make every byte but the disk's own. */
export interface VhdxGeometry {
  readonly format: 'vhdx';
  readonly layout: 'fixed' | 'dynamic';
  /** The guest's disk; the virtual disk is this, rounded up to a logical sector. */
  readonly sizeBytes: number;
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
  readonly payloadBlockBytes: number;
  readonly fileWriteGuid: Guid;
  readonly dataWriteGuid: Guid;
  /** What the guest sees as SCSI page 83. */
  readonly virtualDiskId: Guid;
  /** Dynamic only: the payload blocks that are present, as `encodeRuns` writes them. */
  readonly allocation?: string;
}

/** What the arithmetic of the BAT needs to know. Sizes in bytes. */
export interface BlockGeometry {
  readonly virtualBytes: number;
  readonly logicalSectorBytes: number;
  readonly payloadBlockBytes: number;
}

/** The virtual disk of a synthesized file. */
export function blocksOf(geometry: VhdxGeometry): BlockGeometry {
  const { logicalSectorBytes, payloadBlockBytes } = geometry;
  return { virtualBytes: alignUp(geometry.sizeBytes, logicalSectorBytes), logicalSectorBytes, payloadBlockBytes };
}

/** Payload blocks of the disk, the last one perhaps reaching past its end. */
export function payloadBlockCount(blocks: BlockGeometry): number {
  return Math.ceil(blocks.virtualBytes / blocks.payloadBlockBytes);
}

/** Payload blocks whose sectors one sector bitmap block describes (2.4.2). */
export function chunkRatio(blocks: Omit<BlockGeometry, 'virtualBytes'>): number {
  return (sectorBitmapBytes * 8 * blocks.logicalSectorBytes) / blocks.payloadBlockBytes;
}

/** Index in the BAT of a payload block's entry (2.5). */
export function batIndexOfPayload(block: number, ratio: number): number {
  return block + Math.floor(block / ratio);
}

/** Index in the BAT of a sector bitmap block's entry (2.5). */
export function batIndexOfBitmap(chunk: number, ratio: number): number {
  return chunk * (ratio + 1) + ratio;
}

/** Which payload block the entry at `index` of the BAT is of; undefined for a sector bitmap block. */
export function payloadBlockAt(index: number, ratio: number): number | undefined {
  return index % (ratio + 1) === ratio ? undefined : index - Math.floor(index / (ratio + 1));
}

/** Entries that the BAT must have (2.5): a differencing one ends in a sector bitmap block's, others in a payload block's. */
export function batEntryCount(blocks: BlockGeometry, differencing: boolean): number {
  const count = payloadBlockCount(blocks);
  if (count === 0) return 0;
  const ratio = chunkRatio(blocks);
  return differencing ? Math.ceil(count / ratio) * (ratio + 1) : batIndexOfPayload(count - 1, ratio) + 1;
}

/** Length of the BAT's region: whole MiB, at least one. */
export function batRegionBytes(entryCount: number): number {
  return Math.max(alignUp(entryCount * batEntryBytes, regionAlignment), regionAlignment);
}

/** Writes a BAT entry: file offsets are whole MiB, so that the state lies in bits the offset leaves free (2.5.1). */
export function putBatEntry(view: DataView, at: number, state: number, fileOffset: number): void {
  const value = fileOffset + state;
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
