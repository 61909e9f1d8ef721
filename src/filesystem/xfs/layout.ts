/**
 * XFS on disk, versions 4 and 5, as "XFS Filesystem Disk Structures" has it. Big-endian, but for the checksums of version 5, which are
 * little-endian CRC-32C with their own field as zero.
 *
 * The volume is divided into allocation groups of equal size. A block's number holds its group above `agBlocksLog` bits and its place in the
 * group below; an inode's number holds, below its group, the block in the group and the inode in the block.
 */
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

export const superBlock = layout('XFS super block', 512, {
  magic: ascii(0, 'XFSB'),
  blockSize: u32be(4),
  dataBlocks: u64be(8),
  reserved1: reserved(16, 16),
  uuid: uuid(32),
  logStart: u64be(48), //          0: the log is on another device
  rootInode: u64be(56),
  reserved2: reserved(64, 20),
  agBlocks: u32be(84),
  agCount: u32be(88),
  reserved3: reserved(92, 4),
  logBlocks: u32be(96),
  version: u16be(100), //          low 4 bits; the rest are features of version 4
  sectorSize: u16be(102),
  inodeSize: u16be(104),
  inodesPerBlock: u16be(106),
  label: text(108, 12, 'utf8'),
  blockLog: u8(120),
  sectorLog: u8(121),
  inodeLog: u8(122),
  inodesPerBlockLog: u8(123),
  agBlocksLog: u8(124),
  reserved4: reserved(125, 67),
  folderBlockLog: u8(192), //      a folder's block = block size << this
  reserved5: reserved(193, 7),
  features2: u32be(200),
  reserved6: reserved(204, 12),
  incompatible: u32be(216),
  logIncompatible: u32be(220),
  crc: u32be(224),
  reserved7: reserved(228, 20),
  metaUuid: uuid(248),
  reserved8: reserved(264, 248),
});
export type SuperBlock = Decoded<typeof superBlock>;
export const superBlockCrcOffset = superBlock.offsetOf('crc');

/** Of `version` in version 4: folders of the second form, which all have had for twenty years. */
export const foldersVersion2 = 0x2000;
/** Of `features2`: folders know the types of their entries. */
export const fileTypesVersion4 = 0x200;
/** Bits of `incompatible` in version 5. */
export const incompatible = { fileTypes: 0x1, metaUuid: 0x4, needsRepair: 0x10, manyExtents: 0x20 } as const;
/** ftype, spinodes, meta_uuid, bigtime, needsrepair, nrext64, exchrange, parent */
export const incompatibleKnown = 0xff;

/** What versions 4 and 5 share of an inode. */
export const inode = layout('XFS inode', 100, {
  magic: ascii(0, 'IN'),
  mode: u16be(2),
  version: u8(4),
  format: u8(5),
  linksVersion1: u16be(6),
  uid: u32be(8),
  gid: u32be(12),
  links: u32be(16),
  reserved1: reserved(20, 4),
  manyExtents: u64be(24), //       with nrext64: how many extents the data have
  accessed: u64be(32), //          of the four times, seconds and nanoseconds; with bigtime, see `bigTimeStartSeconds`
  modified: u64be(40),
  changed: u64be(48),
  sizeBytes: u64be(56),
  reserved3: reserved(64, 12),
  extents: u32be(76), //           without it
  reserved4: reserved(80, 2),
  forkOffset: u8(82), //           times 8: where the attributes start behind the data; 0: no attributes
  reserved5: reserved(83, 7),
  flags: u16be(90),
  reserved6: reserved(92, 8),
});
export type InodeFields = Decoded<typeof inode>;
/** Version 3 inodes (of version 5 file systems): where more lies, and where the data begin. */
export const inodeCrcOffset = 100;
export const inodeFlags2Offset = 120;
export const inodeBornOffset = 144;
export const inodeNumberOffset = 152;
export const inodeBytes = { version2: 100, version3: 176 } as const;
export const forkFormats = { device: 0, local: 1, extents: 2, tree: 3 } as const;
export const inodeFlags = { realtime: 0x1 } as const;
export const inodeFlags2 = { reflink: 0x2, bigTime: 0x8, manyExtents: 0x10 } as const;
/** With bigtime, times are nanoseconds since so many seconds before 1970. */
export const bigTimeStartSeconds = 2n ** 31n;

export const extentBytes = 16;

/** In front of a block of a file's extent tree, version 4; version 5 goes on to 72 bytes. */
export const treeBlock = layout('XFS extent tree block', 24, {
  magic: bytes(0, 4),
  level: u16be(4),
  records: u16be(6),
  left: u64be(8),
  right: u64be(16),
});
export const treeBlockBytes = { version4: 24, version5: 72 } as const;
export const treeBlockCrcOffset = 64;

/** In front of a folder's block of entries: the magic, what is free, and in version 5 a checksum. */
export const folderBlockBytes = { version4: 16, version5: 64 } as const;
export const folderBlockCrcOffset = 4;
/** With `XD2B` and `XDB3` the block is the whole folder, and ends with an index. */
export const folderMagics = { version4: ['XD2B', 'XD2D'], version5: ['XDB3', 'XDD3'] } as const;
/** Where the index of a folder begins, in bytes of its file; entries lie below. */
export const folderIndexOffset = 2 ** 35;
export const freeTag = 0xffff;

/** At the very end of a block that is a whole folder. Each index entry has 8 bytes. */
export const folderTail = layout('XFS folder tail', 8, { count: u32be(0), stale: u32be(4) });

/** In front of each block of a long link's target, in version 5. */
export const linkBlockBytes = 56;
