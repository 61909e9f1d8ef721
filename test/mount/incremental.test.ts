/** An incremental image of a mounted disk on any parent: it holds what the mount reads, and reads no more than it must. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { consolidateChain } from '../../src/backup/care/consolidate-chain.ts';
import { extractImage } from '../../src/backup/read/extract.ts';
import type { KeyRing } from '../../src/backup/crypto/key-ring.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { keyFile, ringOf } from '../backup/keys.ts';
import { run, runOk, veneer, veneerOk, veneerRefuses, type Ran } from '../cli/veneer.ts';
import { seededTest, soak, type Seeded } from '../seeded.ts';
import { change, diskBytes, writeGuest } from './guest-disk.ts';
import { placeForTest, type MountPlace } from './mounted.ts';

/** A raw disk on `vm.spi`, mounted, and the raw file that it must equal. */
async function mounted(...options: readonly string[]): Promise<{ place: MountPlace; raw: string }> {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  for (const made of ['vm.vhdx', 'thin.vhdx']) fs.rmSync(place.behind(made));
  createPluginFile(place.behind('vm.spi'), place.behind('vm.raw'));
  await place.mount(...options);
  return { place, raw };
}

/** A later image of the same lineage: other bytes in a few places. */
async function laterImage(place: MountPlace, raw: string, name: string, random: Seeded, parent: string): Promise<void> {
  const copy = place.temporary.file('later.raw');
  fs.copyFileSync(raw, copy);
  for (const offset of [2 * MiB + 100, 17 * MiB]) change(copy, offset, random.bytes(20 * KiB));
  await createImage(copy, place.behind(name), { parent: place.behind(parent) });
}

async function expectIncremental(
  place: MountPlace,
  parent: string,
  keys?: KeyRing,
  ...options: string[]
): Promise<Ran> {
  const next = place.behind('next.spi');
  const args = ['image', 'create', place.under('vm.raw'), next, '--parent', place.behind(parent), ...options];
  const ran = await veneer(...args, '--force');
  expect(ran.status, ran.stderr).toBe(0);
  const back = place.temporary.file('back.raw');
  extractImage(next, back, { force: true, ...(keys === undefined ? {} : { keys }) });
  expect((await run('cmp', [back, place.under('vm.raw')])).stdout).toBe('');
  return ran;
}

it('reads what was written, and what differs between the parent and the restore point, and little more', async () => {
  const { place, raw } = await mounted();
  const random = seededTest('incremental reads little');
  await laterImage(place, raw, 'later.spi', random, 'vm.spi');
  await laterImage(place, raw, 'branch.spi', random, 'vm.spf');
  await consolidateChain([place.behind('later.spi')], place.behind('whole.spi'));
  await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 9M 1M', place.under('vm.raw')]);
  // The page cache is cold for each: what is read, is asked for.
  for (const parent of ['vm.spi', 'later.spi', 'branch.spi', 'vm.spf', 'whole.spi']) {
    await place.unmount();
    await place.mount();
    const next = place.behind('next.spi');
    const { stderr } = await veneer('image', 'create', place.under('vm.raw'), next, '--parent', place.behind(parent));
    expect(stderr).toContain('the rest is not read');
    // Readahead, and the blocks of what vm.spf lacks.
    expect((await place.statistics('vm.raw')).readBytes).toBeLessThan(6 * MiB);
    extractImage(next, place.temporary.file('back.raw'), { force: true });
    expect((await run('cmp', [place.temporary.file('back.raw'), place.under('vm.raw')])).stdout).toBe('');
    fs.rmSync(next);
  }
});

it('is right on a parent of another chain, by a link to the disk, and as another format', async () => {
  const { place, raw } = await mounted();
  await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 9M 1M', place.under('vm.raw')]);
  await createImage(raw, place.behind('other.spf'));
  const { stderr } = await expectIncremental(place, 'other.spf');
  expect(stderr).toContain('all of it is compared');
  fs.symlinkSync('vm.raw', place.behind('link.raw'));
  fs.symlinkSync(place.under('vm.raw'), place.temporary.file('outside.raw'));
  for (const source of [place.under('link.raw'), place.temporary.file('outside.raw')]) {
    const next = place.behind('link.spi');
    await veneerOk('image', 'create', source, next, '--parent', place.behind('vm.spi'), '--force');
    extractImage(next, place.temporary.file('back.raw'), { force: true });
    expect((await run('cmp', [place.temporary.file('back.raw'), place.under('vm.raw')])).stdout).toBe('');
  }
});

it('holds a disk that is longer or shorter than its image and its parent', async () => {
  const { place, raw } = await mounted();
  const random = seededTest('incremental sizes');
  await laterImage(place, raw, 'later.spi', random, 'vm.spi');
  const parents = ['vm.spi', 'later.spi', 'vm.spf'];
  for (const [index, sizeBytes] of [
    40 * MiB,
    diskBytes + 1,
    5 * MiB + 512,
    diskBytes,
    3 * MiB,
    30 * MiB + 7,
  ].entries()) {
    await fs.promises.truncate(place.under('vm.raw'), sizeBytes);
    // `npm test` takes the parents in turn, a soak each at each size.
    for (const parent of soak ? parents : [parents[index % parents.length] ?? ''])
      await expectIncremental(place, parent);
  }
  // On an image of that size.
  fs.renameSync(place.behind('next.spi'), place.behind('long.spi'));
  await fs.promises.truncate(place.under('vm.raw'), 2 * MiB + 1000);
  await expectIncremental(place, 'long.spi');
});

it('holds what an encrypted chain and a sealed file hold together', async () => {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  const random = seededTest('incremental encrypted');
  fs.writeFileSync(raw, random.bytes(6 * MiB));
  const owner = keyFile('owner');
  await createImage(raw, place.behind('vm.spf'), { encrypt: owner });
  change(raw, MiB, random.bytes(70 * KiB));
  const keys = ringOf(owner);
  await createImage(raw, place.behind('vm.spi'), { parent: place.behind('vm.spf'), keys });
  createPluginFile(place.behind('vm.spf'), place.behind('vm.raw'), { replacement: 'sealed', keys });
  const key = place.temporary.write('key', owner.secret);
  fs.chmodSync(key, 0o600);
  await place.mount('--key-file', key, '--fill');
  await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 3M 100k', place.under('vm.raw')]);
  const { stderr } = await expectIncremental(place, 'vm.spi', keys, '--key-file', key);
  expect(stderr).toContain('the rest is not read');
  await fs.promises.truncate(place.under('vm.raw'), 7 * MiB);
  await expectIncremental(place, 'vm.spf', keys, '--key-file', key);
  expect(
    await veneerRefuses(
      'image',
      'create',
      place.under('vm.raw'),
      place.behind('no.spi'),
      '--parent',
      place.behind('vm.spi'),
    ),
  ).toMatch(/key/);
});
