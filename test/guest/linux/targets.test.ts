/**
 * A guest whose initramfs has the driver of one disk controller only, reconfigured for other hypervisors, boots on controllers that these have
 * and QEMU has too. `npm test` has one of them; a soak has all, and that none boots without.
 */
import { beforeAll, expect, it } from 'vitest';
import { bootGuest, type Bus } from '../../../examples/guest/boot.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import type { Target } from '../../../src/guest/plan.ts';
import { veneerOk } from '../../cli/veneer.ts';
import { placeForTest } from '../../mount/mounted.ts';
import { soak } from '../../seeded.ts';
import { buildOneControllerGuest, type OneControllerGuest } from './one-controller-guest.ts';

const bootsWithinMs = 600_000;
let guest: OneControllerGuest;

beforeAll(() => {
  guest = buildOneControllerGuest('generic');
}, bootsWithinMs);

const cases: readonly (readonly [Target, Bus])[] = [
  ['vmware', 'pvscsi'],
  ['vmware', 'lsi-sas'],
  ['vmware', 'ahci'],
  ['vmware', 'nvme'],
  ['virtualbox', 'ahci'],
  ['virtualbox', 'lsi-sas'],
  ['qemu', 'ahci'],
  ['qemu-virtio', 'virtio-blk'],
  ['qemu-virtio', 'virtio-scsi'],
];

it.each(soak ? cases : cases.slice(0, 1))(
  'for %s it boots on %s',
  async (target, bus) => {
    const place = placeForTest();
    const plugin = place.behind('vm.vhdx');
    await createImage(guest.disk, place.behind('vm.spf'));
    await veneerOk('plugin', 'create', place.behind('vm.spf'), plugin);
    const boot = async () => {
      await place.mount('--write', 'none');
      try {
        return await bootGuest({ drive: place.under('vm.vhdx'), format: 'vhdx', bus, timeoutMs: bootsWithinMs });
      } finally {
        await place.unmount();
      }
    };
    if (soak) await expect(boot()).rejects.toThrow(/VENEER-GUEST-NO-ROOT/);
    await veneerOk('reconfigure', plugin, '--target', target, '--console', 'ttyS0');
    const report = await boot();
    expect(report.payloadSha256).toBe(guest.payloadSha256);
    expect(place.complaints()).toEqual([]);
  },
  2 * bootsWithinMs,
);
