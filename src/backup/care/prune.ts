/**
 * Keeps the chains of a folder short: a plan of what stays and what becomes of the rest, and the work.
 *
 * - A restore point that stays keeps its identity, its name and what it reads as. Images between it and the next older one that stays are
 *   consolidated into it; so the oldest that stays becomes a synthetic full.
 * - What stays whatever the rules say: the newest of each branch whose images the rules keep, images that several are made on, images that
 *   a plugin file points to.
 * - What is newest is what the chain's own order says; a time that runs against it is not believed, and told (chain-times.ts).
 * - A bound on depth makes synthetic fulls of some that stay, beside those they were made on.
 *
 * Each step of the work is one consolidation (see its crash order) or one removal. The plan is made from what the folder holds: after an
 * interruption the same command plans what is left and goes on.
 */
import path from 'node:path';
import { UsageError } from '../../base/errors.ts';
import { closeAll } from '../../base/ownership.ts';
import type { Guid } from '../../bytes/guid.ts';
import { lockFolder, lockForRemoval } from '../read/chain-lock.ts';
import { openImages } from '../read/chain.ts';
import { listImages, type FolderImage } from '../read/folder-images.ts';
import { chainTimes, type ChainTime } from './chain-times.ts';
import { consolidateInto, removeImages } from './consolidate.ts';
import { keptByRules, type RetentionRules } from './retention.ts';

export interface PruneOptions extends RetentionRules {
  /** The most images that reading a restore point may need. */
  readonly maxDepth?: number;
  /** Why an image stays whatever the rules say; undefined where it need not. */
  readonly whyNeeded?: (imageId: Guid) => string | undefined;
  /** Called before each plan: what `whyNeeded` knows may have changed. */
  readonly lookAgain?: () => void;
  /** Only this chain. */
  readonly chainId?: Guid;
}

export interface KeptImage {
  readonly image: FolderImage;
  /** Which rule, or what else, keeps it. */
  readonly reason: string;
}

export type PruneStep =
  /** `images` (newest first) become one, under the name of the newest; all others of them that `remove` names go. */
  | {
      readonly kind: 'consolidate';
      readonly images: readonly FolderImage[];
      readonly remove: readonly FolderImage[];
      /** A synthetic full: whatever is below by then goes into it. */
      readonly isFull: boolean;
    }
  /** No image that stays needs it. */
  | { readonly kind: 'remove'; readonly images: readonly FolderImage[] };

/** An image whose time runs against the order of its chain. */
export interface WrongTime {
  readonly image: FolderImage;
  readonly countedAs: Date;
}

export interface PrunePlan {
  readonly chainId: Guid;
  readonly kept: readonly KeptImage[];
  readonly wrongTimes: readonly WrongTime[];
  readonly steps: readonly PruneStep[];
  /** Images that reading the deepest restore point needs, now and afterwards. */
  readonly depthBefore: number;
  readonly depthAfter: number;
}

/**
 * One plan for each chain of the folder.
 * @throws UsageError when a chain is not one that can be pruned: damaged, incomplete, or with two files of one restore point
 */
export function planPrune(folder: string, options: PruneOptions): PrunePlan[] {
  options.lookAgain?.();
  const { images, damaged } = listImages(folder, options.chainId);
  const [unreadable] = damaged;
  if (unreadable !== undefined)
    throw new UsageError(`${unreadable.path}: cannot be opened (${unreadable.reason}); put it right or away first`);
  const chains = Map.groupBy(images, ({ description }) => description.chainId);
  return [...chains].map(([chainId, all]) => planChain(chainId, all, options));
}

/** The images of a chain by identity, and what is made on each. */
class Lineage {
  readonly #byId = new Map<Guid, FolderImage>();
  readonly #children = new Map<Guid, FolderImage[]>();

  constructor(images: readonly FolderImage[]) {
    for (const image of images) {
      const twin = this.#byId.get(image.description.imageId);
      if (twin !== undefined) {
        throw new UsageError(
          `${image.path}: is the same restore point as ${path.basename(twin.path)}; move one of them away first`,
        );
      }
      this.#byId.set(image.description.imageId, image);
    }
    for (const image of images) {
      const { parent } = image.description;
      if (parent === undefined) continue;
      if (!this.#byId.has(parent.imageId))
        throw new UsageError(`${image.path}: its parent ${parent.name} is not in the folder; put it back first`);
      this.#children.set(parent.imageId, [...this.childrenOf(parent.imageId), image]);
    }
  }

  childrenOf(imageId: Guid): readonly FolderImage[] {
    return this.#children.get(imageId) ?? [];
  }

  parentOf({ description }: FolderImage): FolderImage | undefined {
    return description.parent === undefined ? undefined : this.#byId.get(description.parent.imageId);
  }
}

function planChain(chainId: Guid, images: readonly FolderImage[], options: PruneOptions): PrunePlan {
  const lineage = new Lineage(images);
  const newestFirst = [...images].sort((a, b) => b.description.sequence - a.description.sequence);
  const times = chainTimes(images);
  const reasons = reasonsToKeep(newestFirst, times, lineage, options);
  const unneeded = newestFirst.filter((image) => !isNeeded(image, reasons, lineage));
  const runs = newestFirst.filter((image) => reasons.has(image)).map((image) => runOf(image, reasons, lineage));
  const { runs: bounded, depth } = boundDepth(runs.reverse(), options.maxDepth, lineage);
  const steps: PruneStep[] = [];
  if (unneeded.length > 0) steps.push({ kind: 'remove', images: unneeded });
  for (const { images: run, remove, isFull } of bounded) {
    if (run.length > 1) steps.push({ kind: 'consolidate', images: run, remove, isFull });
  }
  return {
    chainId,
    kept: newestFirst.flatMap((image) => {
      const reason = reasons.get(image);
      return reason === undefined ? [] : [{ image, reason }];
    }),
    wrongTimes: newestFirst.flatMap((image) => {
      const time = times.get(image.description.imageId);
      return time === undefined || time.isBelieved ? [] : [{ image, countedAs: new Date(time.atMs) }];
    }),
    steps,
    depthBefore: Math.max(...images.map((image) => depthOf(image, lineage))),
    depthAfter: depth,
  };
}

/** @param images the newest of the chain first */
function reasonsToKeep(
  images: readonly FolderImage[],
  times: ReadonlyMap<Guid, ChainTime>,
  lineage: Lineage,
  options: PruneOptions,
): Map<FolderImage, string> {
  const points = images.map((image) => {
    const { imageId, createdAt } = image.description;
    return { image, createdAt: new Date(times.get(imageId)?.atMs ?? createdAt) };
  });
  const reasons = new Map<FolderImage, string>();
  for (const [{ image }, rule] of keptByRules(points, options)) reasons.set(image, rule);
  for (const image of images) {
    const reason = options.whyNeeded?.(image.description.imageId);
    if (reason !== undefined) reasons.set(image, reason);
  }
  // Where two that stay part, the image that both are made on stays: it cannot be in two others.
  for (const image of images) {
    const lines = lineage.childrenOf(image.description.imageId).filter((child) => isNeeded(child, reasons, lineage));
    if (lines.length > 1 && !reasons.has(image)) reasons.set(image, 'several images are made on it');
  }
  return reasons;
}

/** Whether it stays, or one that is made on it does. No recursion: chains are deep. */
function isNeeded(image: FolderImage, reasons: ReadonlyMap<FolderImage, string>, lineage: Lineage): boolean {
  const open = [image];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (reasons.has(next)) return true;
    open.push(...lineage.childrenOf(next.description.imageId));
  }
  return false;
}

interface Run {
  /** One that stays, and those that go into it, newest first. */
  readonly images: readonly FolderImage[];
  readonly remove: readonly FolderImage[];
  readonly isFull: boolean;
}

function runOf(kept: FolderImage, reasons: ReadonlyMap<FolderImage, string>, lineage: Lineage): Run {
  const images = [kept];
  for (let next = lineage.parentOf(kept); next !== undefined && !reasons.has(next); next = lineage.parentOf(next))
    images.push(next);
  return { images, remove: images.slice(1), isFull: false };
}

/** @param runs oldest first */
function boundDepth(
  runs: readonly Run[],
  maxDepth: number | undefined,
  lineage: Lineage,
): { readonly runs: Run[]; readonly depth: number } {
  if (maxDepth !== undefined && maxDepth < 1)
    throw new UsageError('--max-depth: a restore point needs at least one image');
  const depths = new Map<FolderImage, number>();
  let depth = 0;
  const bounded = runs.map((run) => {
    const [kept] = run.images;
    const oldest = run.images.at(-1);
    if (kept === undefined || oldest === undefined) return run;
    const parent = lineage.parentOf(oldest);
    const before = parent === undefined ? 0 : (depths.get(parent) ?? 0);
    const isTooDeep = maxDepth !== undefined && before + 1 > maxDepth;
    depths.set(kept, isTooDeep ? 1 : before + 1);
    depth = Math.max(depth, isTooDeep ? 1 : before + 1);
    return isTooDeep ? { images: [...run.images, ...lineOf(parent, lineage)], remove: run.remove, isFull: true } : run;
  });
  return { runs: bounded, depth };
}

function lineOf(image: FolderImage | undefined, lineage: Lineage): FolderImage[] {
  const line: FolderImage[] = [];
  for (let next = image; next !== undefined; next = lineage.parentOf(next)) line.push(next);
  return line;
}

function depthOf(image: FolderImage, lineage: Lineage): number {
  return lineOf(image, lineage).length;
}

export interface PruneProgress {
  readonly step: number;
  readonly steps: number;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/**
 * Does the work of plans that were just made, with the same options.
 * @throws UsageError when the folder has changed since, or an image of a chain is in use: what was done until then is whole, and a rerun goes on
 */
export async function applyPrune(
  folder: string,
  plans: readonly PrunePlan[],
  options: PruneOptions,
  onProgress?: (progress: PruneProgress) => void,
): Promise<void> {
  const lock = lockFolder(folder);
  try {
    for (const plan of plans) await applyPlan(folder, plan, options, onProgress);
  } finally {
    lock.close();
  }
}

async function applyPlan(
  folder: string,
  plan: PrunePlan,
  options: PruneOptions,
  onProgress: ((progress: PruneProgress) => void) | undefined,
): Promise<void> {
  if (plan.steps.length === 0) return;
  const images = listImages(folder, plan.chainId).images.map((image) => image.path);
  const lock = lockForRemoval(images);
  try {
    // From here on nobody begins to read the chain, or to make a plugin file for it.
    const again = planPrune(folder, { ...options, chainId: plan.chainId });
    if (JSON.stringify(again) !== JSON.stringify([plan]))
      throw new UsageError(`${folder}: has changed since this was planned; run it again`);
    for (const [index, step] of plan.steps.entries()) {
      const report = (doneBytes: number, totalBytes: number): void =>
        onProgress?.({ step: index + 1, steps: plan.steps.length, doneBytes, totalBytes });
      await applyStep(step, report);
    }
  } finally {
    lock.close();
  }
}

async function applyStep(step: PruneStep, onProgress: (doneBytes: number, totalBytes: number) => void): Promise<void> {
  if (step.kind === 'remove') {
    removeImages(step.images.map((image) => image.path));
    return;
  }
  const target = step.images[0]?.path ?? '';
  const chain = openImages(target);
  try {
    const last = step.images.at(-1)?.description.imageId;
    const end = chain.findIndex(({ description }) => description.imageId === last);
    await consolidateInto(step.isFull ? chain : chain.slice(0, end + 1), target, {
      remove: [target, ...step.remove.map((image) => image.path)],
      onProgress,
    });
  } finally {
    closeAll(chain);
  }
}
