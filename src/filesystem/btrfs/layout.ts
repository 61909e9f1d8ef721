/**
 * btrfs on disk, as the kernel's own header has it (include/uapi/linux/btrfs_tree.h). Little-endian.
 *
 * Everything is an item in a tree, under a key of object, type and offset. Trees are found in the root tree, the root tree in the super
 * block. Addresses are logical; the chunk tree says where they lie on the disk. A node's checksum is at its start; its parent holds
 * only its address and generation, so a leaf that is patched needs nothing but its own checksum made again.
 */
import { KiB } from '../../base/units.ts';
import {
  ascii,
  bytes,
  layout,
  reserved,
  text,
  u16le,
  u32le,
  u64le,
  u8,
  uuid,
  type Decoded,
} from '../../bytes/layout.ts';

export const superBlockOffset = 64 * KiB;
export const superBlockBytes = 4 * KiB;
export const checksumBytes = 32;
export const systemChunksOffset = 0x32b;
export const systemChunksRoom = 2048;

export const superBlock = layout('btrfs super block', superBlockBytes, {
  checksum: bytes(0x0, 32),
  fsid: uuid(0x20),
  address: u64le(0x30), //           its own
  flags: u64le(0x38),
  magic: ascii(0x40, '_BHRfS_M'),
  generation: u64le(0x48),
  root: u64le(0x50), //              the root tree
  chunkRoot: u64le(0x58),
  logRoot: u64le(0x60), //           not 0: writes that were flushed and are not in the trees yet
  reserved1: reserved(0x68, 8),
  totalBytes: u64le(0x70),
  reserved2: reserved(0x78, 16),
  deviceCount: u64le(0x88),
  sectorSize: u32le(0x90),
  nodeSize: u32le(0x94),
  reserved3: reserved(0x98, 8),
  systemChunksBytes: u32le(0xa0),
  reserved4: reserved(0xa4, 24),
  incompatible: u64le(0xbc),
  checksumType: u16le(0xc4),
  rootLevel: u8(0xc6),
  chunkRootLevel: u8(0xc7),
  reserved5: reserved(0xc8, 1),
  deviceId: u64le(0xc9),
  reserved6: reserved(0xd1, 90),
  label: text(0x12b, 256, 'utf8'),
  reserved7: reserved(0x22b, 16),
  metadataUuid: uuid(0x23b),
  reserved8: reserved(0x24b, 0xdb5),
});
export type SuperBlock = Decoded<typeof superBlock>;

/** Of `checksumType`, those that are read here. */
export const checksumTypes: Readonly<
  Record<number, { readonly name: 'crc32c' | 'sha256'; readonly sizeBytes: number }>
> = {
  0: { name: 'crc32c', sizeBytes: 4 },
  2: { name: 'sha256', sizeBytes: 32 },
};
/** Bits of `incompatible`. */
export const metadataUuidBit = 0x400n;
/** All up to raid1c34, but raid56; and simple quotas. */
export const incompatibleKnown =
  0x1n + 0x2n + 0x4n + 0x8n + 0x10n + 0x20n + 0x40n + 0x100n + 0x200n + 0x400n + 0x10000n;

/** Where things are: trees by their object, items by their type. */
export const objects = {
  rootTree: 1n,
  extentTree: 2n,
  chunkTree: 3n,
  topLevel: 5n,
  rootFolder: 6n,
  checksumTree: 7n,
  checksums: 2n ** 64n - 10n,
  firstFree: 256n,
} as const;
export const itemTypes = {
  inode: 1,
  folderItem: 84,
  folderIndex: 96,
  fileExtent: 108,
  checksum: 128,
  root: 132,
  extent: 168,
  chunk: 228,
} as const;

export const nodeHeader = layout('btrfs node header', 101, {
  checksum: bytes(0, 32),
  fsid: uuid(32),
  address: u64le(48),
  flags: u64le(56),
  chunkTreeUuid: uuid(64),
  generation: u64le(80),
  owner: u64le(88),
  itemCount: u32le(96),
  level: u8(100), //               0: a leaf
});
export const keyBytes = 17;
export const key = layout('btrfs key', keyBytes, { object: u64le(0), type: u8(8), offset: u64le(9) });
export type Key = Decoded<typeof key>;
/** A leaf has these from the front; the data they point to lie from the back. Offsets count from behind the header. */
export const leafItem = layout('btrfs item', 25, { key: bytes(0, keyBytes), offset: u32le(17), size: u32le(21) });
/** A node above leaves has these. */
export const nodePointer = layout('btrfs node pointer', 33, {
  key: bytes(0, keyBytes),
  address: u64le(17),
  generation: u64le(25),
});

export const chunk = layout('btrfs chunk', 48, {
  length: u64le(0),
  owner: u64le(8),
  stripeLength: u64le(16),
  type: u64le(24),
  reserved: reserved(32, 12),
  stripeCount: u16le(44),
  subStripes: u16le(46),
});
export const stripe = layout('btrfs stripe', 32, { device: u64le(0), offset: u64le(8), deviceUuid: uuid(16) });
/** Of a chunk's `type`: how it is spread. None of them: single. */
export const profiles = { dup: 0x20n, all: 0x7f8n } as const;

export const inodeItem = layout('btrfs inode item', 160, {
  reserved1: reserved(0, 16),
  sizeBytes: u64le(16),
  reserved2: reserved(24, 16),
  links: u32le(40),
  uid: u32le(44),
  gid: u32le(48),
  mode: u32le(52),
  device: u64le(56),
  flags: u64le(64),
  reserved4: reserved(72, 40),
  accessedSeconds: u64le(112), //  of the four times, signed
  accessedNanos: u32le(120),
  changedSeconds: u64le(124),
  changedNanos: u32le(132),
  modifiedSeconds: u64le(136),
  modifiedNanos: u32le(144),
  bornSeconds: u64le(148),
  bornNanos: u32le(156),
});
/** Of an inode's `flags`: its data have no checksums. */
export const noChecksumsFlag = 0x1n;

export const rootItem = layout('btrfs root item', 239, {
  inode: bytes(0, 160),
  generation: u64le(160),
  folder: u64le(168), //           object of the subvolume's own folder
  address: u64le(176),
  reserved1: reserved(184, 54),
  level: u8(238),
});

export const folderItem = layout('btrfs directory item', 30, {
  location: bytes(0, keyBytes), // of an inode in the same tree, or of a subvolume's root
  transaction: u64le(17),
  dataLength: u16le(25),
  nameLength: u16le(27),
  type: u8(29),
});

export const fileExtent = layout('btrfs file extent', 21, {
  generation: u64le(0),
  ramBytes: u64le(8), //           without compression
  compression: u8(16),
  encryption: u8(17),
  otherEncoding: u16le(18),
  type: u8(20),
});
export const fileExtentTypes = { inline: 0, regular: 1, preallocated: 2 } as const;
export const compressions = { none: 0, zlib: 1, lzo: 2, zstd: 3 } as const;
/** Behind the above, unless the data are inline. */
export const fileExtentPlace = layout('btrfs file extent place', 32, {
  diskAddress: u64le(0), //        0: a hole
  diskBytes: u64le(8),
  offset: u64le(16), //            into the extent (without compression)
  lengthBytes: u64le(24),
});
