/**
 * QED, the disk files of QEMU between qcow2's versions 2 and 3 (docs/interop/qed_spec.txt of QEMU). All numbers are little-endian.
 *
 *     header, then clusters in any order: one L1 table, L2 tables, data
 *
 * A table has `tableClusters` clusters of entries of 8 bytes. An entry is the place of what it stands for: 0 for nothing, 1 in an L2 table for zeros.
 */
import { ascii, layout, u32le, u64le, type Decoded } from '../../bytes/layout.ts';
import { KiB, MiB, TiB } from '../../base/units.ts';

export const entryBytes = 8;
/** An L2 entry that is no place: the cluster reads as zeros. */
export const zeroEntry = 1n;
export const minClusterBytes = 4 * KiB;
export const maxClusterBytes = 64 * MiB;
export const maxTableClusters = 16;
export const maxBackingNameBytes = 1023;
/** QEMU's limit: what two levels of the largest tables cover is far more. */
export const maxDiskBytes = 64 * TiB;

export const fileHeader = layout('QED header', 64, {
  magic: ascii(0, 'QED\0'),
  clusterBytes: u32le(4),
  /** In clusters. */
  tableClusters: u32le(8),
  /** In clusters. */
  headerClusters: u32le(12),
  features: u64le(16),
  compatibleFeatures: u64le(24),
  autoclearFeatures: u64le(32),
  l1Offset: u64le(40),
  sizeBytes: u64le(48),
  backingNameOffset: u32le(56),
  backingNameBytes: u32le(60),
});
export type FileHeader = Decoded<typeof fileHeader>;

export const features = {
  /** It holds changes over another file. */
  backingFile: 1n,
  /** It was not closed: clusters may be lost, and what is read is right. */
  needsCheck: 2n,
  /** The bytes of the backing file are the disk's, whatever they look like. */
  backingFileIsRaw: 4n,
} as const;
