/** The smallest guest that can be reconfigured, with its plugin file in a folder that is not mounted yet. */
import fs from 'node:fs';
import { MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { runOk, veneerOk } from '../cli/veneer.ts';
import { writeSystem } from '../guest/linux/small-system.ts';
import { placeForTest, type MountPlace } from '../mount/mounted.ts';

export interface SmallLinux {
  readonly place: MountPlace;
  readonly plugin: string;
}

/** A plugin file of an ext4 with a Linux that calls its disk as no target does. */
export async function smallLinux(): Promise<SmallLinux> {
  const place = placeForTest();
  const tree = place.temporary.file('tree');
  writeSystem(tree, { fstab: '/dev/hda1 / ext4 defaults 0 1\n' });
  const volume = place.temporary.write('volume', '');
  fs.truncateSync(volume, 32 * MiB);
  await runOk('/sbin/mke2fs', ['-q', '-F', '-t', 'ext4', '-d', tree, volume]);
  await createImage(volume, place.behind('vm.spf'));
  const plugin = place.behind('vm.raw');
  await veneerOk('plugin', 'create', place.behind('vm.spf'), plugin);
  return { place, plugin };
}
