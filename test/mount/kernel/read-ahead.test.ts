/** What follows a sequential stream of reads is inflated ahead by a worker that would else wait. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { createPluginFile } from '../../../src/plugin/create.ts';
import { Board } from '../../../src/mount/kernel/board.ts';
import { ReadAhead } from '../../../src/mount/kernel/read-ahead.ts';
import { seededTest } from '../../seeded.ts';
import { readFrom } from '../guest-disk.ts';
import { placeForTest } from '../mounted.ts';

const blockBytes = 64 * KiB;

/** Workers over one file, and the offsets that they were told to prepare. */
function workersOf(count: number) {
  const numbers = Array.from({ length: count }, (_, worker) => worker);
  const board = Board.allocate(count);
  for (const worker of numbers) board.setAlive(worker);
  const prepared: number[] = [];
  const file = { prepare: (offset: number) => (prepared.push(offset), offset + blockBytes) };
  const streams = ReadAhead.allocate();
  const workers = numbers.map((worker) => new ReadAhead(streams, board, worker));
  const read = (worker: number, offset: number, length: number, slot = 5): number[] => {
    prepared.length = 0;
    workers[worker]?.note(file, slot, 77, offset, length);
    workers[worker]?.makeNext();
    return [...prepared];
  };
  return { board, read };
}

describe('reads that follow each other, whichever worker answers them', () => {
  it('have the read after the next one made ahead, each block once', () => {
    const { read } = workersOf(3);
    expect(read(0, 0, MiB)).toEqual([]);
    expect(read(1, MiB, MiB)).toEqual([]);
    const blocks = (from: number): number[] => Array.from({ length: 16 }, (_, block) => from + block * blockBytes);
    expect(read(0, 2 * MiB, MiB)).toEqual(blocks(4 * MiB));
    expect(read(1, 3 * MiB, MiB)).toEqual(blocks(5 * MiB));
  });

  it('of a few KiB have the next blocks made, and not again with each of them', () => {
    const { read } = workersOf(3);
    const made = Array.from({ length: 32 }, (_, step) => read(step % 2, step * 4 * KiB, 4 * KiB)).flat();
    expect(made).toEqual([12 * KiB, 76 * KiB, 140 * KiB]);
  });

  it('are kept apart by where they are, and by the handle that they come through', () => {
    const { read } = workersOf(3);
    for (let step = 0; step < 2; step++) {
      for (const start of [0, 100 * MiB, 200 * MiB]) expect(read(0, start + step * MiB, MiB)).toEqual([]);
    }
    for (const start of [0, 100 * MiB, 200 * MiB]) expect(read(1, start + 2 * MiB, MiB)[0]).toBe(start + 4 * MiB);
    expect(read(0, 3 * MiB, MiB, 6)).toEqual([]);
  });

  it.each([
    [64 * KiB, 2],
    [MiB, 3],
  ])('of %i bytes have nothing made while fewer than %i workers have nothing else to do', (length, workers) => {
    const { board, read } = workersOf(workers);
    board.begin(1, 1, 0, -1);
    for (let step = 0; step < 8; step++) expect(read(0, step * length, length)).toEqual([]);
    board.end(1);
    expect(read(0, 8 * length, length)).not.toEqual([]);
  });
});

it('reads at random have nothing made ahead', () => {
  const { read } = workersOf(3);
  const random = seededTest('no stream');
  for (let step = 0; step < 2000; step++)
    expect(read(step % 2, random.below(10_000) * 3 * blockBytes, blockBytes)).toEqual([]);
});

it('a disk that is read in sequence finds blocks that were made ahead, and reads as it is', async () => {
  const place = placeForTest();
  const random = seededTest('read in sequence');
  const bytes = random.compressibleBytes(32 * MiB);
  await createImage(place.temporary.write('disk.raw', bytes), place.behind('vm.spf'), { codec: 'zstd' });
  createPluginFile(place.behind('vm.spf'), place.behind('vm.raw'));
  await place.mount('--transport', 'kernel', '--workers', '3');
  const handle = await fs.promises.open(place.under('vm.raw'), fs.constants.O_RDONLY | fs.constants.O_DIRECT);
  for (let offset = 0; offset < bytes.length; offset += blockBytes) {
    const read = await readFrom(handle, offset, blockBytes);
    expect(read.equals(bytes.subarray(offset, offset + blockBytes))).toBe(true);
  }
  await handle.close();
  // Each block was read once and whole: nothing but what was made ahead is found in the cache.
  const { cacheHits, cacheMisses } = await place.statistics('vm.raw');
  expect(cacheHits + cacheMisses).toBe(bytes.length / blockBytes);
  expect(cacheHits).toBeGreaterThan(0);
});
