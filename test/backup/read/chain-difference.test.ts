/** Where two chains may differ, told by their indexes: never less than where their bytes differ, and little more. */
import { expect, it } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { chainDifference } from '../../../src/backup/read/chain-difference.ts';
import type { ByteRange } from '../../../src/disk/byte-ranges.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { consolidateChain } from '../../../src/backup/care/consolidate-chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import type { KeyRing } from '../../../src/backup/crypto/key-ring.ts';
import type { ModelDisk } from '../../disk/model-disk.ts';
import { seededTest, soak, type Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { keyFile, ringOf } from '../keys.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

const blockBytes = 16 * KiB;
const rounds = soak ? 150 : 4;
const owner = keyFile('owner');

interface Snapshot {
  readonly file: string;
  readonly model: ModelDisk;
}

function difference(one: string, other: string, keys?: KeyRing): ByteRange[] | undefined {
  using first = closing(openChainDisk(one, undefined, undefined, keys));
  using second = closing(openChainDisk(other, undefined, undefined, keys));
  const ranges = chainDifference(first.value, second.value);
  // No block was read.
  expect(first.value.cacheMisses + second.value.cacheMisses).toBe(0);
  return ranges;
}

/** Blocks whose bytes differ; behind a disk's end there are zeros. */
function differingBlocks(one: ModelDisk, other: ModelDisk): number[] {
  const end = Math.max(one.sizeBytes, other.sizeBytes);
  const blocks: number[] = [];
  for (let block = 0; block * blockBytes < end; block++) {
    if (!one.read(block * blockBytes, blockBytes).equals(other.read(block * blockBytes, blockBytes)))
      blocks.push(block);
  }
  return blocks;
}

function expectCovered(ranges: ByteRange[] | undefined, one: Snapshot, other: Snapshot): void {
  const blocks = new Set<number>();
  for (const { offset, length } of ranges ?? expect.fail('they are of one lineage'))
    for (let at = offset; at < offset + length; at += blockBytes) blocks.add(at / blockBytes);
  const missing = differingBlocks(one.model, other.model).filter((block) => !blocks.has(block));
  expect(missing, `${one.file} and ${other.file}`).toEqual([]);
}

/** Puts a consolidated image in the place of some that follow each other, or beside them. */
async function consolidate(snapshots: Snapshot[], random: Seeded, folder: TempFolder, number: number): Promise<void> {
  const index = random.below(snapshots.length);
  const snapshot = snapshots[index];
  if (snapshot === undefined) return;
  using chain = closing(openChainDisk(snapshot.file));
  const sequences = chain.value.images.map(({ description }) => description.sequence);
  const to = sequences[0] ?? 0;
  const from = random.oneIn(3) ? 0 : random.pick(sequences);
  if (sequences.filter((sequence) => sequence >= from).length < 2) return;
  const file = folder.file(`${number}-consolidated.spi`);
  await consolidateChain([snapshot.file], file, { from, to });
  snapshots[index] = { file, model: snapshot.model };
}

it.each(Array.from({ length: rounds }, (_, round) => round))(
  'of any two images of a lineage with branches, resizes and consolidated images (round %i)',
  { timeout: 1_800_000 },
  async (round) => {
    const random = seededTest(`chain difference ${round}`);
    const keys = round % 4 === 3 ? ringOf(owner) : undefined;
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), random.between(MiB, 12 * MiB));
    scribble(source, random, 8);
    const snapshots: Snapshot[] = [];
    for (let number = 0; number < 10; number++) {
      if (random.oneIn(3)) source.resize(random.between(MiB, 12 * MiB));
      scribble(source, random, random.between(0, 4));
      const parent = random.oneIn(3) ? snapshots.at(random.below(Math.max(1, snapshots.length))) : snapshots.at(-1);
      const file = folder.file(`${number}.spi`);
      await createImage(source.path, file, {
        threads: 1,
        ...(parent === undefined
          ? { blockBytes, ...(keys === undefined ? {} : { encrypt: owner }) }
          : { parent: parent.file, ...(keys === undefined ? {} : { keys }) }),
      });
      snapshots.push({ file, model: source.model.copy() });
      if (number > 2 && random.oneIn(3)) await consolidate(snapshots, random, folder, number);
    }
    for (const one of snapshots)
      for (const other of snapshots) expectCovered(difference(one.file, other.file, keys), one, other);
  },
);

it('is nothing for one image and itself, what was written for a child, and both sides for branches', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 20 * MiB);
  const random = seededTest('chain difference by hand');
  source.write(0, random.bytes(15 * MiB));
  const [full, child, branch] = ['full.spf', 'child.spi', 'branch.spi'].map((name) => folder.file(name)) as [
    string,
    string,
    string,
  ];
  await createImage(source.path, full, { blockBytes });
  source.write(3 * blockBytes + 5, random.bytes(1));
  source.zero(700 * blockBytes, blockBytes);
  await createImage(source.path, child, { parent: full });
  source.write(9 * blockBytes, random.bytes(1));
  await createImage(source.path, branch, { parent: full });
  const at = (...blocks: number[]): ByteRange[] =>
    blocks.map((block) => ({ offset: block * blockBytes, length: blockBytes }));
  expect(difference(full, full)).toEqual([]);
  expect(difference(child, full)).toEqual(at(3, 700));
  expect(difference(full, child)).toEqual(at(3, 700));
  // Equal bytes that two images hold are not known to be equal.
  expect(difference(child, branch)).toEqual(at(3, 9));
  // Zero in both, whichever image says so. Consolidated with the full one, what became zero is left out of it.
  const merged = folder.file('merged.spi');
  await consolidateChain([child], merged, {});
  expect(difference(merged, full)).toEqual(at(3, 700));
  expect(difference(full, merged)).toEqual(at(3, 700));
  expect(difference(merged, child)).toEqual([]);
});

it('is unknown for chains that have no image in common', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), MiB);
  await createImage(source.path, folder.file('one.spf'));
  await createImage(source.path, folder.file('two.spf'));
  expect(difference(folder.file('one.spf'), folder.file('two.spf'))).toBeUndefined();
});
