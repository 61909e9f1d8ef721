import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { BlockCache, type ChainBlocks } from '../../../src/backup/read/block-cache.ts';
import { seededTest } from '../../seeded.ts';
import { byteOf, type HammerData, type HammerResult } from './hammer-blocks.ts';

const identity = (chain: number): Uint8Array => new Uint8Array(32).fill(chain + 1);

function read(blocks: ChainBlocks, position: number, blockBytes: number, within: number, length: number): Uint8Array {
  const target = new Uint8Array(length);
  if (!blocks.copy(position, blockBytes, within, target))
    blocks.load(position, blockBytes, within, target, (block) => void block.fill(byteOf(position)));
  return target;
}

it.each([16 * KiB, 64 * KiB, 256 * KiB, MiB])('blocks of %i bytes are what was put in', (blockBytes) => {
  const random = seededTest(`shared blocks of ${blockBytes}`);
  const cache = new BlockCache(BlockCache.allocate(3 * MiB), 1);
  const chains = [0, 1, 2].map((chain) => cache.forChain(identity(chain)));
  for (let step = 0; step < 3000; step++) {
    const chain = random.below(chains.length);
    const position = random.oneIn(2) ? random.below(30) : 2 ** 36 - 1 - random.below(30);
    const within = random.below(blockBytes - 10);
    const fill = byteOf(position * 3 + chain);
    const target = new Uint8Array(random.between(1, Math.min(5000, blockBytes - within)));
    const blocks = chains[chain];
    if (blocks?.copy(position, blockBytes, within, target) === false)
      blocks.load(position, blockBytes, within, target, (block) => void block.fill(fill));
    expect([target[0], target.at(-1)]).toEqual([fill, fill]);
  }
  expect(chains.reduce((sum, blocks) => sum + blocks.hits, 0)).toBeGreaterThan(0);
});

it('no more is kept than the budget', () => {
  const blocks = BlockCache.ofOneThread(10 * 64 * KiB).forChain(identity(0));
  for (let position = 0; position < 1000; position++) read(blocks, position, 64 * KiB, 0, 1);
  const kept = Array.from({ length: 1000 }, (_, position) => blocks.copy(position, 64 * KiB, 0, new Uint8Array(1)));
  expect(kept.filter((isKept) => isKept).length).toBeLessThanOrEqual(10);
  expect(kept.filter((isKept) => isKept).length).toBeGreaterThan(0);
});

it.each([0, 64 * KiB, 3 * 64 * KiB])('a budget of %i bytes serves right bytes', (budget) => {
  const cache = new BlockCache(BlockCache.allocate(budget), 1);
  const blocks = cache.forChain(identity(0));
  for (let step = 0; step < 200; step++)
    expect(read(blocks, step % 7, 64 * KiB, 100, 5)).toEqual(new Uint8Array(5).fill(byteOf(step % 7)));
});

it('a block whose filling failed is not kept, and its slot serves others', () => {
  const cache = new BlockCache(BlockCache.allocate(64 * KiB), 1);
  const blocks = cache.forChain(identity(0));
  const fail = (): void => {
    throw new Error('damaged');
  };
  expect(() => blocks.load(7, 64 * KiB, 0, new Uint8Array(4), fail)).toThrow('damaged');
  expect(blocks.copy(7, 64 * KiB, 0, new Uint8Array(4))).toBe(false);
  read(blocks, 8, 64 * KiB, 0, 4);
  expect(blocks.copy(8, 64 * KiB, 0, new Uint8Array(4))).toBe(true);
});

it('one image is known by its contents, however often it is opened', () => {
  const cache = new BlockCache(BlockCache.allocate(MiB), 1);
  read(cache.forChain(identity(4)), 3, 64 * KiB, 0, 4);
  expect(cache.forChain(identity(4)).copy(3, 64 * KiB, 0, new Uint8Array(4))).toBe(true);
  expect(cache.forChain(identity(5)).copy(3, 64 * KiB, 0, new Uint8Array(4))).toBe(false);
});

it('what a dead thread was filling is filled by others', () => {
  const memory = BlockCache.allocate(64 * KiB);
  const dead = new BlockCache(memory, 5).forChain(identity(0));
  const cache = new BlockCache(memory, 1);
  const blocks = cache.forChain(identity(0));
  dead.load(1, 64 * KiB, 0, new Uint8Array(1), () => {
    // In the midst of it.
    cache.release(5);
    expect(read(blocks, 2, 64 * KiB, 0, 4)).toEqual(new Uint8Array(4).fill(byteOf(2)));
  });
});

it('threads that read and fill the same blocks at once all read what belongs there', async () => {
  const memory = BlockCache.allocate(8 * 64 * KiB);
  const results = await Promise.all(
    [1, 2, 3, 4].map(async (owner) => {
      const data: HammerData = { memory, owner, positions: 24, steps: 4000 };
      const worker = new Worker(new URL('./hammer-blocks.ts', import.meta.url), { workerData: data });
      return await new Promise<HammerResult>((resolve, reject) => {
        worker.on('message', resolve);
        worker.on('error', reject);
      });
    }),
  );
  expect(results.map((result) => result.wrong)).toEqual([0, 0, 0, 0]);
  expect(results.reduce((sum, result) => sum + result.hits, 0)).toBeGreaterThan(0);
});
