/**
 * A whole Debian with systemd, its own initramfs and its own GRUB menu boots as bare volumes, as a logical volume, and from a whole disk that
 * needs nothing made around it. Only in a soak: it is built from some 300 MiB of packages, and takes minutes.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { bootGuest } from '../../examples/guest/boot.ts';
import { GiB, MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { veneerOk, veneerPath } from '../cli/veneer.ts';
import { addLogicalVolume, layLogicalVolumes } from '../volume/lvm-commands.ts';
import { soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { placeForTest } from './mounted.ts';

const outDir = path.join(import.meta.dirname, '../../.cache/debian');
const script = path.join(import.meta.dirname, '../../examples/guest/build-debian.sh');
const fileSystems = ['ext4', 'xfs', 'btrfs'] as const;
const buildsWithinMs = 1_800_000;
const bootsWithinMs = 900_000;

const whySkipped = !soak
  ? 'it takes minutes; npm run soak runs it'
  : process.getuid?.() !== 0
    ? 'building Debian takes root'
    : undefined;

describe.skipIf(whySkipped !== undefined)(`a Debian${whySkipped === undefined ? '' : ` (${whySkipped})`}`, () => {
  let payloadSha256: string;
  const volumeOf = (fileSystem: string): string => path.join(outDir, `debian.${fileSystem}`);

  beforeAll(() => {
    const facts = path.join(outDir, 'debian.json');
    if (!fs.existsSync(facts)) {
      fs.mkdirSync(outDir, { recursive: true });
      const { status } = spawnSync('bash', [script, path.join(outDir, 'debian'), ...fileSystems], { stdio: 'inherit' });
      expect(status).toBe(0);
    }
    ({ payloadSha256 } = JSON.parse(fs.readFileSync(facts, 'utf8')) as { payloadSha256: string });
  }, buildsWithinMs);

  it.each([
    ['ext4', 'bios', 'vhdx', 'ahci'],
    ['ext4', 'uefi', 'vdi', 'virtio-blk'],
    ['xfs', 'bios', 'vmdk', 'nvme'],
    ['xfs', 'uefi', 'qcow2', 'virtio-scsi'],
    ['btrfs', 'bios', 'qcow2', 'ide'],
    ['btrfs', 'uefi', 'vhdx', 'ahci'],
  ] as const)(
    'on %s boots by its own menu with %s, from %s on %s',
    async (fileSystem, firmware, format, bus) => {
      const place = placeForTest();
      await createImage(volumeOf(fileSystem), place.behind('vm.spf'), { content: 'volume' });
      await veneerOk('plugin', 'create', '--boot', firmware, place.behind('vm.spf'), place.behind(`vm.${format}`));
      await place.mount();
      const drive = place.under(`vm.${format}`);
      const report = await bootGuest({ drive, format, bus, firmware, timeoutMs: bootsWithinMs });
      expect(report.fsType).toBe(fileSystem);
      expect(report.payloadSha256).toBe(payloadSha256);
      expect(report.serial).toContain('by the menu of the guest');
      expect(place.complaints()).toEqual([]);
    },
    bootsWithinMs,
  );

  it.each(['bios', 'uefi'] as const)(
    'in a logical volume boots with %s',
    async (firmware) => {
      const place = placeForTest();
      const physical = place.temporary.file('physical');
      layLogicalVolume(volumeOf('ext4'), physical);
      await createImage(physical, place.behind('vm.spf'), { content: 'volume' });
      await veneerOk('plugin', 'create', '--boot', firmware, place.behind('vm.spf'), place.behind('vm.vhdx'));
      await place.mount();
      const drive = place.under('vm.vhdx');
      const report = await bootGuest({ drive, format: 'vhdx', firmware, bus: 'virtio-scsi', timeoutMs: bootsWithinMs });
      expect(report.rootDevice).toMatch(/^\/dev\/mapper\/veneertest-root$/);
      expect(report.payloadSha256).toBe(payloadSha256);
    },
    bootsWithinMs,
  );

  it(
    'on a whole disk needs nothing around it',
    async () => {
      const place = placeForTest();
      using made = new TempFolder();
      await createImage(volumeOf('ext4'), place.behind('volume.spf'), { content: 'volume' });
      await veneerOk('plugin', 'create', '--boot', 'uefi', place.behind('volume.spf'), place.behind('vm.raw'));
      await place.mount();
      // A disk with its own table and boot loader, of which the image knows no more than that it is one.
      // All of it is read, and a busy machine takes longer for that than other commands may.
      const create = [veneerPath, 'image', 'create', place.under('vm.raw'), made.file('disk.spf')];
      expect(spawnSync(process.execPath, create, { timeout: bootsWithinMs }).status).toBe(0);
      await place.unmount();
      const whole = placeForTest();
      fs.renameSync(made.file('disk.spf'), whole.behind('disk.spf'));
      await veneerOk('plugin', 'create', whole.behind('disk.spf'), whole.behind('disk.qcow2'));
      const args = [whole.behind('disk.qcow2'), '--serial', '--memory', '1G', '--target', 'qemu-virtio'];
      const { status, stdout } = spawnSync(process.execPath, [veneerPath, 'boot', ...args], {
        encoding: 'utf8',
        timeout: bootsWithinMs,
      });
      expect(status, stdout).toBe(0);
      expect(stdout).toMatch(/: UEFI, virtio-blk, from a mount of its own$/m);
      expect(stdout).toContain(`payload=${payloadSha256}`);
    },
    bootsWithinMs,
  );
});

/** Makes a physical volume of LVM with one logical volume that holds these bytes. */
function layLogicalVolume(contents: string, out: string): void {
  fs.writeFileSync(out, '');
  fs.truncateSync(out, 2 * GiB);
  const extents = Math.ceil(fs.statSync(contents).size / (4 * MiB));
  const group = 'veneertest';
  const start = layLogicalVolumes(out, { offset: 0, sizeBytes: 2 * GiB }, group, (lvm) =>
    addLogicalVolume(lvm, group, 'root', extents),
  );
  const copy = [`if=${contents}`, `of=${out}`, 'bs=1M', `seek=${start / MiB}`, 'conv=notrunc,sparse,fsync'];
  const { status } = spawnSync('dd', [...copy, 'status=none']);
  expect(status).toBe(0);
}
