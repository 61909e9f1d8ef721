/**
 * A guest whose initramfs has the driver of one disk controller only finds no root on virtio; after `veneer reconfigure` it does, its fstab
 * names disks that are there, and the image is what it was. As a bare volume, and as a whole disk with its own GRUB.
 */
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type BootReport, type Bus } from '../../../examples/guest/boot.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { veneerOk, veneerRefuses } from '../../cli/veneer.ts';
import { placeForTest, type MountPlace } from '../../mount/mounted.ts';
import { soak } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { buildOneControllerGuest, type OneControllerGuest } from './one-controller-guest.ts';

const bootsWithinMs = 600_000;
const folder = new TempFolder();
let guest: OneControllerGuest;

beforeAll(() => {
  guest = buildOneControllerGuest();
}, bootsWithinMs);
afterAll(() => folder.remove());

async function boot(place: MountPlace, bus: Bus, ...options: readonly string[]): Promise<BootReport> {
  await place.mount('--write', 'none', ...options);
  try {
    return await bootGuest({ drive: place.under('vm.vhdx'), format: 'vhdx', bus, timeoutMs: bootsWithinMs });
  } finally {
    await place.unmount();
  }
}

/** The first in `npm test`, both in a soak: a whole disk boots below, with all that it has encrypted. */
const kinds = [
  ['a bare volume', 'volume', ['--boot', 'bios']],
  ['a whole disk with its own GRUB', 'disk', []],
] as const;

describe.each(soak ? kinds : kinds.slice(0, 1))('%s', (_title, kind, options) => {
  it(
    'boots on virtio with the patch set, and does not without',
    async () => {
      const place = placeForTest();
      const image = place.behind('vm.spf');
      const plugin = place.behind('vm.vhdx');
      await createImage(guest[kind], image, { content: kind });
      const before = hashOf(image);
      await veneerOk('plugin', 'create', image, plugin, ...options);
      const plain = contentsOf(plugin);

      await expect(boot(place, 'virtio-blk')).rejects.toThrow(/VENEER-GUEST-NO-ROOT/);

      const dry = await veneerOk('reconfigure', plugin, '--target', 'qemu-virtio', '--dry-run');
      expect(dry).toContain('nothing was changed');
      expect(contentsOf(plugin)).toEqual(plain);
      const said = await veneerOk('reconfigure', plugin, '--target', 'qemu-virtio', '--console', 'ttyS0');
      expect(said).toMatch(/^guest +Test GNU\/Linux 1 \(cloud\), kernel 6\.\S+$/m);
      expect(said).toMatch(/^- device name: \/etc\/fstab line 1\n {4}\/dev\/sda1 -> \/dev\/vda1$/m);
      expect(said).toMatch(/^- drivers: initramfs of 6\.\S+\n {4}ata_piix -> and .*virtio_blk/m);
      expect(said).not.toMatch(/^!/m);

      const report = await boot(place, 'virtio-blk');
      expect(report.payloadSha256).toBe(guest.payloadSha256);
      expect(report.rootDevice).toMatch(/^\/dev\/(vda1|root)$/);
      expect(report.serial).toMatch(/FSTAB \/dev\/vda1 is there/);

      await veneerOk('reconfigure', plugin, '--undo');
      expect(contentsOf(plugin)).toEqual(plain);
      expect(fs.readdirSync(place.behind('.')).sort()).toEqual(
        kind === 'volume' ? ['vm.spf', 'vm.vhdx', 'vm.vhdx.boot'] : ['vm.spf', 'vm.vhdx'],
      );
      expect(hashOf(image)).toBe(before);
      expect(place.complaints()).toEqual([]);
    },
    3 * bootsWithinMs,
  );
});

it(
  'a whole disk whose image is encrypted boots on virtio with its key and a sealed patch set, of which nothing can be read',
  async () => {
    const place = placeForTest();
    const image = place.behind('vm.spf');
    const plugin = place.behind('vm.vhdx');
    const key = ['--key-file', place.temporary.write('key', randomBytes(32))];
    fs.chmodSync(place.temporary.file('key'), 0o600);
    await veneerOk('image', 'create', '--encrypt', ...key, guest.disk, image);
    await veneerOk('plugin', 'create', image, plugin, '--replacement', 'sealed');
    await veneerOk('reconfigure', plugin, '--target', 'qemu-virtio', '--console', 'ttyS0', ...key);
    const patchSet = fs.readFileSync(`${plugin}.patch-qemu-virtio`);
    // Its own, and not so short that they could be there by chance.
    for (const text of ['/etc/fstab', '/dev/vda1', 'virtio_blk', 'ata_piix', 'Test GNU/Linux', guest.version])
      expect(patchSet.includes(text), text).toBe(false);
    const report = await boot(place, 'virtio-blk', ...key);
    expect(report.payloadSha256).toBe(guest.payloadSha256);
    expect(report.serial).toMatch(/FSTAB \/dev\/vda1 is there/);
    expect(place.complaints()).toEqual([]);
  },
  bootsWithinMs,
);

it('a disk that has been written to is not reconfigured, nor is one without a system', async () => {
  const place = placeForTest();
  await createImage(guest.disk, place.behind('vm.spf'));
  const plugin = place.behind('vm.vhdx');
  await veneerOk('plugin', 'create', place.behind('vm.spf'), plugin);
  await place.mount();
  const file = fs.openSync(place.under('vm.vhdx'), 'r+');
  fs.writeSync(file, 'x', 70 * 2 ** 20);
  fs.closeSync(file);
  await place.unmount();
  expect(await veneerRefuses('reconfigure', plugin, '--target', 'qemu')).toMatch(/has been written to under a mount/);
  expect(await veneerRefuses('reconfigure', plugin, '--undo')).toMatch(/has been written to/);
  fs.writeFileSync(folder.file('empty.raw'), Buffer.alloc(2 ** 20));
  await createImage(folder.file('empty.raw'), place.behind('empty.spf'));
  await veneerOk('plugin', 'create', place.behind('empty.spf'), place.behind('empty.raw'));
  expect(await veneerRefuses('reconfigure', place.behind('empty.raw'), '--target', 'qemu')).toMatch(
    /no system that can be reconfigured/,
  );
  expect(await veneerRefuses('reconfigure', place.behind('empty.raw'))).toMatch(/name what the guest is to run on/);
});

function contentsOf(plugin: string): unknown {
  return JSON.parse(fs.readFileSync(plugin, 'utf8'));
}

function hashOf(file: string): string {
  return createHash('sha256').update(fs.readFileSync(file)).digest('hex');
}
