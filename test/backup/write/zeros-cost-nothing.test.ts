import fs from 'node:fs';
import { expect, it } from 'vitest';
import { GiB, KiB, MiB, TiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { extractImage } from '../../../src/backup/read/extract.ts';
import { minFileBytes } from '../../../src/backup/format/layout.ts';
import { processorMs, Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { SourceDisk } from '../source-disk.ts';

it('an image of a disk that is one hole is a superblock and a commit', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 5 * GiB + 512);
  const description = await createImage(source.path, folder.file('disk.spf'));
  expect(description).toMatchObject({ dataBlocks: 0, zeroBlocks: 0, storedBytes: 0, fileSizeBytes: minFileBytes });
});

it('an image of written zeros is as small as one of holes', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 3 * MiB + 512);
  source.zero(0, source.sizeBytes);
  const description = await createImage(source.path, folder.file('disk.spf'));
  expect(description).toMatchObject({ dataBlocks: 0, zeroBlocks: 0, storedBytes: 0, fileSizeBytes: minFileBytes });
  expectImageHolds(folder.file('disk.spf'), source.model);
});

it('an image holds only the blocks that hold something', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 100 * MiB);
  source.write(64 * KiB, Buffer.from([1]));
  source.write(64 * KiB * 700 - 1, Buffer.from([2, 3]));
  const description = await createImage(source.path, folder.file('disk.spf'));
  expect(description).toMatchObject({ dataBlocks: 3, zeroBlocks: 0 });
  expect(description.fileSizeBytes).toBeLessThan(64 * KiB);
  expectImageHolds(folder.file('disk.spf'), source.model);
});

it('an image of a hole of 8 TiB with data at both ends is made and extracted in no time', async () => {
  using folder = new TempFolder();
  const sizeBytes = 8 * TiB + 512;
  const source = new SourceDisk(folder.file('source.raw'), sizeBytes);
  const data = new Seeded('both ends').bytes(100 * KiB);
  source.write(0, data);
  source.write(sizeBytes - data.length, data);
  const started = processorMs();
  const description = await createImage(source.path, folder.file('disk.spf'), { threads: 2 });
  expect(description.dataBlocks).toBeLessThanOrEqual(5);
  expect(description.fileSizeBytes).toBeLessThan(400 * KiB);
  const { writtenBytes } = extractImage(folder.file('disk.spf'), folder.file('out.raw'));
  expect(processorMs() - started).toBeLessThan(5000);
  expect(writtenBytes).toBeLessThan(400 * KiB);
  const end = Buffer.alloc(data.length);
  const fd = fs.openSync(folder.file('out.raw'), 'r');
  fs.readSync(fd, end, 0, end.length, sizeBytes - end.length);
  fs.closeSync(fd);
  expect(end.equals(data)).toBe(true);
});

it('an extracted disk is as sparse as its source', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 64 * MiB);
  source.write(20 * MiB, new Seeded('sparse').bytes(100 * KiB));
  await createImage(source.path, folder.file('disk.spf'));
  extractImage(folder.file('disk.spf'), folder.file('out.raw'));
  const stat = fs.statSync(folder.file('out.raw'));
  expect(stat.size).toBe(64 * MiB);
  expect(stat.blocks * 512).toBeLessThan(MiB);
});
