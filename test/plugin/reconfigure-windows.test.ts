/** A volume of Windows through the tool: the table around it is the one that Windows remembers, and its hive reads as planned under the mount. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { parsePluginFile } from '../../src/plugin/plugin-file.ts';
import { startFromDisk } from '../bootable/bios.ts';
import { veneerOk, veneerRefuses } from '../cli/veneer.ts';
import { writeVirtioWin } from '../guest/windows/drivers.ts';
import { filledHive, hivexValue, judgeHive, realHive, skipWithout } from '../guest/windows/hives.ts';
import { smallSystem, systemFile } from '../guest/windows/machine.ts';
import { judgePrograms, judgeVolume } from '../filesystem/ntfs/judges.ts';
import { catFile, faultsOf, leaveFreeRecords, makeVolume } from '../filesystem/ntfs/made-volume.ts';
import { placeForTest } from '../mount/mounted.ts';
import { seededTest } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

const notBootable = /This is not a bootable disk/;
const volumeBytes = 64 * MiB;

it('a volume of Windows 7 gets its table, and its drivers are started at boot', async (context) => {
  using folder = new TempFolder();
  skipWithout(context, ['hivexregedit', 'hivexget', 'reged', 'regfinfo']);
  const files = { [systemFile]: realHive(context, 'SYSTEM'), 'Boot/BCD': realHive(context, 'BCDvm') };
  const { image } = makeVolume(context, folder, { files, sizeBytes: volumeBytes });
  const place = placeForTest();
  await createImage(image, place.behind('c.spf'), { content: 'volume' });
  const plugin = place.behind('vm.raw');
  await veneerOk('plugin', 'create', place.behind('c.spf'), plugin, '--boot', 'bios');
  const made = parsePluginFile(fs.readFileSync(plugin), plugin);
  // What MountedDevices of this hive says of C:.
  expect(made.bootable?.diskSignature).toBe(0x5cbe_a03e);
  const start = made.bootable?.partitions[0]?.startBytes ?? 0;
  expect(start).toBe(MiB);

  const said = await veneerOk('reconfigure', plugin, '--target', 'hyperv-gen1');
  expect(said).toMatch(/^guest +Windows 7/m);
  expect(said).toMatch(/storvsc/);
  expect(said).not.toMatch(/drive letter|MountedDevices/);
  await place.mount('--write', 'none');
  const shown = fs.readFileSync(place.under('vm.raw')).subarray(start, start + volumeBytes);
  await place.unmount();
  const volume = folder.write('shown', shown);
  expect(faultsOf(volume)).toBe('');
  const hive = catFile(volume, systemFile);
  judgeHive(hive);
  const kept = folder.write('hive', hive);
  expect(Number(hivexValue(kept, String.raw`\ControlSet001\Services\storvsc`, 'Start'))).toBe(0);
});

it('the boot code that is put around a volume starts the boot sector that mkntfs wrote, after it was reconfigured too', async (context) => {
  using folder = new TempFolder();
  skipWithout(context, ['hivexregedit', 'qemu-system-x86_64']);
  const files = { [systemFile]: filledHive(smallSystem), 'Boot/BCD': filledHive(['[\\Objects]']) };
  const { image } = makeVolume(context, folder, { files, sizeBytes: volumeBytes });
  const place = placeForTest();
  await createImage(image, place.behind('c.spf'), { content: 'volume' });
  const plugin = place.behind('vm.raw');
  await veneerOk('plugin', 'create', place.behind('c.spf'), plugin, '--boot', 'bios');
  const disk = place.temporary.file('disk.raw');
  for (const steps of [[], ['reconfigure', plugin, '--target', 'virtualbox']]) {
    if (steps.length > 0) await veneerOk(...steps);
    await place.mount('--write', 'none');
    fs.copyFileSync(place.under('vm.raw'), disk);
    await place.unmount();
    // mkntfs' own boot sector says this, and has nothing to start.
    expect(await startFromDisk(disk, notBootable)).toMatch(notBootable);
  }
  // It is that sector which says so: without its mark, our code does not start it.
  const fd = fs.openSync(disk, 'r+');
  const { partitions = [] } = parsePluginFile(fs.readFileSync(plugin), plugin).bootable ?? {};
  fs.writeSync(fd, Buffer.alloc(2), 0, 2, (partitions[0]?.startBytes ?? 0) + 510);
  fs.closeSync(fd);
  expect(await startFromDisk(disk, /Missing operating system/)).toMatch(/Missing operating system/);
});

it("virtio's drivers come into a volume of Windows 7 from a folder, and away with --undo", async (context) => {
  using folder = new TempFolder();
  skipWithout(context, [...judgePrograms, 'hivexregedit', 'hivexget', 'reged', 'regfinfo']);
  const files = {
    [systemFile]: realHive(context, 'SYSTEM'),
    'Windows/System32/drivers/storport.sys': Buffer.alloc(5000, 1),
  };
  const { image } = makeVolume(context, folder, {
    files,
    sizeBytes: volumeBytes,
    fill: (mountpoint) => leaveFreeRecords(mountpoint, 4),
  });
  const place = placeForTest();
  await createImage(image, place.behind('c.spf'), { content: 'volume' });
  const plugin = place.behind('vm.raw');
  await veneerOk('plugin', 'create', place.behind('c.spf'), plugin, '--boot', 'bios');
  const start = parsePluginFile(fs.readFileSync(plugin), plugin).bootable?.partitions[0]?.startBytes ?? 0;
  const shown = async (): Promise<Buffer> => {
    await place.mount('--write', 'none');
    const bytes = fs.readFileSync(place.under('vm.raw')).subarray(start, start + volumeBytes);
    await place.unmount();
    return bytes;
  };
  const before = await shown();
  const root = folder.file('iso');
  const written = writeVirtioWin(root, ['viostor/w7/x86'], seededTest('virtio-win by the tool'));
  // This Windows has no SOFTWARE hive that would say its version.
  const own = path.join(root, 'viostor/w7/x86');
  const virtio = ['reconfigure', plugin, '--target', 'qemu-virtio', '--virtio-win'];

  expect(await veneerRefuses(...virtio, root)).toMatch(/viostor: which of its drivers is for Windows 7 cannot be told/);
  expect(await veneerRefuses('reconfigure', plugin, '--target', 'qemu', '--virtio-win', own)).toMatch(
    /--virtio-win goes with --target qemu-virtio, not with qemu/,
  );
  expect(await veneerOk(...virtio, own, '--dry-run')).toMatch(
    /^- add a driver: \/Windows\/System32\/drivers\/viostor\.sys\n {4}absent -> \d+ bytes of .*viostor\.sys$/m,
  );
  await veneerOk(...virtio, own);
  const volume = folder.write('shown', await shown());
  judgeVolume(volume);
  const driver = written.get('viostor/w7/x86/viostor.sys');
  expect(driver?.equals(catFile(volume, 'Windows/System32/drivers/viostor.sys'))).toBe(true);
  const hive = folder.write('hive', catFile(volume, systemFile));
  expect(Number(hivexValue(hive, String.raw`\ControlSet001\Services\viostor`, 'Start'))).toBe(0);
  await veneerOk('reconfigure', plugin, '--undo');
  expect((await shown()).equals(before)).toBe(true);
});
