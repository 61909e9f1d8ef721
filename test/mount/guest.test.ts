/** A real guest runs from mounted plugin files: reads what it should, writes, and finds that again, at its next boot and after the next mount. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { bootGuest } from '../../examples/guest/boot.ts';
import { buildGuestDisk, type Guest } from '../../examples/guest/guest.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { runOk, veneerOk } from '../cli/veneer.ts';
import { soak } from '../seeded.ts';
import { placeForTest } from './mounted.ts';

const cacheDir = path.join(import.meta.dirname, '../../.cache');
/** A boot takes 5 s where nothing else runs, and far longer where KVM is missing and the machine is busy. */
const bootsWithinMs = 600_000;

/** The first in `npm test`, all in a soak: guests run from the others in bootable-guest.test.ts and replacement-story.test.ts, too. */
const formats = [
  ['vm.vhd', 'vpc', 'fuse-native'],
  ['vm.vhdx', 'vhdx', 'kernel'],
  ['vm.vmdk', 'vmdk', 'fuse-native'],
  ['vm.qcow2', 'qcow2', 'kernel'],
  ['vm.vdi', 'vdi', 'kernel'],
  ['vm.raw', 'raw', 'fuse-native'],
] as const;
const booted = soak ? formats : formats.slice(0, 1);

describe('a guest that runs from a mounted plugin file', () => {
  let guest: Guest;

  beforeAll(async () => {
    guest = await buildGuestDisk({
      flavour: 'cloud',
      cacheDir: path.join(cacheDir, 'packages'),
      outDir: path.join(cacheDir, 'guest'),
    });
  }, bootsWithinMs);

  it.each(booted)(
    'reads its payload from %s, writes, and finds it after the next mount',
    async (name, format, transport) => {
      const place = placeForTest();
      const image = place.behind('vm.spf');
      await createImage(guest.diskPath, image);
      const before = hashOf(image);
      await veneerOk('plugin', 'create', image, place.behind(name));
      await place.mount('--transport', transport);
      const drive = place.under(name);
      const first = await bootGuest({
        drive,
        format,
        snapshot: false,
        write: true,
        bus: 'ide',
        timeoutMs: bootsWithinMs,
      });
      expect(first.payloadSha256).toBe(guest.payloadSha256);
      expect(first.wroteSha256).toMatch(/^[0-9a-f]{64}$/);
      await place.unmount();
      await place.mount('--transport', transport);
      const second = await bootGuest({ drive, format, snapshot: false, bus: 'virtio-blk', timeoutMs: bootsWithinMs });
      expect(second.payloadSha256).toBe(guest.payloadSha256);
      expect(second.kept).toEqual({ sha256: first.wroteSha256, expected: first.wroteSha256 });
      if (format !== 'vpc' && format !== 'raw') await runOk('qemu-img', ['check', '-f', format, drive]);
      await place.unmount();
      expect(hashOf(image)).toBe(before);
      expect(place.complaints()).toEqual([]);
    },
    bootsWithinMs,
  );

  it(
    'runs from a qcow2 child over the mounted VHDX, which takes its writes',
    async () => {
      const place = placeForTest();
      await createImage(guest.diskPath, place.behind('vm.spf'));
      await veneerOk('plugin', 'create', place.behind('vm.spf'), place.behind('vm.vhdx'));
      await veneerOk('differencing', 'create', place.behind('vm.vhdx'), place.behind('work.qcow2'));
      await place.mount('--write', 'none');
      const drive = place.under('work.qcow2');
      const first = await bootGuest({ drive, format: 'qcow2', snapshot: false, write: true, timeoutMs: bootsWithinMs });
      const second = await bootGuest({ drive, format: 'qcow2', snapshot: false, timeoutMs: bootsWithinMs });
      expect(second.payloadSha256).toBe(guest.payloadSha256);
      expect(second.kept).toEqual({ sha256: first.wroteSha256, expected: first.wroteSha256 });
    },
    bootsWithinMs,
  );
});

function hashOf(file: string): string {
  return createHash('sha256').update(fs.readFileSync(file)).digest('hex');
}
