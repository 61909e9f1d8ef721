/**
 * qcow2, version 3 (QEMU: docs/interop/qcow2.txt). All numbers are big-endian; everything starts on a cluster.
 *
 * The file as it is synthesized:
 * ```
 * 0        cluster 1
 * | header | L1 table | refcount table | refcount blocks | L2 tables | data clusters ...                |
 *                                                                    ^ dataOffset
 * full:    every cluster of the disk is there: disk offset v lies at dataOffset + v
 * compact: only clusters that hold data, in guest order; only L2 tables that name one
 * ```
 */
import { ascii, layout, u32be, u64be, type Decoded } from '../../bytes/layout.ts';

export const fileHeader = layout('qcow2 header', 72, {
  magic: ascii(0, 'QFI\xfb'),
  version: u32be(4), // 2 or 3
  backingFileOffset: u64be(8), // bytes; 0 for none
  backingFileSize: u32be(16), // bytes, at most 1023
  clusterBits: u32be(20), // 9 to 21
  size: u64be(24), // bytes of the disk
  cryptMethod: u32be(32), // 0 for none
  l1Size: u32be(36), // entries
  l1TableOffset: u64be(40), // bytes
  refcountTableOffset: u64be(48), // bytes
  refcountTableClusters: u32be(56),
  nbSnapshots: u32be(60),
  snapshotsOffset: u64be(64), // bytes
});
export type FileHeader = Decoded<typeof fileHeader>;

/** What version 3 adds behind the header. */
export const headerVersion3 = layout('qcow2 header, version 3', 32, {
  incompatibleFeatures: u64be(0),
  compatibleFeatures: u64be(8),
  autoclearFeatures: u64be(16),
  refcountOrder: u32be(24), // a reference count has 1 << refcountOrder bits
  headerLength: u32be(28), // bytes of header and additions, at least 104
});

/** Header and its version 3 addition: the smallest headerLength. */
export const headerLengthBytes = fileHeader.sizeBytes + headerVersion3.sizeBytes;

/** Stands before each header extension; its data is padded to `extensionAlignment`. */
export const headerExtension = layout('qcow2 header extension', 8, {
  type: u32be(0), // 0 ends the list
  lengthBytes: u32be(4),
});
export const extensionAlignment = 8;
/** The extension that says, as QEMU's name of it, which format the backing file has. */
export const backingFormatExtension = 0xe279_2aca;
/** The extension that names the file in which the data lies. */
export const dataFileExtension = 0x4441_5441;

/** Incompatible features: a reader that does not know a bit must refuse the file. */
export const incompatible = {
  dirty: 1n,
  corrupt: 2n,
  externalDataFile: 4n,
  compressionType: 8n,
  extendedL2: 16n,
} as const;

/** In L1 and L2 entries: the cluster is referenced once (bit 63), compressed (62); an L2 entry may read as zeros (0). */
export const entryFlags = { copied: 1n << 63n, compressed: 1n << 62n, zero: 1n } as const;
/** Bits 9 to 55 of an entry. */
export const entryOffsetMask = 0x00ff_ffff_ffff_fe00n;

export const entryBytes = 8;
/** Reference counts are synthesized with 16 bits. */
export const refcountOrder = 4;
export const refcountBytes = 2;

export const minClusterBits = 9;
export const maxClusterBits = 21;
/** QEMU's limit: 32 MiB of L1 table. */
export const maxL1Entries = 4 * 1024 * 1024;
/** The largest backing file name. */
export const maxBackingNameBytes = 1023;

/** Cluster sizes that are written; the smaller ones of the specification make more metadata than is of use. */
export const clusterSizes: readonly number[] = [16, 17, 18, 19, 20, 21].map((bits) => 2 ** bits);
/** QEMU's own default, which suits small writes. */
export const overlayClusterBytes = 64 * 1024;
/** The full layout is a 4 MiB/TiB table with clusters of 2 MiB, and 128 MiB/TiB with 64 KiB. */
export const fullClusterBytes = 2 * 1024 * 1024;
/** Keeps file offsets below 2^53 and the refcount table below QEMU's limit of 8 MiB for every size that is written. */
export const maxDiskBytes = 2 ** 50;

interface CommonGeometry {
  readonly format: 'qcow2';
  readonly sizeBytes: number;
  readonly clusterBytes: number;
}
export interface FullGeometry extends CommonGeometry {
  readonly layout: 'full';
}
export interface CompactGeometry extends CommonGeometry {
  readonly layout: 'compact';
  /** The clusters that hold data, by `encodeRuns`. */
  readonly allocation: string;
}
export type Qcow2Geometry = CompactGeometry | FullGeometry;

/** Where everything lies, in clusters of the file. */
export interface Placement {
  readonly l1Entries: number;
  readonly l1: number;
  readonly refcountTable: number;
  readonly refcountTableClusters: number;
  readonly refcountBlocks: number;
  readonly refcountBlockCount: number;
  readonly l2: number;
  readonly data: number;
  readonly totalClusters: number;
}

/** Disk clusters that one L2 table names. */
export function entriesPerTable(clusterBytes: number): number {
  return clusterBytes / entryBytes;
}

/**
 * Places the tables. Reference counts cover the clusters that hold reference counts too: their number is found by growing it until
 * it is enough.
 */
export function place(sizeBytes: number, clusterBytes: number, l2Tables: number, dataClusters: number): Placement {
  const l1Entries = Math.ceil(sizeBytes / clusterBytes / entriesPerTable(clusterBytes));
  const l1Clusters = Math.ceil((l1Entries * entryBytes) / clusterBytes);
  const others = 1 + l1Clusters + l2Tables + dataClusters;
  let refcountBlockCount = 1;
  let refcountTableClusters = 1;
  for (;;) {
    const total = others + refcountBlockCount + refcountTableClusters;
    const blocks = Math.ceil((total * refcountBytes) / clusterBytes);
    const tableClusters = Math.ceil((blocks * entryBytes) / clusterBytes);
    if (blocks === refcountBlockCount && tableClusters === refcountTableClusters) break;
    refcountBlockCount = Math.max(blocks, refcountBlockCount);
    refcountTableClusters = Math.max(tableClusters, refcountTableClusters);
  }
  const refcountTable = 1 + l1Clusters;
  const refcountBlocks = refcountTable + refcountTableClusters;
  const l2 = refcountBlocks + refcountBlockCount;
  const data = l2 + l2Tables;
  return {
    l1Entries,
    l1: 1,
    refcountTable,
    refcountTableClusters,
    refcountBlocks,
    refcountBlockCount,
    l2,
    data,
    totalClusters: data + dataClusters,
  };
}
