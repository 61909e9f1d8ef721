/**
 * The image format on disk (`.spf` full, `.spi` incremental), versions 1 and 2. native-notes/image-format.md explains it in prose.
 *
 *   0      superblock   4 KiB, written first
 *   4 KiB  key blocks   2 of 4 KiB, only in an encrypted image: crypto/key-slots.ts
 *   then   records      header (32 B) + stored bytes, in the order in which workers finished them
 *          leaves       512 entries of 24 B: one for each block of a run of 512; only those that hold something
 *          pages        256 references of 16 B to leaves; only those that hold something
 *          root         16 B for each page, by page number
 *          provenance   in an encrypted image and in a consolidated one: provenance.ts
 *   last   commit       4 KiB: without it the file is not an image
 *
 * Everything is little-endian. A leaf may stand between records: it is written as soon as its blocks are.
 */
import { toOffset } from '../../base/ranges.ts';
import { KiB, MiB, TiB } from '../../base/units.ts';
import {
  ascii,
  bytes,
  guid,
  layout,
  reserved,
  text,
  u16le,
  u32le,
  u64le,
  u8,
  type Decoded,
} from '../../bytes/layout.ts';

/** Of plain images that were not consolidated: as every reader knows them. */
export const plainVersion = 1;
/** Of images that are encrypted or consolidated: a reader of version 1 alone would read wrong bytes, and refuses them. */
export const formatVersion = 2;
export const superblockBytes = 4 * KiB;
export const commitBytes = 4 * KiB;
export const recordHeaderBytes = 32;
export const leafEntries = 512;
export const leafEntryBytes = 24;
export const leafBytes = leafEntries * leafEntryBytes;
export const pageReferences = 256;
export const pageReferenceBytes = 16;
export const pageBytes = pageReferences * pageReferenceBytes;
export const rootEntryBytes = 16;
export const keyBlockBytes = 4 * KiB;
/** Two copies: one is sound while the other is written. */
export const keyBlockCopies = 2;

export const minBlockBytes = 16 * KiB;
export const maxBlockBytes = MiB;
export const defaultBlockBytes = 64 * KiB;
/** 1 PiB: the largest disk, which bounds the root at 8 MiB. */
export const maxSourceBytes = 1024 * TiB;
/** An image file: a disk of the largest size, stored raw, with its index. */
export const maxFileBytes = maxSourceBytes + 16 * TiB;
/** Images in one chain. Opening reads 12 KiB or so of each. */
export const maxChainDepth = 10_000;
/** A sequence is a u32. */
export const maxSequence = 2 ** 32 - 1;
/** A record is never longer than its block plus nonce and tag: what compression does not shorten is stored raw. */
export const maxSealOverheadBytes = 28;
/** Leaves of an encrypted image: of its 512 blocks each, at most 2^32 are sealed under the image's key with random nonces. */
export const maxSealedLeaves = 2 ** 32 / leafEntries;
/** An image is smaller than its superblock and commit: nothing else fits. */
export const minFileBytes = superblockBytes + commitBytes;
/** Records are gathered to about this much before one write. */
export const writeBatchBytes = MiB;
/** The parent's file name, in UTF-8. */
export const maxParentNameBytes = 255;

export const imageKinds = ['full', 'incremental', 'quiescence', 'consolidated'] as const;
export type ImageKind = (typeof imageKinds)[number];
export const imageContents = ['disk', 'volume'] as const;
export type ImageContent = (typeof imageContents)[number];
export const codecs = ['none', 'zstd', 'lz4'] as const;
export type Codec = (typeof codecs)[number];

/** What an index entry says of its block. Absent: look in the parent; in a full image: zero. */
export const blockState = { absent: 0, data: 1, zero: 2, discarded: 3 } as const;

/** Whether a block of that state reads as zeros, once no newer image has it. An unknown state does not: it is refused. */
export function readsAsZeros(state: number | undefined): boolean {
  return state === blockState.absent || state === blockState.zero || state === blockState.discarded;
}

/** Where records and indexes begin. */
export function dataOffset(sealed: boolean): number {
  return superblockBytes + (sealed ? keyBlockCopies * keyBlockBytes : 0);
}

/** Set in a record's flags, and its entry's, when its bytes are nonce, tag, ciphertext. */
export const sealedFlag = 1;

export const superblock = layout('superblock', superblockBytes, {
  magic: ascii(0, 'VENEERIM'),
  versionMajor: u16le(8), //         a reader refuses another major version
  versionMinor: u16le(10),
  kind: u8(12), //                   index into imageKinds
  content: u8(13), //                index into imageContents
  codec: u8(14), //                  index into codecs: the one asked for; each record names its own
  sealSuite: u8(15), //              0 plain, 1 AES-256-GCM
  chainId: guid(16),
  imageId: guid(32),
  parentId: guid(48), //             nil for a full image
  sequence: u32le(64), //            0 for a full image, above the parent's otherwise
  blockBytes: u32le(68), //          power of two, one per chain
  logicalSectorBytes: u32le(72),
  physicalSectorBytes: u32le(76),
  sourceSizeBytes: u64le(80),
  createdAtMs: u64le(88), //         Unix time
  parentName: text(96, maxParentNameBytes + 1, 'utf8'), // where the parent was; its identity is parentId
  visibleBytes: u64le(352), //       version 2: what older images hold past it is gone, though this disk be larger; version 1: zero
  reserved1: reserved(360, 3732),
  crc32c: u32le(4092), //            of the 4 KiB, this field as zero
});
export type Superblock = Decoded<typeof superblock>;

export const recordHeader = layout('record header', recordHeaderBytes, {
  crc32c: u32le(0), //               of header bytes 4..32 and the stored bytes behind
  magic: ascii(4, 'VREC'),
  position: u64le(8), //             block number on the disk
  storedBytes: u32le(16),
  originSequence: u32le(20), //      sequence of the image that first stored it: kept by consolidation
  codec: u8(24),
  flags: u8(25),
  reserved: reserved(26, 6),
});

export const leafEntry = layout('index entry', leafEntryBytes, {
  offset: u64le(0), //               of the record header in the file
  storedBytes: u32le(8),
  originSequence: u32le(12),
  crc32c: u32le(16), //              the record's
  state: u8(20), //                  blockState
  codec: u8(21),
  flags: u8(22),
  reserved: reserved(23, 1),
});
export type LeafEntry = Decoded<typeof leafEntry>;

export const pageReference = layout('page reference', pageReferenceBytes, {
  leafOffset: u64le(0), //           0: no block of this leaf is in this image
  leafCrc32c: u32le(8),
  dataBlocks: u32le(12),
});

export const rootEntry = layout('root entry', rootEntryBytes, {
  pageNumber: u32le(0),
  pageCrc32c: u32le(4),
  pageOffset: u64le(8),
});

export const commit = layout('commit', commitBytes, {
  magic: ascii(0, 'VENEERCM'),
  versionMajor: u16le(8),
  reserved1: reserved(10, 2),
  sequence: u32le(12),
  chainId: guid(16),
  imageId: guid(32),
  fileSizeBytes: u64le(48), //       of the whole file, this block included
  rootOffset: u64le(56),
  rootBytes: u64le(64),
  provenanceOffset: u64le(72), //    0 in a plain image that was not consolidated
  provenanceBytes: u64le(80),
  dataBlocks: u64le(88),
  zeroBlocks: u64le(96),
  discardedBlocks: u64le(104),
  storedBytes: u64le(112), //        of all records, their headers not counted
  rootHash: bytes(128, 32), //       SHA-256
  reserved2: reserved(120, 8),
  provenanceHash: bytes(160, 32),
  superblockHash: bytes(192, 32),
  parentCommitHash: bytes(224, 32), // SHA-256 of the commit block of the parent, or of what it stands for; zero without a parent
  standsForHash: bytes(256, 32), //  in a consolidated image: the commit it takes the place of
  hmac: bytes(288, 32), //           encrypted, not consolidated: HMAC-SHA-256 of bytes 0..288
  reserved3: reserved(320, 3772),
  crc32c: u32le(4092),
});
export type Commit = Decoded<typeof commit>;

/** Narrows a u64 of a structure to a safe integer. @throws FormatError */
export function narrow(structure: string, field: string, fieldOffset: number, value: bigint, limit: number): number {
  return toOffset(value, limit, { structure, field, offset: fieldOffset });
}
