import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage, type CreateOptions } from '../../../src/backup/write/create.ts';
import { covering } from '../../covering.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

/** Sizes on block boundaries, inside blocks, and across leaves of 512 blocks of 16 KiB. */
const journeys: ReadonlyArray<readonly number[]> = [
  [MiB, 2 * MiB, 3 * MiB + 512],
  [2 * MiB, MiB, 2 * MiB],
  [2 * MiB, MiB + 512, 2 * MiB],
  [2 * MiB, 512, 2 * MiB],
  [20 * MiB, 5 * MiB + 1, 20 * MiB],
  [20 * MiB, 8 * MiB, 9 * MiB, 30 * MiB, 8 * MiB + 100, 17 * MiB],
  [MiB, MiB + 1, MiB, MiB + 16 * KiB, MiB - 1, 2 * MiB],
];

const ways = ['full of data', 'written in between', 'changed ranges'] as const;
type Way = (typeof ways)[number];

/** A soak has every journey in every way, `npm test` each journey, and each way. */
const followed = covering(
  journeys.flatMap((sizes) => ways.map((way) => ({ sizes, way, title: sizes.join(', ') }))),
  ({ title, way }) => [title, way],
);

it.each(followed)(
  'a disk of $title bytes reads right in every image when it is resized: $way',
  async ({ sizes, way }) => {
    await follow(sizes, way);
  },
);

async function follow(sizes: readonly number[], way: Way): Promise<void> {
  const random = seededTest(`resized ${sizes.join(' ')} ${way}`);
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), sizes[0] ?? 0);
  source.write(0, random.bytes(source.sizeBytes));
  const images: Array<{ name: string; model: typeof source.model }> = [];
  for (const [index, sizeBytes] of sizes.entries()) {
    source.resize(sizeBytes);
    const touched = way === 'full of data' ? [] : scribble(source, random, 3);
    const name = folder.file(`${index}.spi`);
    const parent = images.at(-1)?.name;
    const options: CreateOptions = parent === undefined ? { blockBytes: 16 * KiB } : { parent };
    const changed = parent !== undefined && way === 'changed ranges' ? { changed: touched } : {};
    await createImage(source.path, name, { ...options, ...changed });
    images.push({ name, model: source.model.copy() });
  }
  for (const { name, model } of images) expectImageHolds(name, model);
}

it('growth alone costs nothing', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), MiB);
  scribble(source, seededTest('growth'), 4);
  await createImage(source.path, folder.file('1.spf'));
  source.resize(900 * MiB);
  const grown = await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
  expect(grown).toMatchObject({ dataBlocks: 0, zeroBlocks: 0, sourceSizeBytes: 900 * MiB });
});
