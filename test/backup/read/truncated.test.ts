import fs from 'node:fs';
import { expect, it } from 'vitest';
import { UnavailableError, VeneerError } from '../../../src/base/errors.ts';
import { closing } from '../../../src/base/ownership.ts';
import { KiB } from '../../../src/base/units.ts';
import { openChain, openChainDisk } from '../../../src/backup/read/chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { seededTest, soak } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { structuresOf } from '../crafted-image.ts';
import { thrownBy } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';
import { makeTinyImage } from '../tiny-image.ts';

it('an image truncated at any length is refused', async () => {
  const random = seededTest('truncated');
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 20 * 1024 * KiB);
  scribble(source, random, 12);
  const path = folder.file('disk.spf');
  await createImage(source.path, path, { blockBytes: 16 * KiB });
  const whole = fs.readFileSync(path);
  const lengths = Array.from({ length: soak ? 3000 : 300 }, () => random.below(whole.length));
  // And at the ends of all structures, and one byte beside them.
  const ends = structuresOf(whole).map(({ offset, length }) => offset + length);
  const edges = ends.flatMap((end) => [end - 1, end, end + 1]).filter((length) => length < whole.length);
  for (const length of [...lengths, ...edges].sort((a, b) => b - a)) {
    fs.truncateSync(path, length);
    const error = thrownBy(() => openChain(path));
    expect(error, `at ${length} bytes`).toBeInstanceOf(VeneerError);
    expect(error, `at ${length} bytes`).toHaveProperty('code', 'FORMAT');
  }
});

it('an image with bytes behind its end is refused', async () => {
  using image = await makeTinyImage();
  for (const behind of [1, 512, 4096, 100_000]) {
    image.put(Buffer.concat([image.bytes, Buffer.alloc(behind)]));
    expect(() => openChain(image.path)).toThrow(VeneerError);
    image.put(Buffer.concat([image.bytes, image.bytes.subarray(-behind)]));
    expect(() => openChain(image.path)).toThrow(VeneerError);
  }
});

it('an image that holds an image is refused when it is truncated right behind the inner one', async () => {
  using inner = await makeTinyImage();
  const { folder } = inner;
  const outerPath = folder.file('outer.spf');
  await createImage(inner.path, outerPath, { codec: 'none', blockBytes: 16 * KiB });
  const outer = fs.readFileSync(outerPath);
  const innerCommit = outer.indexOf('VENEERCM');
  expect(innerCommit).toBeLessThan(outer.lastIndexOf('VENEERCM'));
  fs.truncateSync(outerPath, innerCommit + 4 * KiB);
  expect(() => openChain(outerPath)).toThrow(VeneerError);
});

it('an image that is truncated while it is open gives an error, not zeros', async () => {
  using image = await makeTinyImage('none');
  using disk = closing(openChainDisk(image.path));
  const block = Buffer.alloc(16 * KiB);
  disk.value.read(block, 0);
  fs.truncateSync(image.path, 10_000);
  expect(() => disk.value.read(block, 3 * block.length)).toThrow(UnavailableError);
});
