/** Consolidation: the result reads as what it takes the place of, for every restore point, and is accepted in its place. */
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { consolidateChain } from '../../../src/backup/care/consolidate-chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { describeChain } from '../../../src/backup/read/info.ts';
import { KeyRing } from '../../../src/backup/crypto/key-ring.ts';
import type { Credential } from '../../../src/backup/crypto/key-slots.ts';
import { verifyChain } from '../../../src/backup/care/verify.ts';
import { expectReadsAs, type ModelDisk } from '../../disk/model-disk.ts';
import { seededTest, type Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { faultsOf } from '../image-holds.ts';
import { keyFile, ringOf } from '../keys.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

const owner = keyFile('owner');
const blockBytes = 16 * KiB;

interface Chain extends Disposable {
  readonly folder: TempFolder;
  readonly source: SourceDisk;
  readonly keys: KeyRing;
  /** What the disk held at each image. */
  readonly models: ModelDisk[];
  readonly paths: string[];
}

/** A chain of images of a disk that is written, grown and shrunk between them. */
async function makeChain(random: Seeded, depth: number, encrypt?: Credential): Promise<Chain> {
  const folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 12 * MiB);
  const keys = encrypt === undefined ? new KeyRing() : ringOf(encrypt);
  const chain: Chain = { folder, source, keys, models: [], paths: [], [Symbol.dispose]: () => folder.remove() };
  scribble(source, random, 15);
  for (let step = 0; step < depth; step++) {
    if (step > 0 && random.oneIn(2)) source.resize(random.between(20, 900) * 16 * KiB + random.pick([0, 512]));
    scribble(source, random, 5);
    await addImage(chain, `${step}.${step === 0 ? 'spf' : 'spi'}`, random, encrypt);
  }
  return chain;
}

async function addImage(chain: Chain, name: string, random: Seeded, encrypt?: Credential): Promise<void> {
  const parent = chain.paths.at(-1);
  const file = chain.folder.file(name);
  await createImage(chain.source.path, file, {
    codec: random.pick(['none', 'lz4', 'zstd']),
    ...(parent === undefined
      ? { blockBytes, ...(encrypt === undefined ? {} : { encrypt }) }
      : { parent, keys: chain.keys }),
  });
  chain.paths.push(file);
  chain.models.push(chain.source.model.copy());
}

function expectHolds(imagePath: string, model: ModelDisk | undefined, keys: KeyRing): void {
  if (model === undefined) throw new Error('no model');
  using disk = closing(openChainDisk(imagePath, undefined, undefined, keys));
  expect(disk.value.sizeBytes).toBe(model.sizeBytes);
  expectReadsAs(disk.value, model);
  expect(faultsOf(imagePath)).toEqual([]);
  expect(faultsOf(imagePath, keys)).toEqual([]);
}

describe.each([
  ['a plain', undefined],
  ['an encrypted', owner],
])('%s chain', (what, encrypt) => {
  it('reads the same at every restore point after any part of it was consolidated and replaced', async () => {
    const random = seededTest(`consolidate ${what}`);
    for (let round = 0; round < 4; round++) {
      using chain = await makeChain(random, 6, encrypt);
      const from = random.below(4);
      const to = random.between(from + 1, 5);
      const target = chain.paths[to] ?? '';
      const done = await consolidateChain([target], target, { from, to, replace: true });
      expect(done).toMatchObject({ taken: to - from + 1, removed: to - from + 1 });
      const left = chain.paths.filter((_, index) => index < from || index >= to);
      expect(chain.folder.names().filter((name) => /sp[fi]$/.test(name))).toEqual(
        left.map((file) => path.basename(file)),
      );
      for (const [index, file] of chain.paths.entries()) {
        if (left.includes(file)) expectHolds(file, chain.models[index], chain.keys);
      }
      // And the chain goes on, and is consolidated again.
      scribble(chain.source, random, 4);
      await addImage(chain, '6.spi', random);
      const last = chain.paths.at(-1) ?? '';
      expectHolds(last, chain.models.at(-1), chain.keys);
      await consolidateChain([last], chain.folder.file('all.spf'));
      for (const file of [...left, last]) fs.rmSync(file);
      expectHolds(chain.folder.file('all.spf'), chain.models.at(-1), chain.keys);
      expect(describeChain(chain.folder.file('all.spf')).images).toHaveLength(1);
    }
  });

  it('leaves its images alone, byte for byte, when they are not replaced', async () => {
    const random = seededTest(`consolidate beside ${what}`);
    using chain = await makeChain(random, 3, encrypt);
    const before = chain.paths.map((file) => fs.readFileSync(file));
    await consolidateChain(chain.paths, chain.folder.file('all.spf'));
    expect(chain.paths.map((file, index) => fs.readFileSync(file).equals(before[index] ?? Buffer.alloc(0)))).toEqual([
      true,
      true,
      true,
    ]);
    expectHolds(chain.folder.file('all.spf'), chain.models[2], chain.keys);
  });
});

it('zeros of a disk that was smaller for a while are not undone by an image below', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 8 * MiB);
  const random = seededTest('smaller for a while');
  source.write(0, random.bytes(8 * MiB));
  await createImage(source.path, folder.file('0.spf'), { blockBytes });
  for (const [step, size] of [3 * MiB, 6 * MiB, 8 * MiB].entries()) {
    source.resize(size);
    await createImage(source.path, folder.file(`${step + 1}.spi`), {
      parent: folder.file(step === 0 ? '0.spf' : `${step}.spi`),
    });
  }
  await consolidateChain([folder.file('3.spi')], folder.file('3.spi'), { from: 1, to: 3, replace: true });
  expectHolds(folder.file('3.spi'), source.model, new KeyRing());
});

it('an image that another one is made on, or that is needed, is not taken away', async () => {
  const random = seededTest('needed');
  using chain = await makeChain(random, 3);
  const [, middle = '', newest = ''] = chain.paths;
  await createImage(chain.source.path, chain.folder.file('branch.spi'), { parent: middle });
  const before = chain.folder.names();
  await expect(consolidateChain([newest], newest, { replace: true })).rejects.toThrow(/branch\.spi is made on it/);
  fs.rmSync(chain.folder.file('branch.spi'));
  const whyNeeded = ({ sequence }: { sequence: number }): string | undefined =>
    sequence === 1 ? 'vm.vhdx points to it' : undefined;
  await expect(consolidateChain([newest], newest, { replace: true, whyNeeded })).rejects.toThrow(
    /vm\.vhdx points to it/,
  );
  expect(chain.folder.names()).toEqual(before.filter((name) => name !== 'branch.spi'));
});

it('a chain that someone reads is not pulled away, and one that is at rest is', async () => {
  const random = seededTest('in use');
  using chain = await makeChain(random, 3);
  const newest = chain.paths[2] ?? '';
  {
    using disk = closing(openChainDisk(chain.paths[1] ?? ''));
    await expect(consolidateChain([newest], newest, { replace: true })).rejects.toThrow(/1\.spi: is in use/);
    disk.value.read(Buffer.alloc(512), 0);
  }
  await consolidateChain([newest], newest, { replace: true });
  expectHolds(newest, chain.models[2], chain.keys);
});

it('damage in an input is found while it is copied, and nothing is replaced', async () => {
  const random = seededTest('damaged input');
  using chain = await makeChain(random, 3);
  const bytes = fs.readFileSync(chain.paths[0] ?? '');
  bytes[6000] = (bytes[6000] ?? 0) ^ 1;
  fs.writeFileSync(chain.paths[0] ?? '', bytes);
  const before = chain.folder.names();
  const newest = chain.paths[2] ?? '';
  const outcome = await consolidateChain([newest], newest, { replace: true }).catch((error: unknown) => error);
  if (outcome instanceof Error) expect(outcome).toMatchObject({ code: 'INTEGRITY' });
  // The damaged record may be one that a newer one hides.
  else expect(verifyChain(newest).faults).toBe(0);
  if (outcome instanceof Error) expect(chain.folder.names()).toEqual(before);
});
