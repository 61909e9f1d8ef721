/**
 * VMDK (VMware: Virtual Disk Format 1.1). A descriptor is text; numbers of a sparse extent are little-endian and count sectors.
 *
 * ```
 * flat:   vm.vmdk: descriptor        vm-flat.vmdk: | disk |
 *
 * sparse: 0        1            21                                                    overHead (a whole grain)
 *         | header | descriptor | grain directory, tables | the same again | gap | grain | grain | ...
 *                               ^ rgdOffset               ^ gdOffset
 * ```
 * Both directories name all of their tables, which lie right behind them. Grains that hold data lie in guest order.
 */
import { alignUp } from '../../base/ranges.ts';
import { KiB, TiB } from '../../base/units.ts';
import type { Guid } from '../../bytes/guid.ts';
import { ascii, layout, reserved, u16le, u32le, u64le, u8, type Decoded } from '../../bytes/layout.ts';
import { sectorBytes } from '../geometry.ts';

export const sparseHeader = layout('VMDK sparse extent header', 512, {
  magic: ascii(0, 'KDMV'),
  version: u32le(4), // 1 to 3
  flags: u32le(8),
  capacity: u64le(12), // sectors of the disk
  grainSize: u64le(20), // sectors
  descriptorOffset: u64le(28),
  descriptorSize: u64le(36),
  numGTEsPerGT: u32le(44), // entries in a grain table: 512
  rgdOffset: u64le(48), // the redundant grain directory
  gdOffset: u64le(56), // all ones when it is in the footer
  overHead: u64le(64), // sectors before the first grain
  uncleanShutdown: u8(72),
  lineEnds: ascii(73, '\n \r\n'), // finds files that were carried as text
  compressAlgorithm: u16le(77),
  reserved: reserved(79, 433),
});
export type SparseHeader = Decoded<typeof sparseHeader>;

export const sparseFlags = {
  lineEndsValid: 1,
  redundantTable: 2,
  zeroedGrains: 4, // a grain table entry of 1 reads as zeros
  compressed: 0x1_0000,
  markers: 0x2_0000,
} as const;
export const compressionDeflate = 1;
/** gdOffset of a file that was written as a stream: the directory is named by a footer. */
export const directoryAtEnd = 0xffff_ffff_ffff_ffffn;

export const entryBytes = 4;
export const entriesPerTable = 512;
export const tableSectors = (entriesPerTable * entryBytes) / sectorBytes;
export const descriptorStartSectors = 1;
export const descriptorSectors = 20;

/** Grains of 64 KiB, and what they grow to when the data is too scattered for them. */
export const grainSizes: readonly number[] = [64, 128, 256, 512, 1024, 2048].map((size) => size * KiB);

/** VMware's and QEMU's own default, which suits small writes. */
export const deltaGrainBytes = 64 * KiB;

/** A grain table holds 32-bit sector numbers. */
export const maxSparseFileBytes = 2 ** 32 * sectorBytes;
export const maxSparseDiskBytes = 2 * TiB;
/** VMFS's and NFS's limit for a virtual disk. */
export const maxFlatDiskBytes = 62 * TiB;

/** The first line of every descriptor. */
export const descriptorSignature = '# Disk DescriptorFile';
export const noParentCid = 'ffffffff';

/** 2 GiB each would make 62 TiB of 32 thousand; disks that are split so are older and smaller. */
export const maxExtents = 4096;
/** A descriptor of so many extents is shorter than this. */
export const maxDescriptorBytes = 1024 * KiB;
/** What a reader takes for a grain, in sectors. */
export const minGrainSectors = 8;
export const maxGrainSectors = 131_072;

/** Stands before a compressed grain (specification: "Stream-Optimized Compressed Sparse Extents"). */
export const grainMarker = layout('VMDK grain marker', 12, {
  firstSector: u64le(0), // of the disk
  dataSize: u32le(8), // compressed bytes that follow
});

interface CommonGeometry {
  readonly format: 'vmdk';
  readonly sizeBytes: number;
  readonly identity: Guid;
}
export interface FlatGeometry extends CommonGeometry {
  readonly layout: 'flat';
}
export interface SparseGeometry extends CommonGeometry {
  readonly layout: 'sparse';
  readonly grainBytes: number;
  /** The grains that hold data, by `encodeRuns`. */
  readonly allocation: string;
}
export type VmdkGeometry = FlatGeometry | SparseGeometry;

/** Where everything lies in a sparse file, in sectors. */
export interface Placement {
  readonly grainTables: number;
  readonly directorySectors: number;
  readonly redundantDirectory: number;
  readonly directory: number;
  readonly overHead: number;
}

export function place(sizeBytes: number, grainBytes: number): Placement {
  const grainTables = Math.ceil(sizeBytes / grainBytes / entriesPerTable);
  const directorySectors = Math.ceil((grainTables * entryBytes) / sectorBytes);
  const copySectors = directorySectors + grainTables * tableSectors;
  const redundantDirectory = descriptorStartSectors + descriptorSectors;
  const directory = redundantDirectory + copySectors;
  return {
    grainTables,
    directorySectors,
    redundantDirectory,
    directory,
    overHead: alignUp(directory + copySectors, grainBytes / sectorBytes),
  };
}
