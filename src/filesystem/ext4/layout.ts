/**
 * ext2, ext3 and ext4 on disk, as the kernel's documentation has it (Documentation/filesystems/ext4). Little-endian; blocks of 1 to 64 KiB.
 *
 *   0     boot sectors        1 KiB
 *   1024  super block         1 KiB
 *   then  block groups: [super block and descriptors of all groups] bitmaps, inode table, data
 */
import { KiB } from '../../base/units.ts';
import { bytes, layout, reserved, text, u16le, u32le, u8, uuid, type Decoded } from '../../bytes/layout.ts';

export const superBlockOffset = 1024;
export const superBlockMagic = 0xef53;

export const superBlock = layout('ext4 super block', KiB, {
  inodesCount: u32le(0x0),
  blocksCountLow: u32le(0x4),
  reserved1: reserved(0x8, 12),
  firstDataBlock: u32le(0x14),
  logBlockSize: u32le(0x18), //     block size = 1024 << this
  reserved2: reserved(0x1c, 4),
  blocksPerGroup: u32le(0x20),
  reserved3: reserved(0x24, 4),
  inodesPerGroup: u32le(0x28),
  reserved4: reserved(0x2c, 12),
  magic: u16le(0x38),
  state: u16le(0x3a), //            1: unmounted cleanly
  reserved5: reserved(0x3c, 16),
  revision: u32le(0x4c), //         0: inodes of 128 bytes, no features
  reserved6: reserved(0x50, 8),
  inodeSize: u16le(0x58),
  reserved7: reserved(0x5a, 2),
  featureCompatible: u32le(0x5c),
  featureIncompatible: u32le(0x60),
  featureReadOnly: u32le(0x64),
  uuid: uuid(0x68),
  volumeName: text(0x78, 16, 'utf8'),
  reserved8: reserved(0x88, 0x76),
  descriptorSize: u16le(0xfe),
  reserved9: reserved(0x100, 4),
  firstMetaGroup: u32le(0x104),
  reserved10: reserved(0x108, 0x48),
  blocksCountHigh: u32le(0x150),
  reserved11: reserved(0x154, 0x11c),
  checksumSeed: u32le(0x270),
  reserved12: reserved(0x274, 0x188),
  checksum: u32le(0x3fc),
});
export type SuperBlock = Decoded<typeof superBlock>;

/** Bits of `featureIncompatible`. */
export const incompatible = {
  compression: 0x1,
  recover: 0x4, //       the journal holds what is not in place yet
  journalDevice: 0x8,
  metaGroups: 0x10,
  extents: 0x40,
  bits64: 0x80,
  checksumSeed: 0x2000,
} as const;
/** filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, encrypt, casefold */
export const incompatibleKnown =
  0x2 + 0x4 + 0x10 + 0x40 + 0x80 + 0x100 + 0x200 + 0x400 + 0x2000 + 0x4000 + 0x8000 + 0x30000;
/** Bits of `featureReadOnly`. */
export const readOnly = { sparseSuper: 0x1, metadataChecksums: 0x400 } as const;

/** The part of an inode that all revisions have. */
export const inode = layout('ext4 inode', 128, {
  mode: u16le(0x0),
  uidLow: u16le(0x2),
  sizeLow: u32le(0x4),
  accessedSeconds: u32le(0x8), // of the four times, the lower 32 bits, signed
  changedSeconds: u32le(0xc),
  modifiedSeconds: u32le(0x10),
  reserved1: reserved(0x14, 4),
  gidLow: u16le(0x18),
  links: u16le(0x1a),
  reserved2: reserved(0x1c, 4),
  flags: u32le(0x20),
  reserved3: reserved(0x24, 4),
  block: bytes(0x28, 60), //      block map, root of the extent tree, or the data itself
  generation: u32le(0x64),
  reserved4: reserved(0x68, 4),
  sizeHigh: u32le(0x6c),
  reserved5: reserved(0x70, 8),
  uidHigh: u16le(0x78),
  gidHigh: u16le(0x7a),
  checksumLow: u16le(0x7c),
  reserved6: reserved(0x7e, 2),
});
export type InodeFields = Decoded<typeof inode>;
export const checksumLowOffset = inode.offsetOf('checksumLow');
/** Behind the first 128 bytes, where inodes are larger: the size of what is declared there, and the checksum's upper half. */
export const extraSizeOffset = 0x80;
export const checksumHighOffset = 0x82;
/** Of each time, 2 bits above the 32 of its seconds, and 30 bits of nanoseconds. */
export const extraTimeOffsets = { changed: 0x84, modified: 0x88, accessed: 0x8c, born: 0x94 } as const;
export const bornSecondsOffset = 0x90;

/** Bits of an inode's `flags`. */
export const inodeFlags = { encrypted: 0x800, verity: 0x100000, extents: 0x80000, inlineData: 0x10000000 } as const;

/** In front of every node of an extent tree; entries of as many bytes follow. */
export const extentHeader = layout('ext4 extent header', 12, {
  magic: u16le(0),
  entries: u16le(2),
  max: u16le(4),
  depth: u16le(6), //             0: the entries are extents
  generation: u32le(8),
});
export const extentMagic = 0xf30a;
export const extentEntryBytes = 12;

export const extent = layout('ext4 extent', 12, {
  block: u32le(0),
  length: u16le(4), //            above 32768: not written yet, reads as zeros
  startHigh: u16le(6),
  startLow: u32le(8),
});
export const maxWrittenLength = 32768;

export const extentIndex = layout('ext4 extent index', 12, {
  block: u32le(0),
  leafLow: u32le(4),
  leafHigh: u16le(8),
  reserved: reserved(10, 2),
});

export const folderEntry = layout('ext4 directory entry', 8, {
  inode: u32le(0), //             0: unused
  length: u16le(4), //            to the next entry; the last reaches the end of the block
  nameLength: u8(6),
  fileType: u8(7),
});

/** An extended attribute inside an inode, behind its own magic. */
export const attributeMagic = 0xea020000;
export const attributeEntry = layout('ext4 attribute entry', 16, {
  nameLength: u8(0),
  nameIndex: u8(1),
  valueOffset: u16le(2), //       from the first entry
  valueInode: u32le(4),
  valueSize: u32le(8),
  hash: u32le(12),
});
/** `system.data`: the data of an inode that do not fit its block map. */
export const inlineDataName = { index: 7, name: 'data' } as const;
