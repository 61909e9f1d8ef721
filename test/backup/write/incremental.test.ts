import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { codecs } from '../../../src/backup/format/layout.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

const block = 64 * KiB;

it('an incremental of a disk that did not change holds nothing', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 5 * MiB + 512);
  scribble(source, seededTest('unchanged'), 10);
  await createImage(source.path, folder.file('1.spf'));
  const second = await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
  expect(second).toMatchObject({ kind: 'incremental', sequence: 1, dataBlocks: 0, zeroBlocks: 0, storedBytes: 0 });
  expectImageHolds(folder.file('2.spi'), source.model);
});

it('an incremental holds exactly the blocks that differ', async () => {
  using folder = new TempFolder();
  const random = seededTest('differ');
  const source = new SourceDisk(folder.file('source.raw'), 40 * MiB);
  source.write(0, random.bytes(10 * block));
  await createImage(source.path, folder.file('1.spf'));
  const before = source.model.copy();

  source.write(block - 1, Buffer.from([1, 2])); // blocks 0 and 1, in part
  source.zero(3 * block, block); // becomes zero
  source.zero(4 * block, block - 1); // all but one byte of it
  source.write(5 * block, source.model.read(5 * block, block)); // written again, with what was there
  source.write(600 * block, random.bytes(1)); // in another leaf, where nothing was
  source.zero(300 * block, block); // zeros where zeros were

  const second = await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
  expect(second).toMatchObject({ dataBlocks: 4, zeroBlocks: 1 });
  expectImageHolds(folder.file('2.spi'), source.model);
  expectImageHolds(folder.file('1.spf'), before);
});

it('a block that goes to zero and back reads right in every image of the chain', async () => {
  using folder = new TempFolder();
  const random = seededTest('zero and back');
  const source = new SourceDisk(folder.file('source.raw'), MiB);
  const data = random.bytes(block);
  const models = [];
  let parent: string | undefined;
  for (const [index, state] of [data, 'zero', 'zero', data, 'zero'].entries()) {
    if (state === 'zero') source.zero(2 * block, block);
    else source.write(2 * block, data);
    const name = folder.file(`${index}.spi`);
    await createImage(source.path, name, parent === undefined ? {} : { parent });
    models.push({ name, model: source.model.copy() });
    parent = name;
  }
  for (const { name, model } of models) expectImageHolds(name, model);
});

it('each image of a chain may have a codec of its own', async () => {
  using folder = new TempFolder();
  const random = seededTest('codecs');
  const source = new SourceDisk(folder.file('source.raw'), 4 * MiB + 1);
  let parent: string | undefined;
  for (const codec of [...codecs, ...codecs]) {
    scribble(source, random, 5);
    const name = folder.file(`${folder.names().length}.spi`);
    await createImage(source.path, name, parent === undefined ? { codec } : { codec, parent });
    expectImageHolds(name, source.model);
    parent = name;
  }
});

it('an incremental takes block size, content and codec of its chain', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), MiB);
  const options = { codec: 'lz4', blockBytes: 16 * KiB, content: 'volume' } as const;
  const first = await createImage(source.path, folder.file('1.spf'), options);
  const second = await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
  expect(second).toMatchObject({ ...options, chainId: first.chainId });
  expect(second.parent).toEqual({ imageId: first.imageId, name: '1.spf', commitHash: first.commitHash });
});
