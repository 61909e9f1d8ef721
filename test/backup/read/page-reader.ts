/** A thread that reads pages of an image at random, with page sums that other threads change meanwhile, and counts wrong reads. */
import fs from 'node:fs';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { BlockCache, type CacheMemory } from '../../../src/backup/read/block-cache.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { Seeded } from '../../seeded.ts';

export interface PageReaderData {
  readonly memory: CacheMemory;
  readonly owner: number;
  readonly image: string;
  readonly raw: string;
  readonly steps: number;
}

export interface PageReaderResult {
  readonly wrong: number;
}

function readPages({ memory, owner, image, raw, steps }: PageReaderData): PageReaderResult {
  const random = new Seeded(`page reader ${owner}`);
  const expected = fs.readFileSync(raw);
  const disk = openChainDisk(image, new BlockCache(memory, owner));
  const target = Buffer.alloc(4096);
  let wrong = 0;
  for (let step = 0; step < steps; step++) {
    const offset = random.below(expected.length / 4096) * 4096;
    disk.read(target, offset);
    if (!target.equals(expected.subarray(offset, offset + 4096))) wrong++;
  }
  disk.close();
  return { wrong };
}

if (!isMainThread && parentPort !== null && (workerData as PageReaderData | null)?.raw !== undefined)
  parentPort.postMessage(readPages(workerData as PageReaderData));
