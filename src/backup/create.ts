/**
 * Makes an image of a source disk, on all cores.
 *
 * Crash order: until step 4 the file is IMAGE.part, which is never opened as an image.
 * 1. superblock
 * 2. records and leaves, by all threads; then pages and the root
 * 3. fdatasync; commit block; fdatasync
 * 4. rename to IMAGE; fsync of the folder
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { commitFile, flushFile, openUnfinished, resizeFile, unfinishedSuffix } from '../base/durable.ts';
import { CapacityError, UsageError } from '../base/errors.ts';
import { lockExclusively } from '../base/file-lock.ts';
import { writeFully } from '../base/full-io.ts';
import { closing } from '../base/ownership.ts';
import { isPowerOfTwo } from '../base/ranges.ts';
import { isSameFile } from '../base/same-file.ts';
import { workerUrl } from '../base/worker-url.ts';
import { runTeam } from '../base/worker-team.ts';
import { crc32c, sealCrc32c } from '../bytes/checksum.ts';
import { nilGuid, randomGuid } from '../bytes/guid.ts';
import { openFileDisk } from '../disk/file.ts';
import { mergeRanges, type ByteRange } from './changed-ranges.ts';
import { openChain } from './chain.ts';
import { writeLeaves, type CreateJob, type OpenSource } from './create-leaves.ts';
import { Image, type ImageDescription } from './image.ts';
import type { WrittenLeaf } from './leaf-writer.ts';
import * as format from './layout.ts';

/** How a creation reads its source. */
export interface SourceKind {
  readonly open: OpenSource;
  /** The worker module whose threads open it in the same way. */
  readonly workerUrl: URL;
}

const rawSource: SourceKind = { open: openFileDisk, workerUrl: workerUrl(import.meta.url, './create-worker') };

export interface CreateOptions {
  /** Default: a raw file or block device. */
  readonly source?: SourceKind;
  /** For sources of which the name does not tell the format. */
  readonly sourceFormat?: string;
  /** Default 'zstd', or the parent's. */
  readonly codec?: format.Codec;
  /** Default 64 KiB; in an incremental the chain's, always. */
  readonly blockBytes?: number;
  /** Default 'disk'; in an incremental the chain's, always. */
  readonly content?: format.ImageContent;
  /** The newest image of the chain to add to. It must lie in the new image's folder. */
  readonly parent?: string;
  /** Needs a parent: what may differ from it; nothing else of the source is read. */
  readonly changed?: readonly ByteRange[];
  /** Replace an image that is already there. */
  readonly force?: boolean;
  /** Threads; default: one for each leaf, at most one for each core. */
  readonly threads?: number;
  readonly onProgress?: (progress: Progress) => void;
}

/** How far a creation is, in bytes of the source. */
export interface Progress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** So few leaves are done before a thread has started. */
const leavesWithoutThreads = 2;
const progressEveryMs = 200;

/**
 * Makes `imagePath` from the raw file or block device at `sourcePath`.
 * @returns what the finished image says of itself, read back from it
 * @throws UsageError, UnavailableError, CapacityError; no unfinished file is left then, and what was there before is still there. Only
 * when the very last step fails, the fsync of the folder, is the image there, complete
 */
export async function createImage(
  sourcePath: string,
  imagePath: string,
  options: CreateOptions = {},
): Promise<ImageDescription> {
  assertMayWrite(imagePath, options);
  const plan = planImage(sourcePath, imagePath, options);
  const unfinished = imagePath + unfinishedSuffix;
  const fd = openUnfinished(imagePath, 'as it is');
  try {
    lockExclusively(fd, unfinished);
    assertStillUnfinished(fd, unfinished);
    try {
      assertMayWrite(imagePath, options);
      resizeFile(fd, 0, unfinished);
      await writeImage(fd, imagePath, plan, options);
    } catch (error) {
      fs.rmSync(unfinished, { force: true });
      throw error;
    }
  } finally {
    fs.closeSync(fd);
  }
  using image = closing(Image.open(imagePath));
  return image.value.description;
}

function assertMayWrite(imagePath: string, options: CreateOptions): void {
  if (options.force === true || !fs.existsSync(imagePath)) return;
  throw new UsageError(`${imagePath}: exists already; choose another name, or replace it with --force`);
}

/** Whoever had the lock before us may have renamed the file, which is a finished image then, or removed it. */
function assertStillUnfinished(fd: number, unfinished: string): void {
  const ours = fs.fstatSync(fd, { bigint: true });
  const named = fs.statSync(unfinished, { bigint: true, throwIfNoEntry: false });
  if (named?.dev === ours.dev && named.ino === ours.ino) return;
  throw new UsageError(`${unfinished}: another process has just finished it; look at what it made, or run it again`);
}

interface Plan {
  readonly superblock: format.Superblock;
  readonly parentCommitHash: Uint8Array;
  readonly job: Omit<CreateJob, 'fd' | 'name'>;
  readonly leafCount: number;
}

function planImage(sourcePath: string, imagePath: string, options: CreateOptions): Plan {
  for (const target of [imagePath, imagePath + unfinishedSuffix]) {
    if (isSameFile(target, sourcePath)) throw new UsageError(`${target}: is the source itself; choose another name`);
  }
  using source = closing((options.source ?? rawSource).open(sourcePath, options.sourceFormat));
  const { sizeBytes } = source.value;
  if (sizeBytes === 0) throw new UsageError(`${sourcePath}: is empty; there is nothing to make an image of`);
  if (sizeBytes > format.maxSourceBytes)
    throw new UsageError(`${sourcePath}: is larger than 1 PiB, the largest disk an image can hold`);
  if (options.changed !== undefined && options.parent === undefined) {
    throw new UsageError('--changed needs --parent: it says what differs from the parent');
  }
  const parent = options.parent === undefined ? undefined : describeParent(options.parent, imagePath, options);
  const blockBytes = parent?.blockBytes ?? options.blockBytes ?? format.defaultBlockBytes;
  if (!isPowerOfTwo(blockBytes) || blockBytes < format.minBlockBytes || blockBytes > format.maxBlockBytes) {
    throw new UsageError(`block size ${blockBytes}: choose a power of two from 16 KiB to 1 MiB`);
  }
  const codec = options.codec ?? parent?.codec ?? 'zstd';
  const sequence = parent === undefined ? 0 : parent.sequence + 1;
  const leafSpan = format.leafEntries * blockBytes;
  return {
    superblock: {
      versionMajor: format.formatVersion,
      versionMinor: 0,
      kind: format.imageKinds.indexOf(parent === undefined ? 'full' : 'incremental'),
      content: format.imageContents.indexOf(parent?.content ?? options.content ?? 'disk'),
      codec: format.codecs.indexOf(codec),
      sealSuite: 0,
      chainId: parent?.chainId ?? randomGuid(),
      imageId: randomGuid(),
      parentId: parent?.imageId ?? nilGuid,
      sequence,
      blockBytes,
      logicalSectorBytes: parent?.logicalSectorBytes ?? 512,
      physicalSectorBytes: parent?.physicalSectorBytes ?? 4096,
      sourceSizeBytes: BigInt(sizeBytes),
      createdAtMs: BigInt(Date.now()),
      parentName: options.parent === undefined ? '' : path.basename(options.parent),
      keySlots: new Uint8Array(2032),
      crc32c: 0,
    },
    parentCommitHash: parent === undefined ? new Uint8Array(32) : Buffer.from(parent.commitHash, 'hex'),
    job: {
      sourcePath,
      sourceFormat: options.sourceFormat,
      sizeBytes,
      parentPath: options.parent,
      changed: options.changed === undefined ? undefined : mergeRanges(options.changed),
      blockBytes,
      codec,
      sequence,
      nextFree: new BigInt64Array(new SharedArrayBuffer(8)).fill(BigInt(format.superblockBytes)),
      nextLeaf: new Int32Array(new SharedArrayBuffer(4)),
    },
    leafCount: Math.ceil(sizeBytes / leafSpan),
  };
}

/** Opens the whole parent chain once, so that a broken one is found before anything is written. */
function describeParent(parentPath: string, imagePath: string, options: CreateOptions): ImageDescription {
  if (path.resolve(path.dirname(parentPath)) !== path.resolve(path.dirname(imagePath))) {
    throw new UsageError(
      `${imagePath}: must lie in the folder of its parent ${parentPath}; a chain is kept in one folder`,
    );
  }
  if (Buffer.byteLength(path.basename(parentPath)) > format.maxParentNameBytes) {
    throw new UsageError(`${parentPath}: the file name is too long for a parent`);
  }
  const images = openChain(parentPath);
  for (const image of images) image.close();
  const newest = images[0]?.description;
  if (newest === undefined) throw new UsageError(`${parentPath}: is not an image`);
  if (images.some((image) => isSameFile(image.path, imagePath))) {
    throw new UsageError(`${imagePath}: is itself in the chain of ${parentPath}; choose another name`);
  }
  if (images.length >= format.maxChainDepth || newest.sequence >= format.maxSequence) {
    throw new CapacityError(`${parentPath}: its chain of ${images.length} images takes no more; make a full image`);
  }
  if (newest.sealed) throw new UsageError(`${parentPath}: is encrypted; this version cannot add to an encrypted chain`);
  if (options.blockBytes !== undefined && options.blockBytes !== newest.blockBytes) {
    throw new UsageError(
      `block size ${options.blockBytes}: the chain has blocks of ${newest.blockBytes} bytes; leave --block-size out`,
    );
  }
  if (options.content !== undefined && options.content !== newest.content) {
    throw new UsageError(`${parentPath}: is an image of a ${newest.content}; leave --volume out`);
  }
  return newest;
}

async function writeImage(fd: number, imagePath: string, plan: Plan, options: CreateOptions): Promise<void> {
  const name = imagePath + unfinishedSuffix;
  const superblock = sealCrc32c(format.superblock.encode(plan.superblock), format.superblock.offsetOf('crc32c'));
  writeFully(fd, superblock, 0, name);
  const leaves = await writeAllLeaves({ ...plan.job, fd, name }, plan, options);
  let end = Number(Atomics.load(plan.job.nextFree, 0));
  const append = (bytes: Uint8Array): number => {
    const offset = end;
    writeFully(fd, bytes, offset, name);
    end += bytes.length;
    return offset;
  };
  const root = writePages(leaves, append);
  const rootOffset = append(root);
  flushFile(fd, name);
  const sum = (count: (leaf: WrittenLeaf) => number): bigint =>
    BigInt(leaves.reduce((total, leaf) => total + count(leaf), 0));
  const commit = format.commit.encode({
    versionMajor: format.formatVersion,
    sequence: plan.superblock.sequence,
    chainId: plan.superblock.chainId,
    imageId: plan.superblock.imageId,
    fileSizeBytes: BigInt(end + format.commitBytes),
    rootOffset: BigInt(rootOffset),
    rootBytes: BigInt(root.length),
    provenanceOffset: 0n,
    provenanceBytes: 0n,
    dataBlocks: sum((leaf) => leaf.dataBlocks),
    zeroBlocks: sum((leaf) => leaf.zeroBlocks),
    discardedBlocks: 0n,
    storedBytes: sum((leaf) => leaf.storedBytes),
    rootHash: sha256(root),
    provenanceHash: new Uint8Array(32),
    superblockHash: sha256(superblock),
    parentCommitHash: plan.parentCommitHash,
    standsForHash: new Uint8Array(32),
    hmac: new Uint8Array(32),
    crc32c: 0,
  });
  append(sealCrc32c(commit, format.commit.offsetOf('crc32c')));
  commitFile(fd, imagePath);
}

async function writeAllLeaves(job: CreateJob, plan: Plan, options: CreateOptions): Promise<WrittenLeaf[]> {
  const leaves: WrittenLeaf[] = [];
  const totalBytes = Number(plan.superblock.sourceSizeBytes);
  const report = (): void => {
    const doneLeaves = Math.min(Atomics.load(job.nextLeaf, 0), plan.leafCount);
    options.onProgress?.({
      doneBytes: Math.min(doneLeaves * format.leafEntries * job.blockBytes, totalBytes),
      totalBytes,
    });
  };
  const source = options.source ?? rawSource;
  const threads = Math.min(options.threads ?? availableParallelism(), plan.leafCount);
  if (plan.leafCount <= leavesWithoutThreads || threads === 1) {
    writeLeaves(job, source.open, (leaf) => leaves.push(leaf));
  } else {
    const timer = setInterval(report, progressEveryMs);
    try {
      await runTeam<WrittenLeaf>(source.workerUrl, threads, job, (leaf) => leaves.push(leaf));
    } finally {
      clearInterval(timer);
    }
  }
  report();
  return leaves.sort((a, b) => a.leafNumber - b.leafNumber);
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
