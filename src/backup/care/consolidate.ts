/**
 * Makes one image of several that follow each other in a chain: for each position the newest record, copied as it is. No key is needed, and
 * none is there.
 *
 * The result takes the place of the newest of its inputs: it has that image's identity, reads as it, and stands for its commit, so that
 * images made on it, and plugin files that point to it, accept the result as what they were made on. Its parent is that of the oldest input.
 *
 * Crash order. At any moment the chain reads as before; a rerun goes on from where it was.
 * 1. OUT.veneer-part: superblock, key blocks; records, leaves; pages, root, provenance; fdatasync; commit; fdatasync
 * 2. to replace: OUT.veneer-part is opened again, all of it is read and checked, and its index is compared with the inputs'
 * 3. rename to OUT, which may be the newest input's own name; fsync of the folder. From here on both say the same, and either is accepted
 * 4. to replace: the inputs are removed, the newest first, so that no image is ever there without the parent it names; fsync of the folder
 */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import { commitFile, flushFile, syncFolder } from '../../base/durable.ts';
import { AssertionError, CapacityError, UsageError, VeneerError } from '../../base/errors.ts';
import { writeFailure } from '../../base/full-io.ts';
import { absolutePath } from '../../base/given-names.ts';
import { closing } from '../../base/ownership.ts';
import { isSameFile } from '../../base/same-file.ts';
import { nilGuid } from '../../bytes/guid.ts';
import type { ImageDescription } from '../format/image-description.ts';
import * as format from '../format/layout.ts';
import { encodeSources, maxSources } from '../format/provenance.ts';
import { Image } from '../read/image.ts';
import type { MergedLeaf } from '../read/index-cache.ts';
import { LeafMerger } from '../read/merge-leaf.ts';
import { finishImage, noHash, startImage } from '../write/finish-image.ts';
import type { WrittenLeaf } from '../write/leaf-writer.ts';
import { RecordCopier } from '../write/record-copier.ts';
import { assertMayReplaceImage } from '../write/replaced-image.ts';
import { writeUnfinished } from '../write/unfinished-image.ts';
import { verifyImages } from './verify.ts';

export interface ConsolidateIntoOptions {
  /** Checks the result before it gets its name, and removes these afterwards, in this order. */
  readonly remove?: readonly string[];
  /** Replace a file that is already there. */
  readonly force?: boolean;
  /** Why an image must stay; undefined where it need not. */
  readonly whyNeeded?: (image: ImageDescription) => string | undefined;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** Bytes of provenance that are copied at once. */
const copyBytes = 1024 * 1024;

/**
 * Makes `outPath` of images that follow each other.
 * @param images newest first; they stay open
 * @throws UsageError, CapacityError, UnavailableError, IntegrityError when an input is damaged: nothing is changed then
 */
export async function consolidateInto(
  images: readonly Image[],
  outPath: string,
  options: ConsolidateIntoOptions = {},
): Promise<ImageDescription> {
  const [newest] = images;
  if (newest === undefined || images.length < 2)
    throw new UsageError(`${newest?.path ?? outPath}: is a single image already; there is nothing to consolidate`);
  if (absolutePath(path.dirname(outPath)) !== absolutePath(path.dirname(newest.path)))
    throw new UsageError(`${outPath}: must lie in the folder of ${newest.path}; a chain is kept in one folder`);
  await writeUnfinished(
    outPath,
    () => assertMayWrite(images, outPath, options),
    (fd, name) => {
      writeConsolidated(fd, name, images, options);
      if (options.remove !== undefined) {
        flushFile(fd, name);
        assertSame(name, images);
      }
      commitFile(fd, outPath);
    },
    images.map((image) => image.path),
  );
  removeImages((options.remove ?? []).filter((input) => !isSameName(input, outPath)));
  using made = closing(Image.open(outPath));
  return made.value.description;
}

/** Removes images in the order given. A failure leaves those behind it. */
export function removeImages(paths: readonly string[]): void {
  for (const file of paths) {
    try {
      fs.rmSync(file, { force: true });
    } catch (error) {
      throw writeFailure(file, 'remove it', error);
    }
  }
  for (const folder of new Set(paths.map((file) => path.dirname(file)))) syncFolder(folder);
}

function assertMayWrite(images: readonly Image[], outPath: string, options: ConsolidateIntoOptions): void {
  const isInput = images.some((image) => isSameFile(image.path, outPath));
  if (isInput) {
    if (options.remove !== undefined && isSameFile(images[0]?.path ?? '', outPath)) return;
    throw new UsageError(
      `${outPath}: is one of the images to consolidate; choose another name, or the newest with --replace`,
    );
  }
  if (options.force !== true && fs.existsSync(outPath))
    throw new UsageError(`${outPath}: exists already; choose another name, or replace it with --force`);
  assertMayReplaceImage(outPath, options.whyNeeded);
  if (/\.spf$/i.test(outPath) && images.at(-1)?.description.parent !== undefined)
    throw new UsageError(`${outPath}: .spf is for images without a parent, and this one has one; call it .spi`);
}

function writeConsolidated(fd: number, name: string, images: readonly Image[], options: ConsolidateIntoOptions): void {
  const newest = images[0];
  const oldest = images.at(-1)?.description;
  if (newest === undefined || oldest === undefined) throw new AssertionError('nothing to consolidate');
  const { description } = newest;
  const keyBlocks = description.sealed ? newest.readKeySlots().encodeBoth() : undefined;
  const superblock = startImage(fd, name, superblockOf(images, description, oldest), keyBlocks);
  const startBytes = format.dataOffset(description.sealed);
  const copier = new RecordCopier({ fd, name, startBytes }, images, oldest.parent !== undefined);
  const merger = new LeafMerger(images);
  const leaves: WrittenLeaf[] = [];
  const leafSpan = format.leafEntries * description.blockBytes;
  for (const leafNumber of merger.leafNumbers()) {
    const merged = merger.merge(leafNumber);
    const leaf = merged === undefined ? undefined : copier.copy(leafNumber, merged);
    if (leaf === undefined) continue;
    leaves.push(leaf);
    options.onProgress?.(
      Math.min((leafNumber + 1) * leafSpan, description.sourceSizeBytes),
      description.sourceSizeBytes,
    );
  }
  finishImage(
    { fd, name, endBytes: copier.endBytes },
    {
      superblock,
      leaves,
      parentCommitHash: oldest.parent === undefined ? noHash : Buffer.from(oldest.parent.commitHash, 'hex'),
      standsForHash: Buffer.from(description.lineageHash, 'hex'),
      writeProvenance: (append) => copyProvenance(images, name, append),
      key: undefined,
    },
  );
}

function superblockOf(images: readonly Image[], newest: ImageDescription, oldest: ImageDescription): format.Superblock {
  return {
    versionMajor: format.formatVersion,
    versionMinor: 0,
    kind: format.imageKinds.indexOf('consolidated'),
    content: format.imageContents.indexOf(newest.content),
    codec: format.codecs.indexOf(newest.codec),
    sealSuite: newest.sealed ? 1 : 0,
    chainId: newest.chainId,
    imageId: newest.imageId,
    parentId: oldest.parent?.imageId ?? nilGuid,
    sequence: newest.sequence,
    blockBytes: newest.blockBytes,
    logicalSectorBytes: newest.logicalSectorBytes,
    physicalSectorBytes: newest.physicalSectorBytes,
    sourceSizeBytes: BigInt(newest.sourceSizeBytes),
    visibleBytes: BigInt(Math.min(...images.map(({ description }) => description.visibleBytes))),
    createdAtMs: BigInt(newest.createdAt.getTime()),
    parentName: oldest.parent?.name ?? '',
    crc32c: 0,
  };
}

/** What each input says of where its blocks come from, as it is. @throws CapacityError */
function copyProvenance(images: readonly Image[], name: string, append: (bytes: Uint8Array) => void): void {
  const sources = images.flatMap((image) => image.sources().map((source) => ({ image, source })));
  if (sources.length > maxSources)
    throw new CapacityError(
      `${name}: would be made from ${sources.length} images, more than the limit of ${maxSources}; make a full image`,
    );
  append(encodeSources(sources.map(({ source }) => source)));
  const buffer = new Uint8Array(copyBytes);
  for (const { image, source } of sources) {
    for (const [offset, lengthBytes] of [
      [source.superblockOffset, format.superblockBytes],
      [source.commitOffset, format.commitBytes],
      [source.mapOffset, source.mapBytes],
    ] as const) {
      for (let done = 0; done < lengthBytes; done += buffer.length) {
        const part = buffer.subarray(0, Math.min(buffer.length, lengthBytes - done));
        image.readRaw(part, offset + done);
        append(part);
      }
    }
  }
}

/** Reads all of the result, and compares its index with what the inputs hold. @throws VeneerError (INTEGRITY) */
function assertSame(resultPath: string, images: readonly Image[]): void {
  using result = closing(Image.openCommitted(resultPath));
  verifyImages([result.value], {
    onFault: ({ message }) => {
      throw unsound(resultPath, message);
    },
  });
  const before = new LeafMerger(images);
  const after = new LeafMerger([result.value]);
  const hasParent = result.value.description.parent !== undefined;
  for (const leafNumber of before.leafNumbers()) {
    const wanted = before.merge(leafNumber);
    const found = after.merge(leafNumber);
    for (let index = 0; wanted !== undefined && index < format.leafEntries; index++) {
      const same = identityOf(wanted, index, hasParent) === identityOf(found, index, hasParent);
      if (!same) throw unsound(resultPath, `index leaf ${leafNumber} is not that of the images`);
    }
  }
}

function unsound(resultPath: string, what: string): VeneerError {
  const message = `${resultPath}: was read again and is not what was written (${what}); nothing was replaced, look at the disk`;
  return new VeneerError('INTEGRITY', message);
}

/** What must be the same of an entry, wherever its record lies. */
function identityOf(leaf: MergedLeaf | undefined, index: number, hasParent: boolean): string {
  if (leaf === undefined) return 'nothing';
  const entry = format.leafEntry.parse(leaf.entries, index * format.leafEntryBytes);
  if (entry.state === format.blockState.absent) return 'nothing';
  if (format.readsAsZeros(entry.state)) return hasParent ? 'zero' : 'nothing';
  return [entry.storedBytes, entry.originSequence, entry.crc32c, entry.codec, entry.flags].join(' ');
}

function isSameName(one: string, other: string): boolean {
  return absolutePath(one) === absolutePath(other);
}
