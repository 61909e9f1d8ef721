/** What a guest wrote after fail-over goes back into its chain: an incremental image of a written plugin file reads only what was written. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { writtenSource } from '../../src/mount/written-ranges.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { run, runOk, veneer, veneerOk } from '../cli/veneer.ts';
import { diskBytes, writeGuest } from './guest-disk.ts';
import { placeForTest } from './mounted.ts';

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

it.each(layouts)(
  '%s (%s, %s) gives an increment that holds what was written, and no more',
  async (name, qemu, layout) => {
    const place = placeForTest();
    const raw = place.temporary.file('disk.raw');
    await writeGuest(place.folder, raw);
    for (const made of ['vm.vhdx', 'thin.vhdx']) fs.rmSync(place.behind(made));
    createPluginFile(place.behind('vm.spi'), place.behind(name), { layout });
    await place.mount();
    const writes = ['write -P 0x5a 9M 1M', 'write -P 0x33 1234432 7680', 'write -z 3M 128k', 'flush'];
    const asArguments = (list: readonly string[]): string[] => list.flatMap((write) => ['-c', write]);
    await runOk('qemu-io', ['-f', qemu, ...asArguments(writes), place.under(name)]);
    await runOk('qemu-io', ['-f', 'raw', ...asArguments(writes), raw]);

    const changed = writtenSource(place.under(name))?.changed ?? [];
    const changedBytes = changed.reduce((sum, range) => sum + range.length, 0);
    expect(changedBytes).toBeGreaterThanOrEqual(MiB + 128 * 1024);
    expect(changedBytes).toBeLessThan(4 * MiB);

    const next = place.behind('next.spi');
    const { stderr } = await veneer('image', 'create', place.under(name), next, '--parent', place.behind('vm.spi'));
    expect(stderr).toContain('the rest is not read');
    const back = place.temporary.file('back.raw');
    await veneerOk('image', 'extract', next, back);
    expect((await run('cmp', ['-n', String(diskBytes), back, raw])).stdout).toBe('');
    expect(await veneerOk('image', 'verify', next)).toContain('sound');
  },
);

it('with nothing written the increment is empty', async () => {
  const place = placeForTest();
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  await place.mount();
  const next = place.behind('next.spi');
  const said = await veneerOk('image', 'create', place.under('vm.vhdx'), next, '--parent', place.behind('vm.spi'));
  expect(said).toContain(' 0 blocks');
});
