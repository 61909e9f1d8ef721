/**
 * A chain: an image and its parents, newest first, as one Disk.
 *
 * - Depth costs no recursion: a leaf is merged newest-first over all images on first touch, and the merged leaf is cached.
 * - A chain of mixed disk sizes (the disk was grown or shrunk between images) reads as its newest image says: what an older image holds
 *   beyond the end of a newer one is gone, and reads as zeros if the disk grew again later.
 */
import fs from 'node:fs';
import path from 'node:path';
import { LRUCache } from 'lru-cache';
import { assert, FormatError, UnavailableError, UnsupportedError } from '../base/errors.ts';
import { unfinishedSuffix } from '../base/durable.ts';
import { closeAll } from '../base/ownership.ts';
import { MiB } from '../base/units.ts';
import type { Guid } from '../bytes/guid.ts';
import { checkRange, mergeExtents, type Disk, type Extent } from '../disk/disk.ts';
import { BlockCache, type Blocks, type ChainBlocks } from './block-cache.ts';
import { inflateBlock } from './codec.ts';
import { Image } from './image.ts';
import * as format from './layout.ts';

/** Memory for merged leaves of one chain (13 KiB for each 512 blocks). */
const leafBudgetBytes = 24 * MiB;
/** Memory for pages of one chain (4 KiB for each 8 GiB of disk and image). */
const pageBudgetBytes = 8 * MiB;

/** Called with the path of each image before anything of it is read; throws to refuse it. */
export type JudgePath = (imagePath: string) => void;

/**
 * Opens the image at `newest` and all its parents, newest first. The caller closes them.
 * @throws UnavailableError when a parent is not in the image's folder
 * @throws FormatError when a parent is another than the one the image was made from, or the chain leads in a circle
 */
export function openChain(newest: string, judge: JudgePath = () => undefined): Image[] {
  const images: Image[] = [];
  try {
    judge(newest);
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

/** Opens a chain for reading as one disk. */
export function openChainDisk(newest: string, cache: Blocks = new BlockCache(16 * MiB), judge?: JudgePath): ChainDisk {
  return new ChainDisk(openChain(newest, judge), cache);
}

interface MergedLeaf {
  /** 512 entries, each of the newest image that has one. */
  readonly entries: Uint8Array;
  /** Index into the chain of the image of each entry. */
  readonly images: Uint16Array;
}

/** Stands in the cache for a leaf that no image of the chain has. */
const emptyLeaf: MergedLeaf = { entries: new Uint8Array(0), images: new Uint16Array(0) };

/** The block as the chain has it: where its bytes are, or that it is zero. */
interface Found {
  readonly image: Image;
  readonly entry: format.LeafEntry;
}

export class ChainDisk implements Disk {
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly images: readonly Image[];
  readonly #cache: ChainBlocks;
  readonly #leaves = new LRUCache<number, MergedLeaf>({
    maxSize: leafBudgetBytes,
    sizeCalculation: () => format.leafBytes + 2 * format.leafEntries,
  });
  /** Pages by image index and page number. Where an image has no page, its root says so from memory. */
  readonly #pages = new LRUCache<string, Uint8Array>({
    maxSize: pageBudgetBytes,
    sizeCalculation: (page) => page.length,
  });
  readonly #scratch: Uint8Array;
  #closed = false;

  /** @param images newest first; owned by the disk from now on */
  constructor(images: readonly Image[], cache: Blocks) {
    const newest = images[0]?.description;
    assert(newest !== undefined, 'a chain has no image');
    this.images = images;
    this.sizeBytes = newest.sourceSizeBytes;
    this.blockBytes = newest.blockBytes;
    this.#cache = cache.forChain(Buffer.from(newest.commitHash, 'hex'));
    this.#scratch = new Uint8Array(format.recordHeaderBytes + newest.blockBytes + format.maxSealOverheadBytes);
  }

  /** Blocks that were asked for and found inflated. */
  get cacheHits(): number {
    return this.#cache.hits;
  }

  /** Blocks that were asked for and had to be read or were zero. */
  get cacheMisses(): number {
    return this.#cache.misses;
  }

  read(target: Uint8Array, offset: number): void {
    checkRange(this, offset, target.length);
    for (let done = 0; done < target.length;) {
      const position = Math.floor((offset + done) / this.blockBytes);
      const within = offset + done - position * this.blockBytes;
      const length = Math.min(this.blockBytes - within, target.length - done);
      this.#readPart(target.subarray(done, done + length), position, within);
      done += length;
    }
  }

  extents(offset: number, length: number): Iterable<Extent> {
    checkRange(this, offset, length);
    return mergeExtents(this.#extents(offset, offset + length));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#leaves.clear();
    this.#pages.clear();
    closeAll([...this.images, this.#cache]);
  }

  #readPart(target: Uint8Array, position: number, within: number): void {
    if (this.#cache.copy(position, this.blockBytes, within, target)) return;
    const found = this.#find(position);
    if (found === undefined) {
      target.fill(0);
    } else if (target.length === this.blockBytes) {
      this.#inflate(found, position, target);
    } else {
      this.#cache.load(position, this.blockBytes, within, target, (block) => this.#inflate(found, position, block));
    }
  }

  /** Undefined when the block reads as zeros. */
  #find(position: number): Found | undefined {
    const leafNumber = Math.floor(position / format.leafEntries);
    const index = position % format.leafEntries;
    const leaf = this.#leaf(leafNumber);
    if (leaf === undefined) return undefined;
    const state = leaf.entries[index * format.leafEntryBytes + stateOffset];
    if (format.readsAsZeros(state)) return undefined;
    const image = this.images[leaf.images[index] ?? 0];
    assert(image !== undefined, 'a merged leaf names an image that is not in the chain');
    if (state !== format.blockState.data)
      throw new FormatError(image.blockName(position), 'state', stateOffset, `${state} is unknown`);
    return { image, entry: format.leafEntry.parse(leaf.entries, index * format.leafEntryBytes) };
  }

  #inflate({ image, entry }: Found, position: number, target: Uint8Array): void {
    if ((entry.flags & format.sealedFlag) !== 0) {
      throw new UnsupportedError(`${image.path}: is encrypted; this version cannot read encrypted images`);
    }
    const codec = format.codecs[entry.codec];
    if (codec === undefined) throw new FormatError(image.blockName(position), 'codec', 21, `${entry.codec} is unknown`);
    const stored = image.readRecord(entry, position, this.#scratch);
    inflateBlock(codec, stored, target, image.blockName(position));
  }

  /** The merged leaf; undefined when no image has anything there. */
  #leaf(leafNumber: number): MergedLeaf | undefined {
    let leaf = this.#leaves.get(leafNumber);
    if (leaf === undefined) {
      leaf = this.#mergeLeaf(leafNumber) ?? emptyLeaf;
      this.#leaves.set(leafNumber, leaf);
    }
    return leaf === emptyLeaf ? undefined : leaf;
  }

  #mergeLeaf(leafNumber: number): MergedLeaf | undefined {
    let merged: MergedLeaf | undefined;
    let missing = format.leafEntries;
    let visibleBytes = this.sizeBytes;
    for (const [imageIndex, image] of this.images.entries()) {
      visibleBytes = Math.min(visibleBytes, image.description.sourceSizeBytes);
      const leaf = this.#readLeaf(image, imageIndex, leafNumber);
      if (leaf === undefined) continue;
      merged ??= { entries: new Uint8Array(format.leafBytes), images: new Uint16Array(format.leafEntries) };
      missing -= this.#takeMissing(merged, leaf, imageIndex, leafNumber, visibleBytes);
      if (missing === 0) break;
    }
    return merged;
  }

  /** Copies the entries that `merged` lacks and `leaf` has; returns how many. */
  #takeMissing(
    merged: MergedLeaf,
    leaf: Uint8Array,
    imageIndex: number,
    leafNumber: number,
    visibleBytes: number,
  ): number {
    const visibleEntries = Math.ceil(visibleBytes / this.blockBytes) - leafNumber * format.leafEntries;
    let taken = 0;
    for (let index = 0; index < format.leafEntries && index < visibleEntries; index++) {
      const at = index * format.leafEntryBytes;
      if (merged.entries[at + stateOffset] !== format.blockState.absent) continue;
      if (leaf[at + stateOffset] === format.blockState.absent) continue;
      merged.entries.set(leaf.subarray(at, at + format.leafEntryBytes), at);
      merged.images[index] = imageIndex;
      taken++;
    }
    return taken;
  }

  #readLeaf(image: Image, imageIndex: number, leafNumber: number): Uint8Array | undefined {
    const pageNumber = Math.floor(leafNumber / format.pageReferences);
    const key = `${imageIndex}:${pageNumber}`;
    let page = this.#pages.get(key);
    if (page === undefined) {
      page = image.readPage(pageNumber);
      if (page === undefined) return undefined;
      this.#pages.set(key, page);
    }
    const reference = image.leafReference(page, leafNumber);
    return reference === undefined ? undefined : image.readLeaf(leafNumber, reference);
  }

  *#extents(offset: number, end: number): Generator<Extent> {
    const leafSpan = format.leafEntries * this.blockBytes;
    const pageSpan = format.pageReferences * leafSpan;
    for (let at = offset; at < end;) {
      const pageNumber = Math.floor(at / pageSpan);
      const nextPage = this.#nextPage(pageNumber);
      const leafNumber = Math.floor(at / leafSpan);
      const leaf = nextPage === pageNumber ? this.#leaf(leafNumber) : undefined;
      if (nextPage !== pageNumber) {
        const to = Math.min(end, nextPage === undefined ? end : nextPage * pageSpan);
        yield { offset: at, length: to - at, kind: 'zero' };
        at = to;
      } else if (leaf === undefined) {
        const to = Math.min(end, (leafNumber + 1) * leafSpan);
        yield { offset: at, length: to - at, kind: 'zero' };
        at = to;
      } else {
        const position = Math.floor(at / this.blockBytes);
        const to = Math.min(end, (position + 1) * this.blockBytes);
        const state = leaf.entries[(position % format.leafEntries) * format.leafEntryBytes + stateOffset];
        yield { offset: at, length: to - at, kind: format.readsAsZeros(state) ? 'zero' : 'data' };
        at = to;
      }
    }
  }

  /** The first page at or after `from` in which any image of the chain holds something. */
  #nextPage(from: number): number | undefined {
    let next: number | undefined;
    for (const image of this.images) {
      const page = image.nextPage(from);
      if (page === from) return from;
      if (page !== undefined) next = Math.min(next ?? page, page);
    }
    return next;
  }
}

const stateOffset = format.leafEntry.offsetOf('state');

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
  if (parent.commitHash !== child.parent.commitHash) return 'has other contents than when it was made from it';
  return undefined;
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
      if (!entry.isFile() || entry.name.endsWith(unfinishedSuffix)) continue;
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
      if (fs.readSync(fd, block, 0, block.length, 0) !== block.length || !Image.isImage(block)) return undefined;
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    return undefined;
  }
  return format.superblock.parse(block).imageId;
}
