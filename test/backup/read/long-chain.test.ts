import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import path from 'node:path';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { maxChainDepth } from '../../../src/backup/format/layout.ts';
import { ModelDisk } from '../../disk/model-disk.ts';
import { seededTest, soak } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { craftImage, numberedGuid, rawBlock, type CraftedBlock, type CraftedParent } from '../crafted-image.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

const blockBytes = 16 * KiB;
const reader = path.join(import.meta.dirname, '..', 'read-chain-script.ts');

/** A chain of crafted images, each of a few blocks; making them with `createImage` would open all parents for each. */
function craftChain(folder: TempFolder, count: number, model: ModelDisk, random = seededTest('long chain')): string {
  let parent: CraftedParent | undefined;
  let name = '';
  const lastBlock = Math.floor(model.sizeBytes / blockBytes) - 1;
  for (let sequence = 0; sequence < count; sequence++) {
    const blocks = new Map<number, CraftedBlock>();
    for (let change = random.below(3); change >= 0; change--) {
      const position = random.oneIn(2) ? random.below(30) : random.between(0, lastBlock);
      const isZero = random.oneIn(4);
      const bytes = random.bytes(blockBytes);
      blocks.set(position, isZero ? 'zero' : rawBlock(bytes));
      if (isZero) model.zero(position * blockBytes, blockBytes);
      else model.write(position * blockBytes, bytes);
    }
    name = `${String(sequence).padStart(5, '0')}.spi`;
    const imageId = numberedGuid(sequence + 1);
    const crafted = craftImage({
      blocks,
      sizeBytes: model.sizeBytes,
      blockBytes,
      imageId,
      sequence,
      ...(parent === undefined ? {} : { parent }),
    });
    folder.write(name, crafted.bytes);
    parent = { imageId, name, commitHash: crafted.commitHash };
  }
  return folder.file(name);
}

it('a chain of 1,000 incrementals reads right, in bounded memory', () => {
  using folder = new TempFolder();
  const model = new ModelDisk(40 * MiB);
  const newest = craftChain(folder, 1001, model);
  expectImageHolds(newest, model);

  const result = spawnSync(process.execPath, [reader, newest], { encoding: 'utf8' });
  expect(result.stderr).toBe('');
  const { sha256, images, residentMiB, openMs } = JSON.parse(result.stdout) as Record<string, unknown>;
  expect(sha256).toBe(createHash('sha256').update(model.read(0, model.sizeBytes)).digest('hex'));
  expect(images).toBe(1001);
  // Node itself takes 60 to 80 of them.
  expect(residentMiB).toBeLessThan(200);
  expect(openMs).toBeLessThan(3000);
});

it('an incremental of a chain of 300 is made and reads right', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 40 * MiB);
  const newest = craftChain(folder, 300, source.model);
  source.write(0, source.model.read(0, source.sizeBytes));
  source.write(123_456, Buffer.from('something new'));
  const made = await createImage(source.path, folder.file('new.spi'), { parent: newest, threads: 2 });
  expect(made).toMatchObject({ sequence: 300, dataBlocks: 1, zeroBlocks: 0 });
  expectImageHolds(folder.file('new.spi'), source.model);
});

it.runIf(soak)('a chain of 1,000 incrementals is made one by one', { timeout: 600_000 }, async () => {
  const random = seededTest('one by one');
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 3 * MiB + 100);
  let parent: string | undefined;
  for (let index = 0; index <= 1000; index++) {
    scribble(source, random, 1);
    const name = folder.file(`${index}.spi`);
    await createImage(source.path, name, parent === undefined ? { blockBytes } : { parent });
    parent = name;
    if (index % 200 === 0) expectImageHolds(name, source.model);
  }
});

it.runIf(soak)('a chain as deep as it may be takes no further image', { timeout: 600_000 }, async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), MiB);
  const newest = craftChain(folder, maxChainDepth, new ModelDisk(MiB));
  await expect(createImage(source.path, folder.file('new.spi'), { parent: newest })).rejects.toThrow(/takes no more/);
});
