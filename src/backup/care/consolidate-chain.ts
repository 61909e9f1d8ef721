/**
 * Consolidation as it is asked for: which images of a chain, and whether the result replaces them. What others still need is not removed, and
 * a chain that is in use stays as it is.
 */
import path from 'node:path';
import { UsageError } from '../../base/errors.ts';
import { closeAll, type Closable } from '../../base/ownership.ts';
import { isSameFile } from '../../base/same-file.ts';
import type { ImageDescription } from '../format/image-description.ts';
import { lockForRemoval } from '../read/chain-lock.ts';
import { openChain, openImages } from '../read/chain.ts';
import { listImages, type FolderImage } from '../read/folder-images.ts';
import { Image } from '../read/image.ts';
import { consolidateInto, removeImages, type ConsolidateIntoOptions } from './consolidate.ts';

export interface ConsolidateOptions extends Omit<ConsolidateIntoOptions, 'remove'> {
  /** Sequence of the oldest and of the newest image to take; default: all. Only where a single image names the chain. */
  readonly from?: number;
  readonly to?: number;
  /** Remove the images that the result takes the place of. */
  readonly replace?: boolean;
}

export interface ConsolidatedChain {
  readonly made: ImageDescription;
  readonly taken: number;
  readonly removed: number;
}

/**
 * @param chain one image: its chain, or the part from `from` to `to`; several: these, which must follow each other
 * @throws UsageError, UnavailableError, CapacityError, FormatError, IntegrityError: the chain is as it was then
 */
export async function consolidateChain(
  chain: readonly string[],
  outPath: string,
  options: ConsolidateOptions = {},
): Promise<ConsolidatedChain> {
  const newestPath = newestOf(chain);
  const replace = options.replace === true;
  const folder = path.dirname(newestPath);
  let lock: Closable | undefined;
  let images: Image[] = [];
  try {
    const known = replace ? listImages(folder, chainIdOf(newestPath)).images : [];
    if (replace) lock = lockForRemoval(known.map((image) => image.path));
    images = replace ? openImages(newestPath) : openChain(newestPath);
    const taken = selected(images, chain, options);
    const leftOver = leftOvers(known, taken);
    const remove = [...taken.map((image) => image.path), ...leftOver.map((image) => image.path)];
    if (replace) assertNotNeeded(known, taken, leftOver, outPath, options);
    const [only] = taken;
    if (only !== undefined && taken.length === 1 && replace && leftOver.length > 0 && isSameFile(only.path, outPath)) {
      // An earlier run ended between the last two steps.
      removeImages(leftOver.map((image) => image.path));
      return { made: only.description, taken: 1, removed: leftOver.length };
    }
    const made = await consolidateInto(taken, outPath, { ...options, ...(replace ? { remove } : {}) });
    return { made, taken: taken.length, removed: replace ? remove.length : 0 };
  } finally {
    closeAll(images);
    lock?.close();
  }
}

/** Images that the taken ones were made from, and that an earlier run has not removed any more. Newest first. */
function leftOvers(known: readonly FolderImage[], taken: readonly Image[]): FolderImage[] {
  const made = new Set(taken.flatMap((image) => image.sources().map(({ imageId }) => imageId)));
  return known
    .filter(
      ({ path: file, description }) =>
        made.has(description.imageId) && !taken.some((image) => isSameFile(image.path, file)),
    )
    .filter(({ description }) => !taken.some((image) => image.description.imageId === description.imageId))
    .sort((a, b) => b.description.sequence - a.description.sequence);
}

/** @throws UsageError when an image that goes, and that the result does not stand for, is needed by another that stays */
function assertNotNeeded(
  known: readonly FolderImage[],
  taken: readonly Image[],
  leftOver: readonly FolderImage[],
  outPath: string,
  options: ConsolidateOptions,
): void {
  const newestId = taken[0]?.description.imageId;
  const going = [...taken, ...leftOver].filter(({ description }) => description.imageId !== newestId);
  const goingIds = new Set(going.map(({ description }) => description.imageId));
  for (const { path: file, description } of going) {
    const child = known.find(
      (image) =>
        image.description.parent?.imageId === description.imageId &&
        !goingIds.has(image.description.imageId) &&
        image.description.imageId !== newestId,
    );
    if (child !== undefined) {
      throw new UsageError(
        `${file}: ${path.basename(child.path)} is made on it, and would lose it; leave --replace out, or consolidate up to ${path.basename(file)}`,
      );
    }
    const reason = options.whyNeeded?.(description);
    if (reason !== undefined) throw new UsageError(`${file}: ${reason}; leave --replace out, or consolidate up to it`);
  }
  const taking = known.find(({ path: file }) => isSameFile(file, outPath));
  if (taking !== undefined && taking.description.imageId !== newestId && !goingIds.has(taking.description.imageId))
    throw new UsageError(`${outPath}: is another image of the chain; choose another name`);
}

/** The part of the chain that is asked for, newest first. */
function selected(images: readonly Image[], chain: readonly string[], options: ConsolidateOptions): Image[] {
  if (chain.length === 1) {
    const { from = 0, to = Number.POSITIVE_INFINITY } = options;
    const part = images.filter(({ description }) => description.sequence >= from && description.sequence <= to);
    if (part.length === 0)
      throw new UsageError(
        `${chain[0] ?? ''}: no image of its chain is from ${from} to ${to}; veneer image info tells the numbers`,
      );
    return part;
  }
  if (options.from !== undefined || options.to !== undefined)
    throw new UsageError('--from and --to choose from the chain of one image; name one, or leave them out');
  const oldestNamed = images.findLastIndex((image) => chain.some((file) => isSameFile(file, image.path)));
  const part = images.slice(0, oldestNamed + 1);
  const notNamed = part.find((image) => !chain.some((file) => isSameFile(file, image.path)));
  if (notNamed !== undefined)
    throw new UsageError(`${notNamed.path}: lies between the images to consolidate; name it too`);
  const notThere = chain.find((file) => !part.some((image) => isSameFile(file, image.path)));
  if (notThere !== undefined) throw new UsageError(`${notThere}: is not in the chain of ${part[0]?.path ?? ''}`);
  return part;
}

function newestOf(chain: readonly string[]): string {
  let newest: { file: string; sequence: number } | undefined;
  for (const file of chain) {
    const image = Image.open(file);
    const { sequence } = image.description;
    image.close();
    if (newest === undefined || sequence > newest.sequence) newest = { file, sequence };
  }
  if (newest === undefined) throw new UsageError('name an image of the chain');
  return newest.file;
}

function chainIdOf(file: string): string {
  const image = Image.open(file);
  image.close();
  return image.description.chainId;
}
