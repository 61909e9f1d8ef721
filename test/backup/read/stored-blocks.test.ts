/** Blocks that are stored as they are, sealed or not: read by the page, and checked at every read all the same. */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { IntegrityError } from '../../../src/base/errors.ts';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { BlockCache } from '../../../src/backup/read/block-cache.ts';
import { openChainDisk, type ChainDisk } from '../../../src/backup/read/chain.ts';
import { createImage, type CreateOptions } from '../../../src/backup/write/create.ts';
import { sealOverheadBytes } from '../../../src/backup/crypto/seal.ts';
import { Seeded, seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { crc32c } from '../../../src/bytes/checksum.ts';
import { structuresOf } from '../crafted-image.ts';
import { keyFile, ringOf } from '../keys.ts';
import type { PageReaderData, PageReaderResult } from './page-reader.ts';

const blockBytes = 64 * KiB;
const owner = keyFile('owner of stored blocks');
const kinds = ['plain', 'sealed'] as const;
type Kind = (typeof kinds)[number];
/** Bits that change no CRC-32C wherever they are turned over: its polynomial, the highest power first. */
const unseenChange = [0xf1, 0x76, 0xec, 0x05, 0x01];

afterEach(() => vi.restoreAllMocks());

async function makeImage(kind: Kind, source: string, image: string, more: Partial<CreateOptions> = {}): Promise<void> {
  const sealing = kind === 'sealed' ? { encrypt: owner } : {};
  await createImage(source, image, { codec: 'none', blockBytes, ...sealing, ...more });
}

function openDisk(image: string, cache = BlockCache.ofOneThread(2 * MiB)): ChainDisk {
  return openChainDisk(image, cache, undefined, ringOf(owner));
}

/** Where a block's first byte, sealed perhaps, stands in the image. */
function placeOf(kind: Kind, image: Buffer, position: number): number {
  const payload = structuresOf(image).find(
    (structure) => structure.kind === 'payload' && structure.position === position,
  );
  return (payload?.offset ?? Number.NaN) + (kind === 'sealed' ? sealOverheadBytes : 0);
}

function bytesAt(disk: ChainDisk, offset: number, length: number): Buffer {
  const target = Buffer.alloc(length);
  disk.read(target, offset);
  return target;
}

/** Writes into a file as a disk that decays would: nobody is told. */
function overwrite(path: string, offset: number, bytes: Uint8Array): void {
  const fd = fs.openSync(path, 'r+');
  fs.writeSync(fd, bytes, 0, bytes.length, offset);
  fs.closeSync(fd);
}

it.each(kinds.flatMap((kind) => [16 * KiB, 64 * KiB, 256 * KiB, MiB].map((size) => ({ kind, size }))))(
  'a disk of stored ($kind), compressed and zero blocks of $size bytes reads the same whole and in parts, the first time and later',
  async ({ kind, size }) => {
    const random = seededTest(`stored blocks of ${size}, ${kind}`);
    using folder = new TempFolder();
    const bytes = Buffer.concat(
      Array.from({ length: 24 }, (_, block) =>
        block % 5 === 3
          ? random.compressibleBytes(size)
          : block % 7 === 6
            ? Buffer.alloc(size)
            : random.bytes(size - (block === 23 ? 5 * 512 : 0)),
      ),
    );
    const source = folder.write('disk.raw', bytes);
    const codec = random.oneIn(2) ? 'zstd' : 'lz4';
    await makeImage(kind, source, folder.file('disk.spf'), { codec, blockBytes: size });
    using opened = closing(openDisk(folder.file('disk.spf')));
    const disk = opened.value;
    for (let step = 0; step < 300; step++) {
      const unit = random.pick([1, 512, 4096, size]);
      const offset = Math.floor(random.below(bytes.length) / unit) * unit;
      const most = Math.min(bytes.length - offset, random.pick([4096, 3 * size]));
      const length = Math.max(1, Math.floor(random.between(1, most) / unit) * unit);
      const within = Math.min(length, bytes.length - offset);
      expect(bytesAt(disk, offset, within).equals(bytes.subarray(offset, offset + within))).toBe(true);
    }
  },
);

describe.each(kinds)('stored blocks, %s', (kind) => {
  it('a byte that is flipped after the first read of its block is noticed at the next, however that reads', async () => {
    const random = seededTest(`flipped after the first read, ${kind}`);
    using folder = new TempFolder();
    const bytes = random.bytes(MiB);
    const image = folder.file('disk.spf');
    await makeImage(kind, folder.write('disk.raw', bytes), image);
    using opened = closing(openDisk(image));
    const disk = opened.value;
    for (let block = 0; block < 16; block++) bytesAt(disk, block * blockBytes + 100, 10);
    const stored = fs.readFileSync(image);
    for (let round = 0; round < 40; round++) {
      const at = random.below(MiB);
      const block = Math.floor(at / blockBytes);
      const inFile = placeOf(kind, stored, block) + (at % blockBytes);
      overwrite(image, inFile, Uint8Array.of((stored[inFile] ?? 0) ^ (1 << random.below(8))));
      const page = at - (at % 4096);
      expect(() => bytesAt(disk, at, 1)).toThrow(IntegrityError);
      expect(() => bytesAt(disk, page, 4096)).toThrow(IntegrityError);
      expect(() => bytesAt(disk, Math.max(0, page - 4096), 8192)).toThrow(IntegrityError);
      expect(() => bytesAt(disk, block * blockBytes, blockBytes)).toThrow(IntegrityError);
      expect(() => bytesAt(disk, 0, MiB)).toThrow(IntegrityError);
      overwrite(image, inFile, stored.subarray(inFile, inFile + 1));
      expect(bytesAt(disk, page, 4096).equals(bytes.subarray(page, page + 4096))).toBe(true);
    }
  });

  it('a damaged block gives none of its bytes at its first read, not those that are sound either', async () => {
    using folder = new TempFolder();
    const bytes = new Seeded('damaged stored block').bytes(MiB);
    const image = folder.file('disk.spf');
    await makeImage(kind, folder.write('disk.raw', bytes), image);
    const stored = fs.readFileSync(image);
    const inFile = placeOf(kind, stored, 4) + 1000;
    overwrite(image, inFile, Uint8Array.of((stored[inFile] ?? 0) ^ 1));
    using opened = closing(openDisk(image));
    const disk = opened.value;
    for (const within of [60_000, 60_000, 0])
      expect(() => bytesAt(disk, 4 * blockBytes + within, 10)).toThrow(IntegrityError);
    expect(bytesAt(disk, 5 * blockBytes, 10).equals(bytes.subarray(5 * blockBytes, 5 * blockBytes + 10))).toBe(true);
  });

  it('checksums that were remembered wrongly cost a second look, and neither a wrong byte nor an error', async () => {
    const random = seededTest(`wrong page sums, ${kind}`);
    using folder = new TempFolder();
    const bytes = random.bytes(MiB);
    const image = folder.file('disk.spf');
    await makeImage(kind, folder.write('disk.raw', bytes), image);
    const cache = BlockCache.ofOneThread(MiB);
    using opened = closing(openDisk(image, cache));
    const disk = opened.value;
    for (let block = 0; block < 16; block++) bytesAt(disk, block * blockBytes, 1);
    const words = new Int32Array(cache.memory.sums);
    for (let round = 0; round < 200; round++) {
      words[random.below(words.length)] = random.below(2 ** 32);
      const offset = random.below(MiB - 5000);
      expect(bytesAt(disk, offset, 5000).equals(bytes.subarray(offset, offset + 5000))).toBe(true);
    }
  });

  it('checksums of one image are never taken for those of another', async () => {
    const random = seededTest(`page sums of two images, ${kind}`);
    using folder = new TempFolder();
    const cache = BlockCache.ofOneThread(2 * MiB);
    const disks = [];
    for (const name of ['a', 'b']) {
      const bytes = random.bytes(MiB);
      const image = folder.file(`${name}.spf`);
      await makeImage(kind, folder.write(name, bytes), image, { threads: 1 });
      disks.push({ bytes, image, disk: openDisk(image, cache) });
    }
    const [one, other] = disks;
    for (const { disk } of disks) for (let block = 0; block < 16; block++) bytesAt(disk, block * blockBytes, 1);
    // Every byte of the one now stands where the other's was, its remembered checksums among those of both.
    const foreign = fs.readFileSync(one?.image ?? '').subarray(4096, -4096);
    overwrite(other?.image ?? '', 4096, foreign);
    for (let page = 0; page < 256; page++) {
      expect(() => other?.disk.read(new Uint8Array(4096), page * 4096)).toThrow(IntegrityError);
      expect(
        one?.disk && bytesAt(one.disk, page * 4096, 4096).equals(one.bytes.subarray(page * 4096, (page + 1) * 4096)),
      ).toBe(true);
    }
    for (const { disk } of disks) disk.close();
  });

  it('pages are read alone once their block is known, and neighbours in the file with one call', async () => {
    using folder = new TempFolder();
    const bytes = new Seeded('few calls').bytes(MiB);
    const image = folder.file('disk.spf');
    for (const codec of ['none', 'zstd'] as const) {
      const source = codec === 'none' ? bytes : new Seeded('few calls').compressibleBytes(MiB);
      await makeImage(kind, folder.write('disk.raw', source), image, { codec, threads: 1, force: true });
      using opened = closing(openDisk(image));
      const disk = opened.value;
      bytesAt(disk, 0, 4096);
      const calls = [vi.spyOn(fs, 'readSync'), vi.spyOn(fs, 'readvSync')];
      syncBuiltinESMExports();
      expect(bytesAt(disk, 0, MiB).equals(source)).toBe(true);
      // What is compressed goes through a buffer that need not hold all of it.
      const most = codec === 'none' ? 1 : 2;
      expect(calls.reduce((sum, spy) => sum + spy.mock.calls.length, 0)).toBeLessThanOrEqual(most);
      restoreReads();
      if (codec !== 'none') continue;
      const single = vi.spyOn(fs, 'readSync');
      syncBuiltinESMExports();
      bytesAt(disk, 8192, 4096);
      expect(single.mock.calls.map((call: unknown[]) => call[3])).toEqual([4096]);
      restoreReads();
    }
  });
});

function restoreReads(): void {
  vi.restoreAllMocks();
  syncBuiltinESMExports();
}

it('sealed bytes that are changed so that every checksum still fits are noticed, however they are read', async () => {
  const random = seededTest('changed under the same checksum');
  using folder = new TempFolder();
  const bytes = random.bytes(MiB);
  const image = folder.file('disk.spf');
  await makeImage('sealed', folder.write('disk.raw', bytes), image);
  using opened = closing(openDisk(image));
  const disk = opened.value;
  for (let block = 0; block < 16; block++) bytesAt(disk, block * blockBytes, 1);
  const stored = fs.readFileSync(image);
  for (let round = 0; round < 40; round++) {
    const block = random.below(16);
    const within = random.below(blockBytes - unseenChange.length);
    const page = block * blockBytes + within - (within % 4096);
    const inFile = placeOf('sealed', stored, block) + within;
    const before = stored.subarray(inFile, inFile + unseenChange.length);
    const after = before.map((byte, at) => byte ^ (unseenChange[at] ?? 0));
    expect(crc32c(after)).toBe(crc32c(before));
    overwrite(image, inFile, after);
    const sealBroken = /its seal does not hold/;
    expect(() => bytesAt(disk, page, 4096)).toThrow(sealBroken);
    expect(() => bytesAt(disk, page + 100, 1)).toThrow(sealBroken);
    expect(() => bytesAt(disk, block * blockBytes, blockBytes)).toThrow(sealBroken);
    overwrite(image, inFile, before);
    expect(bytesAt(disk, page, 4096).equals(bytes.subarray(page, page + 4096))).toBe(true);
  }
});

it('threads that share a small table all read what belongs there', async () => {
  using folder = new TempFolder();
  const bytes = new Seeded('threads and pages').bytes(4 * MiB);
  const image = folder.file('disk.spf');
  const raw = folder.write('disk.raw', bytes);
  await createImage(raw, image, { codec: 'none', blockBytes });
  const memory = BlockCache.allocate(64 * KiB);
  const results = await Promise.all(
    [1, 2, 3].map(async (owner) => {
      const data: PageReaderData = { memory, owner, image, raw, steps: 3000 };
      const worker = new Worker(new URL('./page-reader.ts', import.meta.url), { workerData: data });
      return await new Promise<PageReaderResult>((resolve, reject) => {
        worker.on('message', resolve);
        worker.on('error', reject);
      });
    }),
  );
  expect(results).toEqual([{ wrong: 0 }, { wrong: 0 }, { wrong: 0 }]);
});
