/**
 * Makes an image of a source disk, on all cores.
 *
 * Crash order: until step 4 the file is IMAGE.veneer-part, which is never opened as an image.
 * 1. superblock; key blocks of an encrypted image
 * 2. records and leaves, by all threads; then pages, the root, and the provenance of an encrypted image
 * 3. fdatasync; commit block; fdatasync
 * 4. rename to IMAGE; fsync of the folder
 */
import * as fs from '../../base/fs.ts';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { commitFile, unfinishedPathOf } from '../../base/durable.ts';
import { CapacityError, UnavailableError, UsageError } from '../../base/errors.ts';
import { absolutePath } from '../../base/given-names.ts';
import { bytesOfName } from '../../base/names.ts';
import { closeAll, closing } from '../../base/ownership.ts';
import { isPowerOfTwo } from '../../base/ranges.ts';
import { isSameFile } from '../../base/same-file.ts';
import { workerUrl } from '../../base/worker-url.ts';
import { runTeam } from '../../base/worker-team.ts';
import { nilGuid, randomGuid, type Guid } from '../../bytes/guid.ts';
import { openFileDisk } from '../../disk/file.ts';
import { mergeRanges, type ByteRange } from '../../disk/byte-ranges.ts';
import { KeyRing } from '../crypto/key-ring.ts';
import { KeySlots, type Credential } from '../crypto/key-slots.ts';
import { ChainKey } from '../crypto/seal.ts';
import type { ImageDescription } from '../format/image-description.ts';
import * as format from '../format/layout.ts';
import { openChain } from '../read/chain.ts';
import { Image } from '../read/image.ts';
import { writeLeaves, type CreateJob, type OpenSource } from './create-leaves.ts';
import { finishImage, noHash, startImage, writeMap } from './finish-image.ts';
import type { WrittenLeaf } from './leaf-writer.ts';
import { assertMayReplaceImage } from './replaced-image.ts';
import { writeUnfinished } from './unfinished-image.ts';

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
  /** A source that has another size, or comes to have one while it is read, is refused; else growth is only left out. */
  readonly steadyBytes?: number;
  /** Needs a parent: what may differ from it; nothing else of the source is read. */
  readonly changed?: readonly ByteRange[];
  /** Begins an encrypted chain, which this opens. An incremental is encrypted as its parent is. */
  readonly encrypt?: Credential;
  /** For an incremental on an encrypted chain. */
  readonly keys?: KeyRing;
  /** Replace an image that is already there. */
  readonly force?: boolean;
  /** Why an image that would be replaced must stay; undefined where it need not. */
  readonly whyNeeded?: (image: ImageDescription) => string | undefined;
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
  await writeUnfinished(
    imagePath,
    () => assertMayWrite(imagePath, options),
    (fd) => writeImage(fd, imagePath, plan, options),
    options.parent === undefined ? [] : [options.parent],
  );
  using image = closing(Image.open(imagePath));
  return image.value.description;
}

function assertMayWrite(imagePath: string, options: CreateOptions): void {
  if (options.force !== true && fs.existsSync(imagePath))
    throw new UsageError(`${imagePath}: exists already; choose another name, or replace it with --force`);
  assertMayReplaceImage(imagePath, options.whyNeeded);
}

interface Plan {
  readonly superblock: format.Superblock;
  readonly parentCommitHash: Uint8Array;
  /** Of an encrypted image. */
  readonly seal: { readonly key: ChainKey; readonly slots: KeySlots } | undefined;
  readonly job: Omit<CreateJob, 'fd' | 'name'>;
  readonly leafCount: number;
}

function planImage(sourcePath: string, imagePath: string, options: CreateOptions): Plan {
  for (const target of [imagePath, unfinishedPathOf(imagePath)]) {
    if (isSameFile(target, sourcePath)) throw new UsageError(`${target}: is the source itself; choose another name`);
  }
  using source = closing((options.source ?? rawSource).open(sourcePath, options.sourceFormat));
  const { sizeBytes } = source.value;
  if (sizeBytes === 0) throw new UsageError(`${sourcePath}: is empty; there is nothing to make an image of`);
  if (sizeBytes > format.maxSourceBytes)
    throw new UsageError(`${sourcePath}: is larger than 1 PiB, the largest disk an image can hold`);
  requireSteady(sizeBytes, sourcePath, options);
  if (options.changed !== undefined && options.parent === undefined) {
    throw new UsageError('--changed needs --parent: it says what differs from the parent');
  }
  const parent = options.parent === undefined ? undefined : describeParent(options.parent, imagePath, options);
  const blockBytes = parent?.blockBytes ?? options.blockBytes ?? format.defaultBlockBytes;
  if (!isPowerOfTwo(blockBytes) || blockBytes < format.minBlockBytes || blockBytes > format.maxBlockBytes) {
    throw new UsageError(`block size ${blockBytes}: choose a power of two from 16 KiB to 1 MiB`);
  }
  const leafSpan = format.leafEntries * blockBytes;
  const chainId = parent?.chainId ?? randomGuid();
  const seal = parent === undefined ? newSeal(chainId, options) : parent.seal;
  if (seal !== undefined && sizeBytes > format.maxSealedLeaves * leafSpan) {
    throw new CapacityError(
      `${sourcePath}: one key seals at most 2^32 blocks of ${blockBytes} bytes, which is less than this disk; make a full image with larger blocks`,
    );
  }
  const codec = options.codec ?? parent?.codec ?? 'zstd';
  const sequence = parent === undefined ? 0 : parent.sequence + 1;
  const imageId = randomGuid();
  return {
    superblock: {
      versionMajor: seal === undefined ? format.plainVersion : format.formatVersion,
      versionMinor: 0,
      kind: format.imageKinds.indexOf(parent === undefined ? 'full' : 'incremental'),
      content: format.imageContents.indexOf(parent?.content ?? options.content ?? 'disk'),
      codec: format.codecs.indexOf(codec),
      sealSuite: seal === undefined ? 0 : 1,
      chainId,
      imageId,
      parentId: parent?.imageId ?? nilGuid,
      sequence,
      blockBytes,
      logicalSectorBytes: parent?.logicalSectorBytes ?? 512,
      physicalSectorBytes: parent?.physicalSectorBytes ?? 4096,
      sourceSizeBytes: BigInt(sizeBytes),
      createdAtMs: BigInt(Date.now()),
      parentName: options.parent === undefined ? '' : path.basename(options.parent),
      visibleBytes: seal === undefined ? 0n : BigInt(sizeBytes),
      crc32c: 0,
    },
    parentCommitHash: parent === undefined ? noHash : Buffer.from(parent.lineageHash, 'hex'),
    seal,
    job: {
      sourcePath,
      sourceFormat: options.sourceFormat,
      sizeBytes,
      parentPath: options.parent,
      changed: options.changed === undefined ? undefined : mergeRanges(options.changed),
      blockBytes,
      codec,
      sequence,
      seal: seal === undefined ? undefined : { key: seal.key.toThread(), imageId },
      nextFree: new BigInt64Array(new SharedArrayBuffer(8)).fill(BigInt(format.dataOffset(seal !== undefined))),
      nextLeaf: new Int32Array(new SharedArrayBuffer(4)),
    },
    leafCount: Math.ceil(sizeBytes / leafSpan),
  };
}

function requireSteady(sizeBytes: number, sourcePath: string, { steadyBytes }: CreateOptions): void {
  if (steadyBytes === undefined || sizeBytes === steadyBytes) return;
  throw new UnavailableError(
    `${sourcePath}: changed its size from ${steadyBytes} to ${sizeBytes} bytes while it was read; try again when it keeps it`,
    { retryable: true },
  );
}

/** The size that it has by now. */
function sizeNow(sourcePath: string, { source, sourceFormat }: CreateOptions): number {
  using disk = closing((source ?? rawSource).open(sourcePath, sourceFormat));
  return disk.value.sizeBytes;
}

function newSeal(chainId: Guid, { encrypt }: CreateOptions): Plan['seal'] {
  if (encrypt === undefined) return undefined;
  const key = ChainKey.random(chainId);
  return { key, slots: KeySlots.first(key, encrypt) };
}

/** Opens the whole parent chain once, so that a broken one is found before anything is written. */
function describeParent(
  parentPath: string,
  imagePath: string,
  options: CreateOptions,
): ImageDescription & Pick<Plan, 'seal'> {
  if (absolutePath(path.dirname(parentPath)) !== absolutePath(path.dirname(imagePath))) {
    throw new UsageError(
      `${imagePath}: must lie in the folder of its parent ${parentPath}; a chain is kept in one folder`,
    );
  }
  if (bytesOfName(path.basename(parentPath)).length > format.maxParentNameBytes) {
    throw new UsageError(`${parentPath}: the file name is too long for a parent`);
  }
  const images = openChain(parentPath);
  try {
    const [newest] = images;
    if (newest === undefined) throw new UsageError(`${parentPath}: is not an image`);
    if (!newest.description.sealed && options.encrypt !== undefined)
      throw new UsageError(`${parentPath}: its chain is not encrypted; make a full image to begin an encrypted one`);
    assertMayExtend(images, newest.description, parentPath, imagePath, options);
    const key = newest.description.sealed ? (options.keys ?? new KeyRing()).require(newest) : undefined;
    if (key !== undefined) newest.checkSignature(key);
    return { ...newest.description, seal: key === undefined ? undefined : { key, slots: newest.readKeySlots() } };
  } finally {
    closeAll(images);
  }
}

function assertMayExtend(
  images: readonly Image[],
  newest: ImageDescription,
  parentPath: string,
  imagePath: string,
  options: CreateOptions,
): void {
  if (images.some((image) => isSameFile(image.path, imagePath))) {
    throw new UsageError(`${imagePath}: is itself in the chain of ${parentPath}; choose another name`);
  }
  if (images.length >= format.maxChainDepth || newest.sequence >= format.maxSequence) {
    throw new CapacityError(`${parentPath}: its chain of ${images.length} images takes no more; make a full image`);
  }
  if (options.blockBytes !== undefined && options.blockBytes !== newest.blockBytes) {
    throw new UsageError(
      `block size ${options.blockBytes}: the chain has blocks of ${newest.blockBytes} bytes; leave --block-size out`,
    );
  }
  if (options.content !== undefined && options.content !== newest.content) {
    throw new UsageError(`${parentPath}: is an image of a ${newest.content}; leave --volume out`);
  }
}

async function writeImage(fd: number, imagePath: string, plan: Plan, options: CreateOptions): Promise<void> {
  const name = unfinishedPathOf(imagePath);
  const { seal } = plan;
  const superblock = startImage(fd, name, plan.superblock, seal?.slots.encodeBoth());
  const leaves = await writeAllLeaves({ ...plan.job, fd, name }, plan, options);
  const { sourcePath } = plan.job;
  if (options.steadyBytes !== undefined) requireSteady(sizeNow(sourcePath, options), sourcePath, options);
  const endBytes = Number(Atomics.load(plan.job.nextFree, 0));
  finishImage(
    { fd, name, endBytes },
    {
      superblock,
      leaves,
      parentCommitHash: plan.parentCommitHash,
      standsForHash: noHash,
      writeProvenance: seal === undefined ? undefined : (append) => writeMap(leaves, append),
      key: seal?.key,
    },
  );
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
