/** Disks that sfdisk, sgdisk and LVM made: every partition and logical volume is found, and what lies on it is read at its place. */
import fs from 'node:fs';
import { afterAll, expect, it } from 'vitest';
import { closing } from '../../src/base/ownership.ts';
import { MiB } from '../../src/base/units.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { openGuestDisk, type GuestDisk } from '../../src/volume/open-disk.ts';
import { whyNoLoopDevices } from '../disk/loop-device.ts';
import { TempFolder } from '../temp-folder.ts';
import { applyTo, run } from '../filesystem/trees.ts';
import { addLogicalVolume, layLogicalVolumes } from './lvm-commands.ts';
import { execFileSync } from 'node:child_process';

const folder = new TempFolder();
const noLoops = whyNoLoopDevices();
if (noLoops !== undefined) console.log(`LVM is not tested: ${noLoops}`);
afterAll(() => folder.remove());

function blank(name: string, sizeBytes: number): string {
  fs.writeFileSync(folder.file(name), '');
  fs.truncateSync(folder.file(name), sizeBytes);
  return folder.file(name);
}

function partitioned(name: string, script: string): string {
  const image = blank(name, 128 * MiB);
  execFileSync('/usr/sbin/sfdisk', ['--quiet', image], { input: script });
  return image;
}

/** A small ext4 with one file that says where it is. */
function fill(image: string, offset: number, says: string): void {
  const tree = folder.file(`tree-${says}`);
  fs.mkdirSync(`${tree}/etc`, { recursive: true });
  fs.writeFileSync(`${tree}/etc/place`, says);
  const volume = blank(`volume-${says}`, 8 * MiB);
  run('mke2fs', '-q', '-F', '-t', 'ext4', '-d', tree, volume);
  const fd = fs.openSync(image, 'r+');
  fs.writeSync(fd, fs.readFileSync(volume), 0, 8 * MiB, offset);
  fs.closeSync(fd);
}

function withGuest<T>(image: string, use: (guest: GuestDisk) => T): T {
  using disk = closing(openFileDisk(image));
  return use(openGuestDisk(disk.value));
}

function placesOf(guest: GuestDisk): string[] {
  return guest.volumes.map(({ name, fileSystem }) => {
    const says = fileSystem === undefined ? 'nothing' : Buffer.from(fileSystem.readFile('/etc/place', 100)).toString();
    return `${name}: ${says}`;
  });
}

it('an MBR with logical partitions is read, and each volume at its place', () => {
  const image = partitioned(
    'mbr',
    'label: dos\nlabel-id: 0x12345678\nstart=2048,size=20480,type=83,bootable\nstart=22528,size=200000,type=5\nstart=24576,size=20480,type=83\nstart=49152,size=20480,type=83\n',
  );
  fill(image, 2048 * 512, 'primary');
  fill(image, 24576 * 512, 'fifth');
  fill(image, 49152 * 512, 'sixth');
  withGuest(image, (guest) => {
    expect(placesOf(guest)).toEqual(['partition 1: primary', 'partition 5: fifth', 'partition 6: sixth']);
    expect(guest.table).toMatchObject({ style: 'mbr', diskSignature: 0x12345678, warnings: [] });
    expect(guest.volumes[0]?.partition?.active).toBe(true);
  });
});

it('a GPT is read; when its first copy is broken, the other one, and that is said', () => {
  const image = partitioned(
    'gpt',
    'label: gpt\nsize=40960,type=uefi\nsize=40960,type=linux,uuid=01234567-89AB-CDEF-0123-456789ABCDEF\n',
  );
  fill(image, (2048 + 40960) * 512, 'second');
  const check = (warnings: unknown): void =>
    withGuest(image, (guest) => {
      expect(placesOf(guest)).toEqual(['partition 1: nothing', 'partition 2: second']);
      expect(guest.volumes[1]?.partition?.guid).toBe('01234567-89ab-cdef-0123-456789abcdef');
      expect(guest.warnings).toEqual(warnings);
    });
  check([]);
  applyTo(image, [{ offsetBytes: 512 + 60, before: new Uint8Array(1), after: Uint8Array.of(0x77) }]);
  check([expect.stringContaining('the backup at the end of the disk was read')]);
  applyTo(image, [{ offsetBytes: 128 * MiB - 512 + 60, before: new Uint8Array(1), after: Uint8Array.of(0x77) }]);
  expect(() => withGuest(image, placesOf)).toThrow(/neither copy/);
});

it('a bare volume is one volume, also where its boot sector ends like an MBR', () => {
  const image = blank('bare', 16 * MiB);
  fill(image, 0, 'bare');
  applyTo(image, [{ offsetBytes: 510, before: new Uint8Array(2), after: Uint8Array.of(0x55, 0xaa) }]);
  withGuest(image, (guest) => {
    expect(guest.table).toBeUndefined();
    expect(placesOf(guest)).toEqual(['the volume: bare']);
  });
});

it('a chain of logical partitions that leads in a circle is followed once, and said', () => {
  const image = partitioned(
    'circle',
    'label: dos\nstart=2048,size=200000,type=5\nstart=4096,size=20480,type=83\nstart=49152,size=20480,type=83\n',
  );
  const bytes = fs.readFileSync(image);
  const second = 2048 * 512 + 446 + 16;
  expect(bytes[second + 4]).toBe(5);
  bytes.writeUInt32LE(0, second + 8);
  fs.writeFileSync(image, bytes);
  withGuest(image, (guest) =>
    expect(guest.warnings).toEqual([expect.stringContaining('logical partitions is broken')]),
  );
});

it.skipIf(noLoops !== undefined)('logical volumes of LVM are read and patched where their extents lie', () => {
  const image = partitioned('lvm', 'label: gpt\nsize=204800,type=lvm\n');
  const partitionStart = 2048 * 512;
  const group = `vg${process.pid}`;
  const part = { offset: partitionStart, sizeBytes: 204800 * 512 };
  const firstExtent =
    partitionStart +
    layLogicalVolumes(image, part, group, (lvm) => {
      for (const name of ['first', 'other']) addLogicalVolume(lvm, group, name, 1);
      lvm('lvextend', '-qq', '-l', '+2', `${group}/first`);
    });
  fs.copyFileSync(image, folder.file('lvm-table'));
  // The volume `first` has the extents 0, 2 and 3 of the group; between them lies `other`.
  fill(image, 0, 'logical');
  const volume = fs.readFileSync(folder.file('volume-logical'));
  const bytes = fs.readFileSync(folder.file('lvm-table'));
  volume.copy(bytes, firstExtent, 0, 4 * MiB);
  volume.copy(bytes, firstExtent + 8 * MiB, 4 * MiB, 8 * MiB);
  fs.writeFileSync(image, bytes);
  withGuest(image, (guest) => {
    expect(guest.warnings).toEqual([]);
    expect(placesOf(guest)[0]).toMatch(/^LVM vg\d+\/first: logical$/);
    expect(guest.volumes).toHaveLength(2);
    const after = new Uint8Array(6 * MiB).fill(1);
    const patches = guest.volumes[0]?.toDisk([{ offsetBytes: 3 * MiB, before: new Uint8Array(6 * MiB), after }]) ?? [];
    expect(patches.map(({ offsetBytes, after: part }) => [offsetBytes - firstExtent, part.length])).toEqual([
      [3 * MiB, MiB],
      [8 * MiB, 5 * MiB],
    ]);
  });
});
