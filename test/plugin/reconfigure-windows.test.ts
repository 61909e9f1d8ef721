/** A volume of Windows through the tool: the table around it is the one that Windows remembers, and its hive reads as planned under the mount. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/create.ts';
import { parsePluginFile } from '../../src/plugin/plugin-file.ts';
import { veneerOk } from '../cli/veneer.ts';
import { hivexValue, judgeHive, realHive, skipWithout } from '../guest/windows/hives.ts';
import { catFile, faultsOf, makeVolume } from '../guest/windows/ntfs/made-volume.ts';
import { placeForTest } from '../mount/mounted.ts';
import { TempFolder } from '../temp-folder.ts';

const systemFile = 'Windows/System32/config/SYSTEM';
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
