/** Structures of the FAT file system (Microsoft's FAT specification 1.03), for those that make volumes and those that read them. */
import { ascii, bytes, layout, reserved, text, u16le, u32le, u8 } from '../../bytes/layout.ts';

/** Of the sectors that we make, and read. */
const sectorBytes = 512;
export const folderEntryBytes = 32;
export const bootSignature = 0xaa55;

const commonFields = {
  jump: bytes(0, 3),
  oemName: text(3, 8, 'utf8'),
  bytesPerSector: u16le(11),
  sectorsPerCluster: u8(13),
  reservedSectors: u16le(14),
  fatCount: u8(16),
  rootEntries: u16le(17),
  totalSectors16: u16le(19),
  media: u8(21),
  sectorsPerFat16: u16le(22),
  sectorsPerTrack: u16le(24),
  heads: u16le(26),
  hiddenSectors: u32le(28),
  totalSectors32: u32le(32),
};

/** FAT12 has the same. */
export const fat16BootSector = layout('FAT16 boot sector', sectorBytes, {
  ...commonFields,
  driveNumber: u8(36),
  reserved: reserved(37, 1),
  extendedSignature: u8(38),
  serial: u32le(39),
  label: bytes(43, 11),
  type: text(54, 8, 'utf8'),
  code: reserved(62, 448),
  signature: u16le(510),
});

export const fat32BootSector = layout('FAT32 boot sector', sectorBytes, {
  ...commonFields,
  sectorsPerFat32: u32le(36),
  flags: u16le(40),
  version: u16le(42),
  rootCluster: u32le(44),
  infoSector: u16le(48),
  backupSector: u16le(50),
  reserved1: reserved(52, 12),
  driveNumber: u8(64),
  reserved2: reserved(65, 1),
  extendedSignature: u8(66),
  serial: u32le(67),
  label: bytes(71, 11),
  type: text(82, 8, 'utf8'),
  code: reserved(90, 420),
  signature: u16le(510),
});

export const infoSector = layout('FAT32 information sector', sectorBytes, {
  lead: ascii(0, 'RRaA'),
  reserved1: reserved(4, 480),
  structure: ascii(484, 'rrAa'),
  freeClusters: u32le(488),
  nextFree: u32le(492),
  reserved2: reserved(496, 12),
  trail: u32le(508),
});

export const folderEntry = layout('FAT folder entry', folderEntryBytes, {
  name: bytes(0, 11),
  attributes: u8(11),
  /** Which half of the name is not meant in capitals. */
  caseFlags: u8(12),
  createdTenths: u8(13),
  createdTime: u16le(14),
  createdDate: u16le(16),
  accessedDate: u16le(18),
  clusterHigh: u16le(20),
  changedTime: u16le(22),
  changedDate: u16le(24),
  clusterLow: u16le(26),
  sizeBytes: u32le(28),
});
