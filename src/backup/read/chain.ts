/**
 * A chain: an image and its parents, newest first, as one Disk.
 *
 * - Depth costs no recursion: a leaf is merged newest-first over all images on first touch, and the merged leaf is cached.
 * - A chain of mixed disk sizes (the disk was grown or shrunk between images) reads as its newest image says: what an older image holds
 *   beyond the end of a newer one is gone, and reads as zeros if the disk grew again later.
 */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import { assert, FormatError, UnavailableError } from '../../base/errors.ts';
import { isUnfinishedName } from '../../base/durable.ts';
import { closeAll } from '../../base/ownership.ts';
import { sourceGate } from '../../base/source-gate.ts';
import { MiB } from '../../base/units.ts';
import type { Guid } from '../../bytes/guid.ts';
import { checkRange, mergeExtents, type Disk, type Extent } from '../../disk/disk.ts';
import { KeyRing, noKeyError } from '../crypto/key-ring.ts';
import type { ChainKey } from '../crypto/seal.ts';
import { startsAsImage } from '../format/image-description.ts';
import * as format from '../format/layout.ts';
import { BlockCache, type ChainBlocks } from './block-cache.ts';
import { ChainIndex } from './chain-index.ts';
import { lockInUse } from './chain-lock.ts';
import { Image } from './image.ts';
import type { ChainIndexCache } from './index-cache.ts';
import type { MergedLeaf } from './index-cache.ts';
import { RecordOpener } from './record-opener.ts';
import { isStored, RecordReader } from './record-reader.ts';
import { VouchedLeaves } from './vouched-leaves.ts';

/** Of a chain that is opened for a job: it reads on and on, mostly whole blocks, and seldom comes back. */
const defaultCacheBytes = 2 * MiB;

/** Called with the path of each image before anything of it is read; throws to refuse it. */
export type JudgePath = (imagePath: string) => void;

/**
 * Opens the image at `newest` and all its parents, newest first. The caller closes them; until then nothing takes the chain away.
 * @throws UnavailableError when a parent is not in the image's folder
 * @throws FormatError when a parent is another than the one the image was made from, or the chain leads in a circle
 */
export function openChain(newest: string, judge: JudgePath = () => undefined): Image[] {
  judge(newest);
  const lock = lockInUse(newest);
  try {
    const images = openImages(newest, judge);
    images[0]?.own(lock);
    return images;
  } catch (error) {
    lock.close();
    throw error;
  }
}

/** As `openChain`, without a lock. */
export function openImages(newest: string, judge: JudgePath = () => undefined): Image[] {
  const images: Image[] = [];
  try {
    images.push(Image.open(newest));
    const folder = new ImageFolder(path.dirname(newest), judge);
    for (let child = images[0]; child?.description.parent !== undefined; child = images.at(-1)) {
      if (images.length >= format.maxChainDepth) {
        throw new FormatError(
          newest,
          'parent',
          48,
          `the chain is deeper than the limit of ${format.maxChainDepth} images; consolidate it`,
        );
      }
      images.push(openParent(child, folder));
    }
    return images;
  } catch (error) {
    closeAll(images);
    throw error;
  }
}

/**
 * Opens a chain for reading as one disk. Without the key of an encrypted chain all but the data can be had: reads of data throw
 * ForbiddenError.
 * @throws as openChain; VeneerError (INTEGRITY) when an encrypted image was not made by a holder of the key
 */
export function openChainDisk(
  newest: string,
  cache: BlockCache = BlockCache.ofOneThread(defaultCacheBytes),
  judge?: JudgePath,
  keys: KeyRing = new KeyRing(),
): ChainDisk {
  const images = openChain(newest, judge);
  try {
    return new ChainDisk(images, cache, keys);
  } catch (error) {
    closeAll(images);
    throw error;
  }
}

export class ChainDisk implements Disk {
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly images: readonly Image[];
  readonly #cache: ChainBlocks;
  readonly #index: ChainIndex;
  readonly #records: RecordReader;
  readonly #needsKey: boolean;
  readonly #noKeyGiven: boolean;
  #closed = false;

  /** @param images newest first; owned by the disk from now on */
  constructor(images: readonly Image[], cache: BlockCache, keys: KeyRing) {
    const newest = images[0]?.description;
    assert(newest !== undefined, 'a chain has no image');
    this.images = images;
    this.sizeBytes = newest.sourceSizeBytes;
    this.blockBytes = newest.blockBytes;
    const key = keyOf(images, keys);
    const openers = key === undefined ? undefined : openersOf(images, key);
    this.#needsKey = newest.sealed && key === undefined;
    this.#noKeyGiven = keys.isEmpty;
    this.#cache = cache.forChain(Buffer.from(newest.commitHash, 'hex'));
    const kept = cache.index.forChain();
    const vouched = key === undefined ? [] : vouchedLeavesOf(images, key, kept);
    this.#index = new ChainIndex(images, openers, vouched, kept);
    this.#records = new RecordReader(this.blockBytes, cache.sums, key);
  }

  /** Blocks that were asked for and found inflated, or of which the checksums of their pages were known. */
  get cacheHits(): number {
    return this.#cache.hits + this.#records.knownReads;
  }

  /** Blocks that were asked for and had to be read whole. */
  get cacheMisses(): number {
    return this.#cache.misses + this.#records.unknownReads;
  }

  /** @throws ForbiddenError when the chain is encrypted and its key is not there */
  requireKey(): void {
    const [newest] = this.images;
    if (newest !== undefined && this.#needsKey) throw noKeyError(newest.path, this.#noKeyGiven);
  }

  read(target: Uint8Array, offset: number): void {
    checkRange(this, offset, target.length);
    this.#records.start();
    for (let done = 0; done < target.length;) {
      const position = Math.floor((offset + done) / this.blockBytes);
      const within = offset + done - position * this.blockBytes;
      const length = Math.min(this.blockBytes - within, target.length - done);
      this.#readPart(target.subarray(done, done + length), position, within);
      done += length;
    }
    this.#records.finish();
  }

  extents(offset: number, length: number): Iterable<Extent> {
    checkRange(this, offset, length);
    return mergeExtents(this.#index.extents(offset, offset + length));
  }

  /** See ChainIndex.leaf. */
  mergedLeaf(leafNumber: number): MergedLeaf | undefined {
    return this.#index.leaf(leafNumber);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeAll([...this.images, this.#index, this.#cache]);
  }

  /** Whole blocks are made where they are wanted, with `finish` at the latest; of others, the rest is wanted soon and kept. */
  #readPart(target: Uint8Array, position: number, within: number): void {
    const found = this.#index.find(position);
    if (found === undefined) {
      target.fill(0);
    } else if (this.#needsKey) {
      throw noKeyError(found.image.path, this.#noKeyGiven);
    } else if (isStored(found)) {
      if (target.length === this.blockBytes) this.#records.add(found, target);
      else this.#records.readPages(found, within, target);
    } else if (!this.#cache.copy(position, this.blockBytes, within, target)) {
      if (target.length === this.blockBytes) this.#records.add(found, target);
      else {
        // Whoever makes the same block at this moment is waited for.
        sourceGate().require(found.image.source);
        this.#cache.load(position, this.blockBytes, within, target, (block) => this.#records.readBlock(found, block));
      }
    }
  }
}

/** Undefined in a plain chain, and where there is no key. */
function keyOf([newest]: readonly Image[], keys: KeyRing): ChainKey | undefined {
  return newest?.description.sealed === true ? keys.find(newest) : undefined;
}

/** @throws VeneerError (INTEGRITY) */
function openersOf(images: readonly Image[], key: ChainKey): RecordOpener[] {
  return images.map((image) => {
    image.checkSignature(key);
    return new RecordOpener(image, key);
  });
}

/** Of images that were consolidated: whoever did it had no key. @throws VeneerError (INTEGRITY), FormatError */
function vouchedLeavesOf(
  images: readonly Image[],
  key: ChainKey,
  kept: ChainIndexCache,
): (VouchedLeaves | undefined)[] {
  return images.map((image, index) =>
    image.description.kind === 'consolidated' ? new VouchedLeaves(image, index, key, kept) : undefined,
  );
}

function openParent(child: Image, folder: ImageFolder): Image {
  const wanted = child.description.parent;
  assert(wanted !== undefined, 'a full image has no parent');
  const parentPath = folder.find(wanted.imageId, wanted.name);
  if (parentPath === undefined) {
    throw new UnavailableError(
      `${child.path}: its parent ${JSON.stringify(wanted.name)} (image ${wanted.imageId}) is not in ${folder.path}; put it back beside it`,
      { retryable: true },
    );
  }
  const parent = Image.open(parentPath);
  const wrong = whyNotParent(child, parent);
  if (wrong === undefined) return parent;
  parent.close();
  throw new FormatError(child.path, 'parent', 48, `${parentPath} ${wrong}`);
}

function whyNotParent({ description: child }: Image, { description: parent }: Image): string | undefined {
  if (parent.chainId !== child.chainId) return 'belongs to another chain';
  if (parent.imageId !== child.parent?.imageId) return 'is another image than the one it was made from';
  if (parent.sequence >= child.sequence)
    return `is not older than it (sequence ${parent.sequence} and ${child.sequence}): the chain leads in a circle`;
  if (parent.blockBytes !== child.blockBytes) return 'has another block size';
  if (parent.lineageHash !== child.parent.commitHash) return 'has other contents than when it was made from it';
  if (parent.sealed !== child.sealed)
    return parent.sealed ? 'is encrypted, and it is not' : 'is not encrypted, and it is';
  return undefined;
}

/** The image of a folder that has this identity, whatever its name is by now; undefined when there is none. */
export function findImage(folder: string, imageId: Guid, judge: JudgePath): string | undefined {
  return new ImageFolder(folder, judge).find(imageId, '');
}

/** Images of one folder by identity: the name an image remembers of its parent is only where to look first. */
class ImageFolder {
  readonly path: string;
  readonly #judge: JudgePath;
  #byId: Map<Guid, string> | undefined;

  constructor(folder: string, judge: JudgePath) {
    this.path = folder;
    this.#judge = judge;
  }

  find(imageId: Guid, name: string): string | undefined {
    if (name !== '') {
      const hinted = path.join(this.path, name);
      if (fs.existsSync(hinted)) this.#judge(hinted);
      if (idOfImage(hinted) === imageId) return hinted;
    }
    return this.#scan().get(imageId);
  }

  #scan(): Map<Guid, string> {
    if (this.#byId !== undefined) return this.#byId;
    this.#byId = new Map();
    for (const entry of fs.readdirSync(this.path, { withFileTypes: true })) {
      if (!entry.isFile() || isUnfinishedName(entry.name)) continue;
      const imagePath = path.join(this.path, entry.name);
      const imageId = idOfImage(imagePath);
      if (imageId !== undefined) this.#byId.set(imageId, imagePath);
    }
    return this.#byId;
  }
}

/** The identity an image file claims, or undefined when it is none; the claim is checked when it is opened. */
function idOfImage(imagePath: string): Guid | undefined {
  const block = Buffer.alloc(format.superblockBytes);
  try {
    // Whatever else lies in the folder: a pipe must not be waited for.
    const fd = fs.openSync(imagePath, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    try {
      if (fs.readSync(fd, block, 0, block.length, 0) !== block.length || !startsAsImage(block)) return undefined;
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    return undefined;
  }
  return format.superblock.parse(block).imageId;
}
