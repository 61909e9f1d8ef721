/** A real guest under load is moved from its backup to a disk of its own, and then boots from that with nothing of ours running. */
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildGuestDisk, type Guest } from '../../examples/guest/guest.ts';
import { runReplacementStory } from '../../examples/replacement-story.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { runOk, veneerOk } from '../cli/veneer.ts';
import { soak } from '../seeded.ts';
import { placeForTest } from './mounted.ts';

const cacheDir = path.join(import.meta.dirname, '../../.cache');
const withinMs = 600_000;

/** The first in `npm test`, all in a soak. */
const formats = [
  ['vm.vhdx', 'vhdx', 'kernel', 'virtio-blk'],
  ['vm.qcow2', 'qcow2', 'kernel', 'nvme'],
  ['vm.vmdk', 'vmdk', 'fuse-native', 'ide'],
] as const;

describe('a guest under load', () => {
  let guest: Guest;

  beforeAll(async () => {
    guest = await buildGuestDisk({
      flavour: 'cloud',
      cacheDir: path.join(cacheDir, 'packages'),
      outDir: path.join(cacheDir, 'guest'),
    });
  }, withinMs);

  it.each(soak ? formats : formats.slice(0, 1))(
    'goes over from its backup to its own %s, which it then boots from alone',
    async (pluginName, format, transport, bus) => {
      const place = placeForTest();
      await createImage(guest.diskPath, place.behind('vm.spf'));
      await veneerOk('plugin', 'create', place.behind('vm.spf'), place.behind(pluginName));
      const told: string[] = [];
      await runReplacementStory({
        guest,
        folder: place.folder,
        mountpoint: place.mountpoint,
        pluginName,
        format,
        mountOptions: ['--transport', transport],
        bus,
        timeoutMs: withinMs,
        tell: (text) => told.push(text),
      });
      expect(told.join('\n')).toContain('cut over');
      await runOk('qemu-img', ['check', '-f', format, place.behind(pluginName)]);
      expect(fs.readdirSync(place.folder)).toContain(`${pluginName}.finalized`);
      expect(place.complaints()).toEqual([]);
    },
    withinMs,
  );
});
