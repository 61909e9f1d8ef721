/** SEEK_DATA and SEEK_HOLE, and what every call answers where numbers end. The kernel's own file system is the judge, and QEMU with cache=none. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { GiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { createPluginFile, type PluginOptions } from '../../../src/plugin/create.ts';
import { run, runOk } from '../../cli/veneer.ts';
import { covering } from '../../covering.ts';
import { seededTest, type Seeded } from '../../seeded.ts';
import { change } from '../guest-disk.ts';
import { placeForTest, type MountPlace } from '../mounted.ts';
import { describeTransports } from '../transports.ts';

const allNatives: ReadonlyArray<{ name: string; qemu: string; options?: PluginOptions }> = [
  { name: 'fixed.vhdx', qemu: 'vhdx', options: { layout: 'fixed' } },
  { name: 'thin.vhdx', qemu: 'vhdx', options: { layout: 'dynamic' } },
  { name: 'fixed.vhd', qemu: 'vpc', options: { layout: 'fixed' } },
  { name: 'thin.vhd', qemu: 'vpc', options: { layout: 'dynamic' } },
  { name: 'flat.vmdk', qemu: 'vmdk', options: { layout: 'flat' } },
  { name: 'thin.vmdk', qemu: 'vmdk', options: { layout: 'sparse' } },
  { name: 'fixed.vdi', qemu: 'vdi', options: { layout: 'static' } },
  { name: 'thin.vdi', qemu: 'vdi', options: { layout: 'dynamic' } },
  { name: 'thin.qcow2', qemu: 'qcow2' },
  { name: 'disk.raw', qemu: 'raw' },
];
/** Each format, fixed and thin: a soak has all of each format. */
const natives = covering(allNatives, ({ name, qemu }) => [qemu, name.startsWith('thin')]);
const script = (name: string): string => path.join(import.meta.dirname, '..', name);

/** A disk whose data begins and ends at any sector, an image of it, and a plugin file of each kind. */
async function placeWithHoles(random: Seeded): Promise<{ place: MountPlace; raw: string }> {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  fs.writeFileSync(raw, '');
  fs.truncateSync(raw, 40 * MiB);
  for (let count = 0; count < 40; count++)
    change(raw, 512 * random.below(79_000), random.bytes(512 * random.between(1, 300)));
  await createImage(raw, place.behind('vm.spf'));
  for (const { name, options } of natives) createPluginFile(place.behind('vm.spf'), place.behind(name), options);
  fs.copyFileSync(raw, place.behind('plain'));
  return { place, raw };
}

describeTransports('holes', (transport) => {
  it('are whole pages of zeros in every format, before and after writes', { timeout: 300_000 }, async () => {
    const random = seededTest('holes in every format');
    const { place, raw } = await placeWithHoles(random);
    await place.mount(...transport.options);
    for (const state of ['as synthesized', 'written']) {
      const files = natives.map(({ name }) => place.under(name));
      const said = await runOk('python3', [script('holes.py'), random.seed, ...files]);
      const holeBytes = JSON.parse(said) as Readonly<Record<string, number>>;
      for (const { name } of natives)
        if (transport.name === 'kernel' && /^fixed|raw/.test(name))
          expect(holeBytes[name], `${name} ${state}`).toBeGreaterThan(0);
      if (state === 'written') continue;
      const writes = [0, 1, 2, 3].map(
        () => `write -P 0x5a ${512 * random.below(79_000)} ${512 * random.between(1, 300)}`,
      );
      const commands = [...writes, 'write -z 8M 3M', 'write -z -u 20M 640k'].flatMap((command) => ['-c', command]);
      for (const { name, qemu } of natives) await runOk('qemu-io', ['-f', qemu, ...commands, place.under(name)]);
      await runOk('qemu-io', ['-f', 'raw', ...commands, raw]);
    }
    for (const { name, qemu } of natives)
      expect(await runOk('qemu-img', ['compare', '-f', qemu, '-F', 'raw', place.under(name), raw])).toContain(
        'identical',
      );
  });

  it('are read by QEMU with cache=none, format by format', { timeout: 300_000 }, async () => {
    const { place, raw } = await placeWithHoles(seededTest('holes and cache=none'));
    await place.mount(...transport.options);
    for (const { name, qemu } of natives) {
      const copy = place.temporary.file('copy.raw');
      await runOk('qemu-img', [
        'convert',
        '-f',
        qemu,
        '-O',
        'raw',
        '-t',
        'none',
        '-T',
        'none',
        place.under(name),
        copy,
      ]);
      await runOk('qemu-img', ['map', '--output=json', '-f', qemu, place.under(name)]);
      expect(
        await runOk('qemu-img', ['compare', '-T', 'none', '-f', 'raw', '-F', qemu, copy, place.under(name)]),
      ).toContain('identical');
      expect(await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', copy, raw])).toContain('identical');
      await runOk('qemu-io', [
        '-t',
        'none',
        '-f',
        qemu,
        '-c',
        'map',
        '-c',
        'read 1M 64k',
        '-c',
        'write -P 1 1M 64k',
        '-c',
        'read -P 1 1M 64k',
        place.under(name),
      ]);
    }
  });

  it(
    'are found in a disk of 64 GiB for what lies between them, also after a write',
    { timeout: 300_000 },
    async (context) => {
      if (transport.name !== 'kernel') context.skip('libfuse 2 has no SEEK_DATA');
      const place = placeForTest();
      const raw = place.temporary.file('disk.raw');
      const [sizeBytes, count] = [64 * GiB, 2048];
      fs.writeFileSync(raw, '');
      fs.truncateSync(raw, sizeBytes);
      for (let extent = 0; extent < count; extent++)
        change(raw, (extent * sizeBytes) / count + MiB, Buffer.alloc(4096, 7));
      await createImage(raw, place.behind('vm.spf'));
      createPluginFile(place.behind('vm.spf'), place.behind('disk.raw'));
      await place.mount(...transport.options);
      for (const state of ['as synthesized', 'written']) {
        const beforeMs = place.serverMs();
        const map = JSON.parse(
          await runOk('qemu-img', ['map', '--output=json', '-f', 'raw', place.under('disk.raw')]),
        ) as ReadonlyArray<{ data: boolean }>;
        expect(map.filter(({ data }) => data)).toHaveLength(count);
        expect(place.serverMs() - beforeMs, `processor time, ${state}`).toBeLessThan(4000);
        if (state === 'as synthesized')
          await runOk('qemu-io', ['-f', 'raw', '-c', `write -P 1 ${MiB} 4k`, place.under('disk.raw')]);
      }
    },
  );

  it(
    'and all else are answered as the file system behind answers, where numbers end',
    { timeout: 60_000 },
    async () => {
      if (fileSystemOf('/tmp') !== 'ext4') return;
      const { place } = await placeWithHoles(seededTest('extremes'));
      await place.mount(...transport.options);
      const judged = await answersOf(place.behind('plain'));
      // libfuse 2 has no SEEK_DATA and no fallocate: the kernel answers these by itself, and they are left out.
      const asked = transport.name === 'kernel' ? /./ : /pread|pwrite|ftruncate/;
      for (const name of ['plain', 'disk.raw', 'fixed.vhdx', 'thin.vhd']) {
        const answers = await answersOf(place.under(name));
        for (const [index, answer] of answers.entries()) {
          const expected = judged[index] ?? expect.fail(answer);
          // Whether the last byte is data is the file's own matter.
          if (asked.test(answer) && !answer.includes('size -1')) expect(answer, name).toBe(expected);
        }
      }
      expect(place.complaints().filter((line) => /internal|assert/i.test(line))).toEqual([]);
    },
  );
});

/** Lines of JSON: the call, and what it said. */
async function answersOf(file: string): Promise<string[]> {
  const { status, stdout, stderr } = await run('python3', [script('extreme_offsets.py'), file]);
  expect(status, stderr).toBe(0);
  return stdout.trim().split('\n');
}

function fileSystemOf(folder: string): string {
  return execFileSync('stat', ['-f', '-c', '%T', folder], { encoding: 'utf8' }).trim().replace('ext2/ext3', 'ext4');
}
