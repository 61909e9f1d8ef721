/** What a guest wrote after fail-over goes back into its chain: an incremental image of a written plugin file reads only what was written. */
import fs from 'node:fs';
import { beforeAll, expect, it } from 'vitest';
import { extractImage } from '../../src/backup/read/extract.ts';
import { MiB } from '../../src/base/units.ts';
import { writtenSource } from '../../src/mount/written-ranges.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { faultsOf } from '../backup/image-holds.ts';
import { run, runOk, veneer, veneerOk } from '../cli/veneer.ts';
import { covering } from '../covering.ts';
import { diskBytes, writeGuest } from './guest-disk.ts';
import { MountPlace } from './mounted.ts';

const layouts = [
  ['vm.vhdx', 'vhdx', 'fixed'],
  ['vm.vhdx', 'vhdx', 'dynamic'],
  ['vm.vhd', 'vpc', 'fixed'],
  ['vm.vhd', 'vpc', 'dynamic'],
  ['vm.vmdk', 'vmdk', 'flat'],
  ['vm.vmdk', 'vmdk', 'sparse'],
  ['vm.vdi', 'vdi', 'static'],
  ['vm.vdi', 'vdi', 'dynamic'],
  ['vm.qcow2', 'qcow2', 'compact'],
  ['vm.qcow2', 'qcow2', 'full'],
  ['vm.raw', 'raw', 'flat'],
] as const;

/** Each format, and growing files and others: a soak has every layout of every format. */
const tried = covering(layouts, ([, qemu, layout]) => [qemu, ['dynamic', 'sparse', 'compact'].includes(layout)]);

let place: MountPlace;
let written: string;

beforeAll(async () => {
  place = new MountPlace();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  for (const [name, , layout] of tried)
    createPluginFile(place.behind('vm.spi'), place.behind(`${layout}-${name}`), { layout });
  await place.mount();
  written = place.temporary.file('written.raw');
  fs.copyFileSync(raw, written);
  await runOk('qemu-io', ['-f', 'raw', ...asArguments(writes), written]);
  return () => place.end();
});

const writes = ['write -P 0x5a 9M 1M', 'write -P 0x33 1234432 7680', 'write -z 3M 128k', 'flush'];

function asArguments(list: readonly string[]): string[] {
  return list.flatMap((write) => ['-c', write]);
}

it.each(tried)(
  '%s (%s, %s) gives an increment that holds what was written, and no more',
  async (made, qemu, layout) => {
    const name = `${layout}-${made}`;
    await runOk('qemu-io', ['-f', qemu, ...asArguments(writes), place.under(name)]);

    const changed = writtenSource(place.under(name))?.changed ?? [];
    const changedBytes = changed.reduce((sum, range) => sum + range.length, 0);
    expect(changedBytes).toBeGreaterThanOrEqual(MiB + 128 * 1024);
    expect(changedBytes).toBeLessThan(4 * MiB);

    const next = place.behind(`${name}.spi`);
    const { stderr } = await veneer('image', 'create', place.under(name), next, '--parent', place.behind('vm.spi'));
    expect(stderr).toContain('the rest is not read');
    const back = place.temporary.file('back.raw');
    extractImage(next, back, { force: true });
    expect((await run('cmp', ['-n', String(diskBytes), back, written])).stdout).toBe('');
    expect(faultsOf(next)).toEqual([]);
  },
);

it('with nothing written the increment is empty', async () => {
  const next = place.behind('next.spi');
  const said = await veneerOk('image', 'create', place.under('vm.vhdx'), next, '--parent', place.behind('vm.spi'));
  expect(said).toContain(' 0 blocks');
});
