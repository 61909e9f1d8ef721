/**
 * Bare volumes of a real guest boot from the disks that are made around them: over file systems, firmwares, partition tables, native formats
 * and disk controllers. `npm test` has each of them at least once (VHDX, IDE and virtio-blk in the other tests of guests), a soak has all together.
 */
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { bootGuest, type Bus } from '../../examples/guest/boot.ts';
import { buildGuestVolume, fileSystems, type FileSystem, type GuestVolume } from '../../examples/guest/guest.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { grubConfig } from '../../src/bootable/grub-config.ts';
import { firmwares, partitionStyles, type Firmware, type PartitionStyle } from '../../src/bootable/geometry.ts';
import { memoryDisk } from '../../src/disk/memory.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { writeDiskOut } from '../../src/disk/write-out.ts';
import { around } from '../bootable/disks.ts';
import { runOk, veneerOk } from '../cli/veneer.ts';
import { soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { placeForTest } from './mounted.ts';

const cacheDir = path.join(import.meta.dirname, '../../.cache');
/** A boot takes 5 to 10 s where nothing else runs, and far longer where KVM is missing and the machine is busy. */
const bootsWithinMs = 600_000;
const formats = ['vhdx', 'qcow2', 'vmdk', 'vdi'] as const;
type Format = (typeof formats)[number];
const buses: readonly Bus[] = ['ide', 'ahci', 'virtio-blk', 'virtio-scsi', 'nvme'];

type Case = readonly [FileSystem, Firmware, PartitionStyle, Format, Bus];

const covering: readonly Case[] = [
  ['xfs', 'bios', 'gpt', 'qcow2', 'ahci'],
  ['btrfs', 'uefi', 'gpt', 'vmdk', 'virtio-scsi'],
  ['ext4', 'uefi', 'mbr', 'vdi', 'nvme'],
];

/** All but for the table, which takes turns: 120 boots. */
function matrix(): Case[] {
  let turn = 0;
  return fileSystems.flatMap((fileSystem) =>
    firmwares.flatMap((firmware) =>
      formats.flatMap((format) =>
        buses.map((bus): Case => {
          const style = partitionStyles[turn++ % partitionStyles.length] ?? 'mbr';
          return [fileSystem, firmware, style, format, bus];
        }),
      ),
    ),
  );
}

const guestOptions = {
  flavour: 'generic',
  cacheDir: path.join(cacheDir, 'packages'),
  outDir: path.join(cacheDir, 'guest'),
} as const;

describe('a volume that boots', () => {
  const volumes = new Map<FileSystem, GuestVolume>();
  const images = new TempFolder();

  beforeAll(async () => {
    for (const fileSystem of fileSystems) {
      const volume = await buildGuestVolume(guestOptions, fileSystem);
      volumes.set(fileSystem, volume);
      await createImage(volume.path, images.file(`${fileSystem}.spf`), { content: 'volume' });
    }
    return () => images.remove();
  }, bootsWithinMs);

  it.each(soak ? matrix() : covering)(
    '%s, %s, %s, from %s on %s',
    async (fileSystem, firmware, style, format, bus) => {
      const place = placeForTest();
      fs.copyFileSync(images.file(`${fileSystem}.spf`), place.behind('system.spf'));
      const name = `vm.${format}`;
      // Software emulation on a busy host can fail the kernel's test of its timer.
      const options = ['--boot', firmware, '--partition-style', style, '--kernel-arguments', 'quiet no_timer_check'];
      await veneerOk('plugin', 'create', ...options, place.behind('system.spf'), place.behind(name));
      await place.mount();
      const report = await bootGuest({ drive: place.under(name), format, bus, firmware, timeoutMs: bootsWithinMs });
      expect(report.fsType).toBe(fileSystem);
      expect(report.payloadSha256).toBe(volumes.get(fileSystem)?.payloadSha256);
      expect(place.complaints()).toEqual([]);
    },
    bootsWithinMs,
  );

  it.each(soak ? firmwares : (['bios'] as const))(
    'an initramfs in the room is loaded behind the guest’s own, with %s',
    async (firmware) => {
      using folder = new TempFolder();
      const volume = volumes.get('ext4')?.path ?? '';
      const cpio = fs.readFileSync(await makeInitramfs(folder));
      const style = firmware === 'bios' ? 'mbr' : 'gpt';
      const { geometry, disk: plain } = around([openFileDisk(volume)], firmware, style);
      plain.close();
      const wishes = { initramfsBytes: cpio.length, kernelArguments: 'no_timer_check veneer.asked=1' };
      const extras = { initramfs: memoryDisk(cpio), config: grubConfig(geometry, wishes) };
      const { disk } = around([openFileDisk(volume)], firmware, style, undefined, extras);
      const raw = folder.file('disk.raw');
      writeDiskOut(disk, raw, () => undefined);
      disk.close();
      const report = await bootGuest({ drive: raw, format: 'raw', firmware, timeoutMs: bootsWithinMs });
      expect(report.serial).toMatch(/^ADDED veneer.asked=1\r?$/m);
      expect(report.payloadSha256).toBe(volumes.get('ext4')?.payloadSha256);
    },
    bootsWithinMs,
  );
});

/** One that adds a program to start with, which says that it is there and goes on as the guest's own does. */
async function makeInitramfs(folder: TempFolder): Promise<string> {
  const tree = folder.file('tree');
  fs.mkdirSync(path.join(tree, 'bin'), { recursive: true });
  const own = fs.readFileSync(path.join(import.meta.dirname, '../../examples/guest/initramfs-init'), 'utf8');
  const added = own.replace(
    'mount -t devtmpfs devtmpfs /dev\n',
    (line) => `${line}echo "ADDED $(grep -o 'veneer.asked=[0-9]*' /proc/cmdline)"\n`,
  );
  expect(added).not.toBe(own);
  fs.writeFileSync(path.join(tree, 'init'), added, { mode: 0o755 });
  const out = folder.file('added.cpio');
  await runOk('bash', ['-c', 'cd "$1" && find . | cpio --quiet -o -H newc >"$2"', 'bash', tree, out]);
  return out;
}
