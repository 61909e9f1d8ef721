/**
 * Images put together by hand, with every checksum right, so that a lie in any field is met by the check of that field and not by a
 * checksum. Also: where the structures of an image lie.
 */
import { createHash } from 'node:crypto';
import { crc32c, sealCrc32c } from '../../src/bytes/checksum.ts';
import { nilGuid, type Guid } from '../../src/bytes/guid.ts';
import type { Decoded } from '../../src/bytes/layout.ts';
import * as format from '../../src/backup/format/layout.ts';

type RecordHeader = Decoded<typeof format.recordHeader>;
type PageReference = Decoded<typeof format.pageReference>;
type RootEntry = Decoded<typeof format.rootEntry>;

/** What a block is stored as. */
export type CraftedBlock = { readonly codec: format.Codec; readonly stored: Uint8Array } | 'zero' | 'discarded';

/** Each is called with the structure as it should be, and says what to write; checksums above it are made afterwards. */
export interface Lies {
  readonly superblock?: (honest: format.Superblock) => format.Superblock;
  readonly recordHeader?: (honest: RecordHeader) => RecordHeader;
  readonly entry?: (honest: format.LeafEntry) => format.LeafEntry;
  readonly page?: (honest: PageReference) => PageReference;
  readonly root?: (honest: RootEntry) => RootEntry;
  readonly commit?: (honest: format.Commit) => format.Commit;
}

export interface Crafted {
  readonly bytes: Buffer;
  readonly imageId: Guid;
  /** Hex, as a child remembers it. */
  readonly commitHash: string;
}

export interface CraftedParent {
  readonly imageId: Guid;
  readonly name: string;
  readonly commitHash: string;
}

export interface CraftOptions {
  readonly blocks: ReadonlyMap<number, CraftedBlock>;
  readonly sizeBytes: number;
  readonly blockBytes?: number;
  readonly imageId?: Guid;
  readonly sequence?: number;
  readonly parent?: CraftedParent;
  readonly lies?: Lies;
}

const chainId = '11111111-2222-4333-8444-555555555555';

/** A GUID that tells images of a test apart. */
export function numberedGuid(number: number): Guid {
  return `00000000-0000-4000-8000-${number.toString(16).padStart(12, '0')}`;
}

export function craftImage(options: CraftOptions): Crafted {
  const { lies = {}, parent } = options;
  const blockBytes = options.blockBytes ?? format.minBlockBytes;
  const sequence = options.sequence ?? (parent === undefined ? 0 : 1);
  const imageId = options.imageId ?? numberedGuid(sequence + 1);
  const honestSuperblock: format.Superblock = {
    versionMajor: format.plainVersion,
    versionMinor: 0,
    kind: format.imageKinds.indexOf(parent === undefined ? 'full' : 'incremental'),
    content: 0,
    codec: format.codecs.indexOf('zstd'),
    sealSuite: 0,
    chainId,
    imageId,
    parentId: parent?.imageId ?? nilGuid,
    sequence,
    blockBytes,
    logicalSectorBytes: 512,
    physicalSectorBytes: 4096,
    sourceSizeBytes: BigInt(options.sizeBytes),
    createdAtMs: 1_700_000_000_000n,
    parentName: parent?.name ?? '',
    visibleBytes: 0n,
    crc32c: 0,
  };
  const superblock = sealCrc32c(
    format.superblock.encode((lies.superblock ?? same)(honestSuperblock)),
    format.superblock.offsetOf('crc32c'),
  );
  const parts: Uint8Array[] = [superblock];
  let end = superblock.length;
  const append = (bytes: Uint8Array): number => {
    parts.push(bytes);
    end += bytes.length;
    return end - bytes.length;
  };

  const leaves = new Map<number, Uint8Array>();
  let storedBytes = 0;
  for (const [position, block] of options.blocks) {
    const leafNumber = Math.floor(position / format.leafEntries);
    const leaf = leaves.get(leafNumber) ?? new Uint8Array(format.leafBytes);
    leaves.set(leafNumber, leaf);
    let entry: format.LeafEntry = {
      offset: 0n,
      storedBytes: 0,
      originSequence: sequence,
      crc32c: 0,
      state: typeof block === 'string' ? format.blockState[block] : format.blockState.data,
      codec: 0,
      flags: 0,
    };
    if (typeof block !== 'string') {
      const codec = format.codecs.indexOf(block.codec);
      const record = craftRecord(block.stored, { position, sequence, codec }, lies.recordHeader ?? same);
      storedBytes += block.stored.length;
      const stored = block.stored.length;
      const checksum = Buffer.from(record).readUInt32LE(0);
      entry = { ...entry, offset: BigInt(append(record)), storedBytes: stored, crc32c: checksum, codec };
    }
    const at = (position % format.leafEntries) * format.leafEntryBytes;
    format.leafEntry.encode((lies.entry ?? same)(entry), leaf, at);
  }

  const pages = new Map<number, Uint8Array>();
  for (const [leafNumber, leaf] of [...leaves].sort(([a], [b]) => a - b)) {
    const pageNumber = Math.floor(leafNumber / format.pageReferences);
    const page = pages.get(pageNumber) ?? new Uint8Array(format.pageBytes);
    pages.set(pageNumber, page);
    const reference = { leafOffset: BigInt(append(leaf)), leafCrc32c: crc32c(leaf), dataBlocks: 1 };
    const at = (leafNumber % format.pageReferences) * format.pageReferenceBytes;
    format.pageReference.encode((lies.page ?? same)(reference), page, at);
  }
  const root = new Uint8Array(pages.size * format.rootEntryBytes);
  for (const [index, [pageNumber, page]] of [...pages].entries()) {
    const entry = { pageNumber, pageCrc32c: crc32c(page), pageOffset: BigInt(append(page)) };
    format.rootEntry.encode((lies.root ?? same)(entry), root, index * format.rootEntryBytes);
  }
  const rootOffset = append(root);
  const states = [...options.blocks.values()];
  const honestCommit: format.Commit = {
    versionMajor: format.plainVersion,
    sequence,
    chainId,
    imageId,
    fileSizeBytes: BigInt(end + format.commitBytes),
    rootOffset: BigInt(rootOffset),
    rootBytes: BigInt(root.length),
    provenanceOffset: 0n,
    provenanceBytes: 0n,
    dataBlocks: BigInt(states.filter((block) => typeof block !== 'string').length),
    zeroBlocks: BigInt(states.filter((block) => block === 'zero').length),
    discardedBlocks: BigInt(states.filter((block) => block === 'discarded').length),
    storedBytes: BigInt(storedBytes),
    rootHash: sha256(root),
    provenanceHash: new Uint8Array(32),
    superblockHash: sha256(superblock),
    parentCommitHash: parent === undefined ? new Uint8Array(32) : Buffer.from(parent.commitHash, 'hex'),
    standsForHash: new Uint8Array(32),
    hmac: new Uint8Array(32),
    crc32c: 0,
  };
  const commit = sealCrc32c(
    format.commit.encode((lies.commit ?? same)(honestCommit)),
    format.commit.offsetOf('crc32c'),
  );
  append(commit);
  return { bytes: Buffer.concat(parts), imageId, commitHash: sha256(commit).toString('hex') };
}

/** A block stored as it is. */
export function rawBlock(stored: Uint8Array): CraftedBlock {
  return { codec: 'none', stored };
}

export type StructureKind = 'superblock' | 'record header' | 'payload' | 'leaf' | 'page' | 'root' | 'commit';

export interface Structure {
  readonly kind: StructureKind;
  readonly offset: number;
  readonly length: number;
  /** Of a record: the block on the disk. */
  readonly position?: number;
}

/** Where everything lies in a sound image: all of its bytes, each in one structure. */
export function structuresOf(image: Buffer): Structure[] {
  const found: Structure[] = [{ kind: 'superblock', offset: 0, length: format.superblockBytes }];
  const commitOffset = image.length - format.commitBytes;
  const commit = format.commit.parse(image, commitOffset);
  const rootOffset = Number(commit.rootOffset);
  const rootBytes = Number(commit.rootBytes);
  for (let rootAt = rootOffset; rootAt < rootOffset + rootBytes; rootAt += format.rootEntryBytes) {
    const { pageNumber, pageOffset } = format.rootEntry.parse(image, rootAt);
    const pageAt = Number(pageOffset);
    found.push({ kind: 'page', offset: pageAt, length: format.pageBytes });
    for (let index = 0; index < format.pageReferences; index++) {
      const { leafOffset } = format.pageReference.parse(image, pageAt + index * format.pageReferenceBytes);
      if (leafOffset === 0n) continue;
      found.push({ kind: 'leaf', offset: Number(leafOffset), length: format.leafBytes });
      found.push(...recordsOf(image, Number(leafOffset), pageNumber * format.pageReferences + index));
    }
  }
  if (rootBytes > 0) found.push({ kind: 'root', offset: rootOffset, length: rootBytes });
  found.push({ kind: 'commit', offset: commitOffset, length: format.commitBytes });
  return found.sort((a, b) => a.offset - b.offset);
}

function recordsOf(image: Buffer, leafAt: number, leafNumber: number): Structure[] {
  const found: Structure[] = [];
  for (let index = 0; index < format.leafEntries; index++) {
    const entry = format.leafEntry.parse(image, leafAt + index * format.leafEntryBytes);
    if (entry.state !== format.blockState.data) continue;
    const offset = Number(entry.offset);
    const position = leafNumber * format.leafEntries + index;
    const payload = offset + format.recordHeaderBytes;
    found.push({ kind: 'record header', offset, length: format.recordHeaderBytes, position });
    found.push({ kind: 'payload', offset: payload, length: entry.storedBytes, position });
  }
  return found;
}

function craftRecord(
  stored: Uint8Array,
  { position, sequence, codec }: { position: number; sequence: number; codec: number },
  lie: (honest: RecordHeader) => RecordHeader,
): Uint8Array {
  const record = Buffer.alloc(format.recordHeaderBytes + stored.length);
  const honest = {
    crc32c: 0,
    position: BigInt(position),
    storedBytes: stored.length,
    originSequence: sequence,
    codec,
    flags: 0,
  };
  format.recordHeader.encode(lie(honest), record);
  record.set(stored, format.recordHeaderBytes);
  record.writeUInt32LE(crc32c(record.subarray(4)), 0);
  return record;
}

function same<T>(honest: T): T {
  return honest;
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
