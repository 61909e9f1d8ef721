import { expect, it } from 'vitest';
import { IndexCache, type MergedLeaf } from '../../../src/backup/read/index-cache.ts';
import { MiB } from '../../../src/base/units.ts';
import { seededTest } from '../../seeded.ts';

const empty = new Uint8Array(12_288);

/** Bytes that tell a leaf of a chain from all others. */
function mark(into: MergedLeaf, chain: number, leafNumber: number): boolean {
  expect(Buffer.compare(into.entries, empty)).toBe(0);
  into.entries.set([chain, leafNumber % 251, Math.floor(leafNumber / 251)]);
  into.images.fill(chain);
  return leafNumber % 7 !== 3;
}

it('leaves are those that were asked for, whatever was pushed out and used again: random steps', () => {
  const random = seededTest('index cache');
  const cache = new IndexCache(MiB);
  const chains = Array.from({ length: 5 }, () => cache.forChain());
  const memory = new Set<ArrayBufferLike>();
  let merged = 0;
  for (let step = 0; step < 5000; step++) {
    const chain = random.below(chains.length);
    const leafNumber = random.oneIn(2) ? random.below(10) : random.below(2000);
    if (random.oneIn(500)) {
      chains[chain]?.close();
      chains[chain] = cache.forChain();
    }
    const leaf = chains[chain]?.leaf(leafNumber, (into, number) => {
      merged++;
      return mark(into, chain, number);
    });
    expect(leaf === undefined).toBe(leafNumber % 7 === 3);
    if (leaf === undefined) continue;
    memory.add(leaf.entries.buffer);
    expect([...leaf.entries.subarray(0, 3)]).toEqual([chain, leafNumber % 251, Math.floor(leafNumber / 251)]);
  }
  expect(merged).toBeLessThan(5000);
  // One budget for all chains: five eighths of it for leaves.
  expect(memory.size * 13 * 1024).toBeLessThanOrEqual((MiB * 5) / 8 + 13 * 1024);
});

it('a leaf that cannot be made leaves nothing behind', () => {
  const cache = new IndexCache(MiB);
  const chain = cache.forChain();
  const fail = (into: MergedLeaf): boolean => {
    into.entries.fill(1);
    throw new Error('damaged');
  };
  expect(() => chain.leaf(1, fail)).toThrow('damaged');
  expect(chain.leaf(1, (into) => mark(into, 2, 1))?.entries[0]).toBe(2);
});

it('pages of one chain are not those of another, and go with it', () => {
  const cache = new IndexCache(MiB);
  const [one, other] = [cache.forChain(), cache.forChain()];
  const read = (byte: number) => () => new Uint8Array(4).fill(byte);
  expect(one.page(0, 5, read(1))?.[0]).toBe(1);
  expect(other.page(0, 5, read(2))?.[0]).toBe(2);
  expect(one.page(0, 5, read(3))?.[0]).toBe(1);
  one.close();
  expect(one.page(0, 5, read(4))?.[0]).toBe(4);
  expect(other.page(0, 5, read(5))?.[0]).toBe(2);
  expect(one.page(1, 5, () => undefined)).toBeUndefined();
});
