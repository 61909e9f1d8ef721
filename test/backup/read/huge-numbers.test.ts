import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FormatError, VeneerError } from '../../../src/base/errors.ts';
import { closing } from '../../../src/base/ownership.ts';
import { GiB, KiB, MiB, TiB } from '../../../src/base/units.ts';
import { openChain, openChainDisk } from '../../../src/backup/read/chain.ts';
import { maxSourceBytes } from '../../../src/backup/format/layout.ts';
import { verifyChain } from '../../../src/backup/care/verify.ts';
import { processorMs } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { craftImage, rawBlock, type Lies } from '../crafted-image.ts';
import { thrownBy } from '../image-holds.ts';

const blockBytes = 16 * KiB;
const numbers = [
  2n ** 53n - 4096n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 53n + 1n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 4096n,
  2n ** 64n - 1n,
];

function craftWith(folder: TempFolder, lies: Lies): string {
  const blocks = new Map([[1, rawBlock(Buffer.alloc(blockBytes, 1))]]);
  return folder.write('disk.spf', craftImage({ blocks, sizeBytes: 4 * blockBytes, blockBytes, lies }).bytes);
}

/** Opens, reads and verifies. */
function readThrough(path: string): void {
  using disk = closing(openChainDisk(path));
  disk.value.read(Buffer.alloc(100), blockBytes);
}

function expectRefused(path: string): void {
  const started = processorMs();
  const before = process.memoryUsage.rss();
  const error = thrownBy(() => readThrough(path));
  expect(error).toBeInstanceOf(VeneerError);
  expect(error).toHaveProperty('code', expect.stringMatching(/^(FORMAT|INTEGRITY)$/));
  let faults = 1;
  try {
    faults = verifyChain(path).faults;
  } catch (refusal) {
    expect(refusal).toBeInstanceOf(VeneerError);
  }
  expect(faults).toBeGreaterThan(0);
  expect(processorMs() - started).toBeLessThan(500);
  expect(process.memoryUsage.rss() - before).toBeLessThan(16 * MiB);
}

describe('a number that no image can have is refused, its checksums right', () => {
  it.each(['sourceSizeBytes', 'createdAtMs'])('%s of the superblock', (field) => {
    using folder = new TempFolder();
    for (const number of numbers.slice(1))
      expectRefused(craftWith(folder, { superblock: (honest) => ({ ...honest, [field]: number }) }));
  });

  it.each([
    'fileSizeBytes',
    'rootOffset',
    'rootBytes',
    'provenanceOffset',
    'provenanceBytes',
    'dataBlocks',
    'zeroBlocks',
    'discardedBlocks',
    'storedBytes',
  ])('%s of the commit', (field) => {
    using folder = new TempFolder();
    for (const number of numbers)
      expectRefused(craftWith(folder, { commit: (honest) => ({ ...honest, [field]: number }) }));
  });

  it('the offset of a page', () => {
    using folder = new TempFolder();
    for (const number of numbers)
      expectRefused(craftWith(folder, { root: (honest) => ({ ...honest, pageOffset: number }) }));
  });

  it('the number of a page', () => {
    using folder = new TempFolder();
    for (const pageNumber of [1, 2 ** 31, 2 ** 32 - 1])
      expectRefused(craftWith(folder, { root: (honest) => ({ ...honest, pageNumber }) }));
  });

  it('the offset of a leaf', () => {
    using folder = new TempFolder();
    for (const number of numbers)
      expectRefused(craftWith(folder, { page: (honest) => ({ ...honest, leafOffset: number }) }));
  });

  it('the offset and the length of a record', () => {
    using folder = new TempFolder();
    for (const number of numbers)
      expectRefused(craftWith(folder, { entry: (honest) => ({ ...honest, offset: number }) }));
    for (const storedBytes of [blockBytes + 1, 2 ** 31, 2 ** 32 - 1])
      expectRefused(craftWith(folder, { entry: (honest) => ({ ...honest, storedBytes }) }));
  });

  it.each([0, 1, 512, 8 * KiB, 24 * KiB, 2 * MiB, 2 ** 31, 2 ** 32 - 1])('a block size of %i', (size) => {
    using folder = new TempFolder();
    expectRefused(craftWith(folder, { superblock: (honest) => ({ ...honest, blockBytes: size }) }));
  });

  it.each([0, 1, 511, 768, 2 ** 17, 2 ** 32 - 1])('a sector size of %i', (size) => {
    using folder = new TempFolder();
    expectRefused(craftWith(folder, { superblock: (honest) => ({ ...honest, logicalSectorBytes: size }) }));
    expectRefused(craftWith(folder, { superblock: (honest) => ({ ...honest, physicalSectorBytes: size }) }));
  });

  it.each(['kind', 'content', 'codec'])('an unknown %s', (field) => {
    using folder = new TempFolder();
    for (const number of [5, 255])
      expectRefused(craftWith(folder, { superblock: (honest) => ({ ...honest, [field]: number }) }));
  });
});

describe('an offset that leads into the superblock, the commit or past the end is refused', () => {
  it.each([0, 1, 4095])('byte %i', (offset) => {
    using folder = new TempFolder();
    expectRefused(craftWith(folder, { root: (honest) => ({ ...honest, pageOffset: BigInt(offset) }) }));
    expectRefused(craftWith(folder, { entry: (honest) => ({ ...honest, offset: BigInt(offset) }) }));
    expectRefused(craftWith(folder, { commit: (honest) => ({ ...honest, rootOffset: BigInt(offset) }) }));
    // 0 says that there is no leaf.
    if (offset > 0) expectRefused(craftWith(folder, { page: (honest) => ({ ...honest, leafOffset: BigInt(offset) }) }));
  });

  it.each([0, 1, 15, 4096, 8192])('%i bytes before the end', (before) => {
    using folder = new TempFolder();
    const size = BigInt(fs.statSync(craftWith(folder, {})).size - before);
    expectRefused(craftWith(folder, { root: (honest) => ({ ...honest, pageOffset: size }) }));
    expectRefused(craftWith(folder, { entry: (honest) => ({ ...honest, offset: size }) }));
    expectRefused(craftWith(folder, { page: (honest) => ({ ...honest, leafOffset: size }) }));
    expectRefused(craftWith(folder, { commit: (honest) => ({ ...honest, rootOffset: size }) }));
  });
});

it('a root that is larger than the disk can need is refused before it is read', () => {
  using folder = new TempFolder();
  const rootBytes = 3 * GiB;
  const { bytes } = craftImage({
    blocks: new Map(),
    sizeBytes: 512,
    lies: {
      commit: (honest) => ({
        ...honest,
        rootOffset: 4096n,
        rootBytes: BigInt(rootBytes),
        fileSizeBytes: BigInt(rootBytes + 8192),
      }),
    },
  });
  // A sparse file of that size: superblock, a hole, commit.
  const path = folder.write('disk.spf', bytes.subarray(0, 4096));
  fs.truncateSync(path, rootBytes + 4096);
  fs.appendFileSync(path, bytes.subarray(-4096));
  const started = processorMs();
  const before = process.memoryUsage().arrayBuffers;
  expect(() => openChain(path)).toThrow(FormatError);
  expect(() => openChain(path)).toThrow(/rootBytes/);
  expect(processorMs() - started).toBeLessThan(200);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(MiB);
});

it('the largest disk there may be opens at once and reads', () => {
  using folder = new TempFolder();
  const last = maxSourceBytes / blockBytes - 1;
  const blocks = new Map([[last, rawBlock(Buffer.alloc(blockBytes, 7))]]);
  const path = folder.write('disk.spf', craftImage({ blocks, sizeBytes: maxSourceBytes, blockBytes }).bytes);
  const started = processorMs();
  using disk = closing(openChainDisk(path));
  expect(disk.value.sizeBytes).toBe(1024 * TiB);
  expect([...disk.value.extents(0, maxSourceBytes)]).toEqual([
    { offset: 0, length: maxSourceBytes - blockBytes, kind: 'zero' },
    { offset: maxSourceBytes - blockBytes, length: blockBytes, kind: 'data' },
  ]);
  const bytes = Buffer.alloc(10);
  disk.value.read(bytes, maxSourceBytes - 10);
  expect(bytes.every((byte) => byte === 7)).toBe(true);
  expect(processorMs() - started).toBeLessThan(500);
});
