/**
 * What an image says of itself: its first and last 4 KiB and its root, read and checked (magic, checksum, version, bounds) before anything
 * else of it is believed.
 */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { FormatError, IntegrityError, UnsupportedError } from '../../base/errors.ts';
import { isPowerOfTwo } from '../../base/ranges.ts';
import { checkCrc32c } from '../../bytes/checksum.ts';
import { nilGuid, type Guid } from '../../bytes/guid.ts';
import * as format from './layout.ts';

/** Whether a file with these first bytes starts as an image does. Decides what it is, not whether it is sound. */
export function startsAsImage(firstBytes: Uint8Array): boolean {
  return (
    Buffer.from(firstBytes.buffer, firstBytes.byteOffset, Math.min(8, firstBytes.length)).toString('latin1') ===
    'VENEERIM'
  );
}

/** The bytes of an image's file. */
export interface ImageBytes {
  readonly path: string;
  readonly sizeBytes: number;
  /** Fills all of `target`. @throws UnavailableError */
  read(target: Uint8Array, position: number): void;
}

/** What an image says of itself, in narrow types. */
export interface ImageDescription {
  readonly kind: format.ImageKind;
  readonly content: format.ImageContent;
  readonly codec: format.Codec;
  readonly chainId: Guid;
  readonly imageId: Guid;
  /** Undefined in a full image, and in a consolidated one of a whole chain. */
  readonly parent: { readonly imageId: Guid; readonly name: string; readonly commitHash: string } | undefined;
  readonly sequence: number;
  readonly blockBytes: number;
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
  readonly sourceSizeBytes: number;
  /** What older images hold past this is gone. Smaller than the disk where it was smaller in an image that was consolidated. */
  readonly visibleBytes: number;
  readonly createdAt: Date;
  readonly sealed: boolean;
  readonly fileSizeBytes: number;
  readonly dataBlocks: number;
  readonly zeroBlocks: number;
  readonly discardedBlocks: number;
  readonly storedBytes: number;
  /** Hex SHA-256 of the commit block: names this very image, contents included. */
  readonly commitHash: string;
  /** What images made on this one name it by: the commit that it takes the place of, or its own. Hex. */
  readonly lineageHash: string;
}

function expectHash(what: string, expected: Uint8Array, bytes: Uint8Array): void {
  const actual = createHash('sha256').update(bytes).digest('hex');
  if (actual !== hex(expected)) throw new IntegrityError(what, hex(expected), actual);
}

/** Pages that a disk of that size may have: what bounds the root, and with it the memory that opening takes. */
function pagesOf({ sourceSizeBytes, blockBytes }: ImageDescription): number {
  return Math.ceil(sourceSizeBytes / (blockBytes * format.leafEntries * format.pageReferences));
}

/** All of the root, checked: 16 B for each 8 GiB of disk with data. @throws IntegrityError, FormatError, UnavailableError */
export function readRoot(file: ImageBytes, { description, rootOffset, rootBytes, rootHash }: OpenedImage): Uint8Array {
  const root = new Uint8Array(rootBytes);
  file.read(root, rootOffset);
  expectHash(`${file.path}: root`, rootHash, root);
  checkRoot(file.path, root, pagesOf(description));
  return root;
}

function checkRoot(imagePath: string, root: Uint8Array, pageCount: number): void {
  let previous = -1;
  for (let at = 0; at < root.length; at += format.rootEntryBytes) {
    const { pageNumber } = format.rootEntry.parse(root, at);
    if (pageNumber <= previous)
      throw new FormatError(`${imagePath}: root`, 'page number', at, `${pageNumber} follows ${previous}`);
    if (pageNumber >= pageCount)
      throw new FormatError(`${imagePath}: root`, 'page number', at, `${pageNumber} is past the disk's end`);
    previous = pageNumber;
  }
}

export interface OpenedImage {
  readonly description: ImageDescription;
  readonly rootOffset: number;
  readonly rootBytes: number;
  readonly rootHash: Uint8Array;
  readonly provenance: { readonly offset: number; readonly lengthBytes: number; readonly hash: Uint8Array };
}

/** @throws UnavailableError, FormatError, IntegrityError, UnsupportedError */
export function readDescription(file: ImageBytes): OpenedImage {
  const name = file.path;
  if (file.sizeBytes < format.minFileBytes) {
    throw new FormatError(
      name,
      'size',
      0,
      `${file.sizeBytes} bytes are too few for an image; is it truncated, or something else?`,
    );
  }
  const first = new Uint8Array(format.superblockBytes);
  file.read(first, 0);
  if (!startsAsImage(first)) throw new FormatError(name, 'magic', 0, 'is not a Veneer image');
  const last = new Uint8Array(format.commitBytes);
  file.read(last, file.sizeBytes - format.commitBytes);
  const superblock = parseSuperblock(name, first);
  const commit = parseCommit(name, last, file.sizeBytes);
  expectHash(`${name}: superblock, as the commit knows it`, commit.superblockHash, first);
  if (
    commit.chainId !== superblock.chainId ||
    commit.imageId !== superblock.imageId ||
    commit.sequence !== superblock.sequence
  ) {
    throw new FormatError(`${name}: commit`, 'identity', 12, 'belongs to another image than the superblock');
  }
  if (commit.versionMajor !== superblock.versionMajor)
    throw new UnsupportedError(
      `${name}: its commit is of format version ${commit.versionMajor}; the superblock's is ${superblock.versionMajor}`,
    );
  const description = describe(name, superblock, commit, last);
  const dataEnd = file.sizeBytes - format.commitBytes;
  const narrow = (field: string, value: bigint, limit: number): number =>
    format.narrow(`${name}: commit`, field, format.commit.offsetOf(field), value, limit);
  const rootOffset = narrow('rootOffset', commit.rootOffset, dataEnd);
  const rootLimit = Math.min(dataEnd - rootOffset, pagesOf(description) * format.rootEntryBytes);
  const rootBytes = narrow('rootBytes', commit.rootBytes, rootLimit);
  const provenanceOffset = narrow('provenanceOffset', commit.provenanceOffset, dataEnd);
  const provenanceBytes = narrow('provenanceBytes', commit.provenanceBytes, dataEnd - provenanceOffset);
  if (rootBytes % format.rootEntryBytes !== 0 || rootOffset < format.dataOffset(description.sealed)) {
    throw new FormatError(`${name}: commit`, 'root', 56, `${rootBytes} bytes at ${rootOffset} cannot be a root`);
  }
  const provenance = { offset: provenanceOffset, lengthBytes: provenanceBytes, hash: commit.provenanceHash };
  return { description, rootOffset, rootBytes, rootHash: commit.rootHash, provenance };
}

function parseSuperblock(name: string, block: Uint8Array): format.Superblock {
  const what = `${name}: superblock`;
  checkCrc32c(block, format.superblock.offsetOf('crc32c'), what);
  const found = format.superblock.parse(block);
  checkVersion(name, found.versionMajor);
  if (
    !isPowerOfTwo(found.blockBytes) ||
    found.blockBytes < format.minBlockBytes ||
    found.blockBytes > format.maxBlockBytes
  ) {
    throw new FormatError(
      what,
      'block size',
      68,
      `${found.blockBytes} is not a power of two from ${format.minBlockBytes} to ${format.maxBlockBytes}`,
    );
  }
  for (const [field, size] of [
    ['logical sector size', found.logicalSectorBytes],
    ['physical sector size', found.physicalSectorBytes],
  ] as const) {
    if (!isPowerOfTwo(size) || size < 512 || size > 65_536)
      throw new FormatError(what, field, 72, `${size} is not a sector size`);
  }
  if (found.sealSuite > 1)
    throw new UnsupportedError(`${name}: is sealed in a way (${found.sealSuite}) that this Veneer does not know`);
  if (found.sealSuite !== 0 && found.versionMajor === format.plainVersion)
    throw new UnsupportedError(`${name}: is sealed in the way of a version that never was; it is damaged or forged`);
  if (found.parentName !== path.basename(found.parentName)) {
    throw new FormatError(what, 'parent name', 96, `${JSON.stringify(found.parentName)} is not a plain file name`);
  }
  return found;
}

function checkVersion(name: string, versionMajor: number): void {
  if (versionMajor >= format.plainVersion && versionMajor <= format.formatVersion) return;
  throw new UnsupportedError(
    `${name}: is an image of format version ${versionMajor}; this Veneer reads versions up to ${format.formatVersion}`,
  );
}

function parseCommit(name: string, block: Uint8Array, fileSizeBytes: number): format.Commit {
  if (Buffer.from(block.subarray(0, 8)).toString('latin1') !== 'VENEERCM') {
    throw new FormatError(
      name,
      'commit',
      fileSizeBytes - format.commitBytes,
      'is missing; the image is truncated or was never finished',
    );
  }
  checkCrc32c(block, format.commit.offsetOf('crc32c'), `${name}: commit`);
  const found = format.commit.parse(block);
  checkVersion(name, found.versionMajor);
  if (found.fileSizeBytes !== BigInt(fileSizeBytes)) {
    throw new FormatError(
      `${name}: commit`,
      'file size',
      48,
      `${found.fileSizeBytes}, but the file has ${fileSizeBytes} bytes`,
    );
  }
  return found;
}

function describe(
  name: string,
  first: format.Superblock,
  last: format.Commit,
  lastBlock: Uint8Array,
): ImageDescription {
  const kind = pick(name, 'kind', 12, format.imageKinds, first.kind);
  const sourceSizeBytes = format.narrow(
    `${name}: superblock`,
    'disk size',
    80,
    first.sourceSizeBytes,
    format.maxSourceBytes,
  );
  const isConsolidated = kind === 'consolidated';
  if (isConsolidated && first.versionMajor === format.plainVersion)
    throw new UnsupportedError(
      `${name}: is consolidated in the way of a version that never was; it is damaged or forged`,
    );
  const visibleBytes =
    first.versionMajor === format.plainVersion
      ? sourceSizeBytes
      : format.narrow(`${name}: superblock`, 'visible size', 352, first.visibleBytes, sourceSizeBytes);
  const commitHash = createHash('sha256').update(lastBlock).digest('hex');
  const count = (field: string, offset: number, value: bigint): number =>
    format.narrow(`${name}: commit`, field, offset, value, Math.ceil(sourceSizeBytes / first.blockBytes));
  return {
    kind,
    content: pick(name, 'content', 13, format.imageContents, first.content),
    codec: pick(name, 'codec', 14, format.codecs, first.codec),
    chainId: first.chainId,
    imageId: first.imageId,
    parent:
      kind === 'full' || (isConsolidated && first.parentId === nilGuid)
        ? undefined
        : { imageId: first.parentId, name: first.parentName, commitHash: hex(last.parentCommitHash) },
    sequence: first.sequence,
    blockBytes: first.blockBytes,
    logicalSectorBytes: first.logicalSectorBytes,
    physicalSectorBytes: first.physicalSectorBytes,
    sourceSizeBytes,
    visibleBytes,
    createdAt: new Date(format.narrow(`${name}: superblock`, 'time', 88, first.createdAtMs, 8.64e15)),
    sealed: first.sealSuite !== 0,
    fileSizeBytes: Number(last.fileSizeBytes),
    dataBlocks: count('data blocks', 88, last.dataBlocks),
    zeroBlocks: count('zero blocks', 96, last.zeroBlocks),
    discardedBlocks: count('discarded blocks', 104, last.discardedBlocks),
    storedBytes: format.narrow(`${name}: commit`, 'stored bytes', 112, last.storedBytes, Number(last.fileSizeBytes)),
    commitHash,
    lineageHash: isConsolidated ? hex(last.standsForHash) : commitHash,
  };
}

function pick<T>(name: string, field: string, offset: number, names: readonly T[], index: number): T {
  const found = names[index];
  if (found === undefined) throw new FormatError(`${name}: superblock`, field, offset, `${index} is unknown`);
  return found;
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
