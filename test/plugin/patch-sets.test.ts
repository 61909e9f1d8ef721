/** Plugin files with several patch sets, one for each target: a disk reads with the one that was chosen. Judged by debugfs under the mount. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { runOk, veneerOk, veneerRefuses } from '../cli/veneer.ts';
import { smallLinux, type SmallLinux } from './small-linux.ts';

/** The disk's name in the guest's fstab, under a mount. */
async function rootUnderMount({ place }: SmallLinux): Promise<string | undefined> {
  await place.mount('--write', 'none');
  try {
    return (await runOk('/sbin/debugfs', ['-R', 'cat /etc/fstab', place.under('vm.raw')])).split(' ')[0];
  } finally {
    await place.unmount();
  }
}

it('a plugin file holds a patch set for each target, and its disk reads with the one that was chosen', async () => {
  const machine = await smallLinux();
  const { place, plugin } = machine;
  await veneerOk('reconfigure', plugin, '--target', 'qemu');
  expect(await rootUnderMount(machine)).toBe('/dev/sda1');
  await veneerOk('reconfigure', plugin, '--target', 'qemu-virtio');
  expect(await rootUnderMount(machine)).toBe('/dev/vda1');
  const shown = await veneerOk('plugin', 'show', plugin);
  expect(shown).toMatch(/^patches +vm\.raw\.patch-qemu, for qemu$/m);
  expect(shown).toMatch(/^patches +vm\.raw\.patch-qemu-virtio, for qemu-virtio, in force$/m);

  await veneerOk('reconfigure', plugin, '--target', 'qemu', '--choose');
  expect(await rootUnderMount(machine)).toBe('/dev/sda1');
  expect(await veneerRefuses('reconfigure', plugin, '--target', 'vmware', '--choose')).toMatch(
    /has no patch set for vmware; make it with veneer reconfigure --target vmware$/,
  );

  expect(await veneerOk('reconfigure', plugin, '--target', 'qemu', '--undo')).toMatch(
    /without the patch set for qemu$/m,
  );
  expect(await rootUnderMount(machine)).toBe('/dev/hda1');
  expect(fs.readdirSync(place.folder).sort()).toEqual(['vm.raw', 'vm.raw.patch-qemu-virtio', 'vm.spf']);
  await veneerOk('reconfigure', plugin, '--target', 'qemu-virtio', '--choose');
  expect(await rootUnderMount(machine)).toBe('/dev/vda1');

  await veneerOk('reconfigure', plugin, '--undo');
  expect(await veneerOk('reconfigure', plugin, '--undo')).toMatch(/has no patch set$/m);
  expect(await rootUnderMount(machine)).toBe('/dev/hda1');
  expect(fs.readdirSync(place.folder).sort()).toEqual(['vm.raw', 'vm.spf']);
  expect(place.complaints()).toEqual([]);
});

it('programs are told what was found, what is changed and why, and which bytes; a dry run changes nothing', async () => {
  const { place, plugin } = await smallLinux();
  const before = fs.readFileSync(plugin);
  const json = await veneerOk('reconfigure', plugin, '--target', 'qemu-virtio', '--dry-run', '--json');
  const plan = JSON.parse(json) as { patches: { offsetBytes: number; lengthBytes: number }[] };
  expect(plan).toMatchObject({
    target: 'qemu-virtio',
    guest: {
      os: 'linux',
      name: 'Small GNU/Linux 7',
      version: '7',
      diskNames: expect.arrayContaining(['/dev/hda1']) as unknown,
      storageDrivers: ['ata_piix', 'ata_generic'],
    },
    changes: expect.arrayContaining([
      {
        what: 'device name',
        where: '/etc/fstab line 1',
        old: '/dev/hda1',
        new: '/dev/vda1',
        why: 'the disk has this name on virtio-blk',
      },
    ]) as unknown,
  });
  expect(plan.patches.length).toBeGreaterThan(0);
  expect(plan.patches.every(({ offsetBytes, lengthBytes }) => offsetBytes + lengthBytes <= 32 * MiB)).toBe(true);
  expect(fs.readFileSync(plugin).equals(before)).toBe(true);
  expect(fs.readdirSync(place.folder).sort()).toEqual(['vm.raw', 'vm.spf']);
});
