import { expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { BlockCache } from '../../src/backup/block-cache.ts';
import { seededTest } from '../seeded.ts';

const blockBytes = 16 * KiB;

it('blocks of many chains are kept apart, and are what was put in', () => {
  const random = seededTest('block cache');
  const cache = new BlockCache(2 * MiB);
  const chains = [cache.forChain(), cache.forChain(), cache.forChain()];
  for (let step = 0; step < 5000; step++) {
    const index = random.below(chains.length);
    const position = random.oneIn(2) ? random.below(60) : 2 ** 36 - 1 - random.below(60);
    const fill = (index * 61 + position) % 251;
    const block =
      chains[index]?.get(position) ?? chains[index]?.fill(position, blockBytes, (made) => void made.fill(fill));
    expect(block?.length).toBe(blockBytes);
    expect([block?.[0], block?.[blockBytes - 1]]).toEqual([fill, fill]);
    if (random.oneIn(500)) {
      chains[index]?.close();
      const fresh = cache.forChain();
      chains[index] = fresh;
      expect(fresh.get(position)).toBeUndefined();
    }
  }
});

it('a block whose filling failed is not kept', () => {
  const chain = new BlockCache(MiB).forChain();
  const fail = (): void => {
    throw new Error('damaged');
  };
  expect(() => chain.fill(7, blockBytes, fail)).toThrow('damaged');
  expect(chain.get(7)).toBeUndefined();
});

it('no more is kept than the budget', () => {
  const chain = new BlockCache(10 * blockBytes).forChain();
  for (let position = 0; position < 1000; position++) chain.fill(position, blockBytes, () => undefined);
  const kept = Array.from({ length: 1000 }, (_, position) => chain.get(position)).filter(
    (block) => block !== undefined,
  );
  expect(kept).toHaveLength(10);
});

it('chains that are opened and closed for years never meet', () => {
  const cache = new BlockCache(MiB);
  for (let count = 0; count < 2 ** 17 + 5; count++) cache.forChain().close();
  const chain = cache.forChain();
  for (const position of [0, 1, 2]) chain.fill(position, blockBytes, (block) => void block.fill(position + 1));
  for (const position of [0, 1, 2]) expect(chain.get(position)?.[0]).toBe(position + 1);
});

it('a chain that is closed twice does not give its place to two others', () => {
  const cache = new BlockCache(MiB);
  const closed = cache.forChain();
  closed.close();
  closed.close();
  const [one, two] = [cache.forChain(), cache.forChain()];
  one.fill(0, blockBytes, (block) => void block.fill(1));
  expect(two.get(0)).toBeUndefined();
});
