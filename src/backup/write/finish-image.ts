/**
 * The end of an image that is being written: pages, root, provenance, and the commit, without which the file is no image.
 *
 * Crash order: everything is flushed before the commit is written, and the commit before the file gets its name (by the caller).
 */
import { createHash } from 'node:crypto';
import { flushFile } from '../../base/durable.ts';
import { writeFully } from '../../base/full-io.ts';
import { crc32c, sealCrc32c } from '../../bytes/checksum.ts';
import { commitSignature } from '../crypto/commit-signature.ts';
import type { ChainKey } from '../crypto/seal.ts';
import * as format from '../format/layout.ts';
import { encodeStates } from '../format/provenance.ts';
import type { WrittenLeaf } from './leaf-writer.ts';

/** The file of an image that is being written. */
export interface UnfinishedImage {
  readonly fd: number;
  readonly name: string;
  /** Where superblock, key blocks, records and leaves end. */
  readonly endBytes: number;
}

export interface ImageEnd {
  /** As it stands in the file. */
  readonly superblock: Uint8Array;
  /** In the order of their numbers. */
  readonly leaves: readonly WrittenLeaf[];
  readonly parentCommitHash: Uint8Array;
  /** Zero but in a consolidated image. */
  readonly standsForHash: Uint8Array;
  /** Writes the provenance piece by piece; undefined where there is none. */
  readonly writeProvenance: ((append: (bytes: Uint8Array) => void) => void) | undefined;
  /** Signs the commit of an encrypted image. */
  readonly key: ChainKey | undefined;
}

export const noHash = new Uint8Array(32);

/** Writes the superblock, as it will be hashed, and the key blocks. */
export function startImage(
  fd: number,
  name: string,
  superblock: format.Superblock,
  keyBlocks?: Uint8Array,
): Uint8Array {
  const bytes = sealCrc32c(format.superblock.encode(superblock), format.superblock.offsetOf('crc32c'));
  writeFully(fd, keyBlocks === undefined ? bytes : Buffer.concat([bytes, keyBlocks]), 0, name);
  return bytes;
}

/** @throws CapacityError, UnavailableError */
export function finishImage({ fd, name, endBytes }: UnfinishedImage, image: ImageEnd): void {
  const { leaves } = image;
  let end = endBytes;
  const append = (bytes: Uint8Array): number => {
    const offset = end;
    writeFully(fd, bytes, offset, name);
    end += bytes.length;
    return offset;
  };
  const root = writePages(leaves, append);
  const rootOffset = append(root);
  const provenanceOffset = end;
  const provenanceHash = createHash('sha256');
  image.writeProvenance?.((bytes) => {
    append(bytes);
    provenanceHash.update(bytes);
  });
  const hasProvenance = image.writeProvenance !== undefined;
  const provenanceBytes = end - provenanceOffset;
  flushFile(fd, name);
  const sum = (count: (leaf: WrittenLeaf) => number): bigint =>
    BigInt(leaves.reduce((total, leaf) => total + count(leaf), 0));
  const superblock = format.superblock.parse(image.superblock);
  const commit = format.commit.encode({
    versionMajor: superblock.versionMajor,
    sequence: superblock.sequence,
    chainId: superblock.chainId,
    imageId: superblock.imageId,
    fileSizeBytes: BigInt(end + format.commitBytes),
    rootOffset: BigInt(rootOffset),
    rootBytes: BigInt(root.length),
    provenanceOffset: BigInt(hasProvenance ? provenanceOffset : 0),
    provenanceBytes: BigInt(provenanceBytes),
    dataBlocks: sum((leaf) => leaf.dataBlocks),
    zeroBlocks: sum((leaf) => leaf.zeroBlocks),
    discardedBlocks: 0n,
    storedBytes: sum((leaf) => leaf.storedBytes),
    rootHash: sha256(root),
    provenanceHash: hasProvenance ? provenanceHash.digest() : noHash,
    superblockHash: sha256(image.superblock),
    parentCommitHash: image.parentCommitHash,
    standsForHash: image.standsForHash,
    hmac: noHash,
    crc32c: 0,
  });
  if (image.key !== undefined) commit.set(commitSignature(commit, image.key), format.commit.offsetOf('hmac'));
  append(sealCrc32c(commit, format.commit.offsetOf('crc32c')));
}

/** The map of an encrypted image's positions: what its provenance is. */
export function writeMap(leaves: readonly WrittenLeaf[], append: (bytes: Uint8Array) => void): void {
  let pending: Uint8Array[] = [];
  let pendingBytes = 0;
  const flush = (): void => {
    append(Buffer.concat(pending));
    pending = [];
    pendingBytes = 0;
  };
  for (const { leafNumber, states } of leaves) {
    const entry = encodeStates(leafNumber, states);
    pending.push(entry);
    pendingBytes += entry.length;
    if (pendingBytes >= format.writeBatchBytes) flush();
  }
  if (pendingBytes > 0) flush();
}

/** Writes the pages that hold something and returns the root over them. */
function writePages(leaves: readonly WrittenLeaf[], append: (bytes: Uint8Array) => number): Uint8Array {
  const pages = new Map<number, Uint8Array>();
  for (const leaf of leaves) {
    const pageNumber = Math.floor(leaf.leafNumber / format.pageReferences);
    const page = pages.get(pageNumber) ?? new Uint8Array(format.pageBytes);
    pages.set(pageNumber, page);
    const at = (leaf.leafNumber % format.pageReferences) * format.pageReferenceBytes;
    const { offset, crc32c: leafCrc32c, dataBlocks } = leaf;
    format.pageReference.encode({ leafOffset: BigInt(offset), leafCrc32c, dataBlocks }, page, at);
  }
  const root = new Uint8Array(pages.size * format.rootEntryBytes);
  let at = 0;
  for (const [pageNumber, page] of pages) {
    const entry = { pageNumber, pageCrc32c: crc32c(page), pageOffset: BigInt(append(page)) };
    format.rootEntry.encode(entry, root, at);
    at += format.rootEntryBytes;
  }
  return root;
}

function sha256(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}
