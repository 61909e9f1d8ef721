/**
 * NTFS 3.1 as it lies on disk, and the limits that every number from it meets.
 *
 * ```
 * sector 0      boot sector: sizes, where the MFT begins; a copy of it in the sector behind the file system's last
 * $MFT          file records of 1 or 4 KiB, each with its attributes: names, data, indexes; by number (0 $MFT, 2 $LogFile, 3 $Volume,
 *               5 the root folder, 10 $UpCase)
 * an attribute  resident: its value in the record; or runs of clusters, which may go on in other records (attribute list)
 * ```
 * Records and index blocks are protected: the last two bytes of every 512 hold a number, and what belongs there stands in their header.
 * Source: "NTFS Documentation", R. Russon and Y. Fledel.
 */
import { KiB, MiB } from '../../base/units.ts';
import { ascii, bytes, layout, reserved, u16le, u32le, u64le, u8 } from '../../bytes/layout.ts';

export const strideBytes = 512;
export const maxClusterBytes = 2 * MiB;
export const maxVolumeBytes = 2 ** 52;
/** Of an attribute list, as Windows limits it. */
export const maxAttributeListBytes = 256 * KiB;
/** Records that one file may be spread over. */
export const maxExtensionRecords = 8192;
export const maxRunsOfAttribute = 1_500_000;
export const maxIndexDepth = 32;
export const maxFolderEntries = 1_000_000;
export const maxPathDepth = 128;

export const bootSector = layout('NTFS boot sector', 512, {
  jump: reserved(0, 3),
  signature: ascii(3, 'NTFS    '),
  sectorBytes: u16le(11),
  sectorsPerCluster: u8(13),
  unusedOfFat: reserved(14, 14),
  hiddenSectors: u32le(28),
  unused: reserved(32, 4),
  drive: u8(36),
  unusedBehindDrive: reserved(37, 3),
  sectorCount: u64le(40),
  mftCluster: u64le(48),
  mirrorCluster: u64le(56),
  clustersPerRecord: u8(64),
  unusedBehindRecord: reserved(65, 3),
  clustersPerIndexBlock: u8(68),
  unusedBehindIndex: reserved(69, 3),
  serial: u64le(72),
  code: bytes(80, 430),
  mark: u16le(510),
});

export const recordNumbers = {
  mft: 0,
  mirror: 1,
  logFile: 2,
  volume: 3,
  root: 5,
  bitmap: 6,
  boot: 7,
  badClusters: 8,
  secure: 9,
  upCase: 10,
  /** Those before are the file system's own, or kept for it. */
  firstOfUsers: 24,
} as const;
export const recordFlags = { inUse: 1, folder: 2 } as const;

export const fileRecord = layout('NTFS file record', 48, {
  signature: ascii(0, 'FILE'),
  fixupOffset: u16le(4),
  fixupCount: u16le(6),
  logSequence: u64le(8),
  sequence: u16le(16),
  linkCount: u16le(18),
  attributesOffset: u16le(20),
  flags: u16le(22),
  usedBytes: u32le(24),
  allocatedBytes: u32le(28),
  base: u64le(32),
  nextAttribute: u16le(40),
  unused: u16le(42),
  number: u32le(44),
});

export const attributeTypes = {
  standardInformation: 0x10,
  attributeList: 0x20,
  fileName: 0x30,
  securityDescriptor: 0x50,
  volumeName: 0x60,
  volumeInformation: 0x70,
  data: 0x80,
  indexRoot: 0x90,
  indexAllocation: 0xa0,
  bitmap: 0xb0,
  reparsePoint: 0xc0,
  end: 0xffff_ffff,
} as const;

export const attributeFlags = { compressed: 0x00ff, encrypted: 0x4000, sparse: 0x8000 } as const;

export const attributeHeader = layout('NTFS attribute', 16, {
  type: u32le(0),
  lengthBytes: u32le(4),
  nonResident: u8(8),
  nameLength: u8(9),
  nameOffset: u16le(10),
  flags: u16le(12),
  id: u16le(14),
});

export const residentHeader = layout('NTFS resident attribute', 24, {
  common: bytes(0, 16),
  valueLength: u32le(16),
  valueOffset: u16le(20),
  indexed: u8(22),
  unused: reserved(23, 1),
});

export const nonResidentHeader = layout('NTFS attribute of runs', 64, {
  common: bytes(0, 16),
  firstCluster: u64le(16),
  lastCluster: u64le(24),
  runsOffset: u16le(32),
  compressionUnit: u16le(34),
  unused: reserved(36, 4),
  allocatedBytes: u64le(40),
  sizeBytes: u64le(48),
  initializedBytes: u64le(56),
});

export const listEntry = layout('NTFS attribute list entry', 26, {
  type: u32le(0),
  lengthBytes: u16le(4),
  nameLength: u8(6),
  nameOffset: u8(7),
  firstCluster: u64le(8),
  record: u64le(16),
  id: u16le(24),
});

/** In front of the entries of an index, in its root (behind 16 bytes) and in its blocks (behind 24). */
export const indexHeader = layout('NTFS index header', 16, {
  entriesOffset: u32le(0),
  usedBytes: u32le(4),
  allocatedBytes: u32le(8),
  flags: u8(12),
  unused: reserved(13, 3),
});

export const indexBlock = layout('NTFS index block', 24, {
  signature: ascii(0, 'INDX'),
  fixupOffset: u16le(4),
  fixupCount: u16le(6),
  logSequence: u64le(8),
  cluster: u64le(16),
});

export const indexEntry = layout('NTFS index entry', 16, {
  record: u64le(0),
  lengthBytes: u16le(8),
  keyBytes: u16le(10),
  flags: u32le(12),
});
export const indexFlags = { hasChild: 1, last: 2 } as const;

/** The key of a folder's index: a name with its folder. */
export const fileName = layout('NTFS file name', 66, {
  folder: u64le(0),
  times: bytes(8, 32),
  allocatedBytes: u64le(40),
  sizeBytes: u64le(48),
  flags: u32le(56),
  reparse: u32le(60),
  nameLength: u8(64),
  namespace: u8(65),
});
/** A second name in 8.3 form, not shown in lists. */
export const dosNamespace = 2;

/** Names of 8 and 3 characters serve Windows and DOS at once. */
export const sharedNamespace = 3;

/** Without the last four fields (`shortStandardInformationBytes`) in NTFS 1.2, and as ntfs-3g writes it. */
export const standardInformation = layout('NTFS standard information', 72, {
  times: bytes(0, 32),
  flags: u32le(32),
  versions: reserved(36, 12),
  owner: u32le(48),
  security: u32le(52),
  quota: u64le(56),
  changeNumber: u64le(64),
});
export const shortStandardInformationBytes = 48;
/** Of a file that a backup is to take. */
export const archiveFlag = 0x20;

/** In front of the index header of a root. */
export const indexRootHead = layout('NTFS index root', 16, {
  type: u32le(0),
  collation: u32le(4),
  blockBytes: u32le(8),
  blockClusters: u8(12),
  unused: reserved(13, 3),
});

/** The lower 48 bits of a reference are the record's number, the upper 16 its sequence number. */
export function recordOf(reference: bigint): number {
  return Number(reference % 2n ** 48n);
}

export function referenceTo(record: number, sequence: number): bigint {
  return BigInt(sequence) * 2n ** 48n + BigInt(record);
}
