/** A thread that reads and fills blocks of a shared cache, and counts bytes that do not belong where they are. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { BlockCache, type CacheMemory } from '../../../src/backup/read/block-cache.ts';
import { Seeded } from '../../seeded.ts';

export interface HammerData {
  readonly memory: CacheMemory;
  readonly owner: number;
  readonly positions: number;
  readonly steps: number;
}

export interface HammerResult {
  readonly wrong: number;
  readonly hits: number;
}

const blockBytes = 65_536;

/** What every byte of the block at that position is. */
export function byteOf(position: number): number {
  return (position % 251) + 1;
}

function hammer({ memory, owner, positions, steps }: HammerData): HammerResult {
  const random = new Seeded(`thread ${owner}`);
  const blocks = new BlockCache(memory, owner).forChain(new Uint8Array(32).fill(9));
  let wrong = 0;
  for (let step = 0; step < steps; step++) {
    const position = random.below(positions);
    const within = random.below(blockBytes);
    const target = new Uint8Array(blockBytes - within);
    if (!blocks.copy(position, blockBytes, within, target))
      blocks.load(position, blockBytes, within, target, (block) => void block.fill(byteOf(position)));
    if ([0, target.length >> 1, target.length - 1].some((at) => target[at] !== byteOf(position))) wrong++;
  }
  return { wrong, hits: blocks.hits };
}

if (!isMainThread && parentPort !== null && (workerData as HammerData | null)?.memory !== undefined)
  parentPort.postMessage(hammer(workerData as HammerData));
