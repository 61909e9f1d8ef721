/** How `--cache` is divided: one budget for what all threads of a mount, and of its fills, keep of all images that are open. */
import { MiB } from '../base/units.ts';
import { sumsShare } from '../backup/read/block-cache.ts';

/** A process that serves has about 150 MiB of its own: with that, the whole stays under 400 million bytes. */
export const defaultCacheBytes = 192 * MiB;
/** For indexes: in all threads together, and of a small budget. */
const indexBytes = 48 * MiB;
const indexShare = 1 / 4;
/** For inflated blocks of one thread that fills: it reads them once, in order, and seldom less than a whole one. */
const fillBlockBytes = 4 * MiB;
const fillBlockShare = 1 / 32;

export interface CacheShares {
  /** Of inflated blocks, which the threads that answer share; their page sums come on top. */
  readonly blockBytes: number;
  /** Of indexes, in each thread that answers or fills. */
  readonly indexBytes: number;
  /** Of inflated blocks, in each thread that fills. */
  readonly fillBlockBytes: number;
}

/** @param workers threads that answer. @param fillThreads that fill at once */
export function divideCache(cacheBytes: number, workers: number, fillThreads: number): CacheShares {
  const forIndexes = Math.min(indexBytes, cacheBytes * indexShare);
  const ofFill = Math.floor(Math.min(fillBlockBytes, cacheBytes * fillBlockShare));
  const forBlocks = cacheBytes - forIndexes - ofFill * fillThreads;
  return {
    blockBytes: Math.max(0, Math.floor(forBlocks / (1 + sumsShare))),
    indexBytes: Math.floor(forIndexes / (workers + fillThreads)),
    fillBlockBytes: ofFill,
  };
}
