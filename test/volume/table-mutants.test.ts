/**
 * Broken partition tables and LVM, with checksums that are right: volumes inside the disk, whose patches lie where they read, or a warning;
 * never a crash or a hang.
 */
import fs from 'node:fs';
import { afterAll, expect, it, vi } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { crc32 } from '../../src/bytes/checksum.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { openGuestDisk } from '../../src/volume/open-disk.ts';
import { whyNoLoopDevices } from '../disk/loop-device.ts';
import type { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { survivesGuestMutants, type GuestSubject } from '../guest/mutants.ts';
import { run } from '../filesystem/trees.ts';
import { addLogicalVolume, layLogicalVolumes } from './lvm-commands.ts';

const sectorBytes = 512;
const folder = new TempFolder();
const noLoops = whyNoLoopDevices();
if (noLoops !== undefined) console.log(`mutants of LVM are not tested: ${noLoops}`);

vi.setConfig({ testTimeout: 1_800_000 });
afterAll(() => folder.remove());

/** Makes the checksums in a sector right that was just read. */
type Mend = (sector: DataView, disk: Disk) => void;

/** Tries mutants of what says where volumes lie. */
function survives(
  title: string,
  image: string,
  mend: Mend,
  how: Required<Pick<GuestSubject, 'changes'>> & Pick<GuestSubject, 'change'>,
): void {
  const layouts = new Set<string>();
  const use = (mutant: Disk): [] => {
    const volumes = openGuestDisk(mended(mutant, mend)).volumes;
    for (const volume of volumes) {
      const { sizeBytes } = volume.disk;
      const before = new Uint8Array(Math.min(sectorBytes, sizeBytes));
      for (const offsetBytes of [0, sizeBytes - before.length]) {
        volume.disk.read(before, offsetBytes);
        for (const patch of volume.toDisk([{ offsetBytes, before, after: before }])) {
          const found = new Uint8Array(patch.before.length);
          mended(mutant, mend).read(found, patch.offsetBytes);
          if (!Buffer.from(found).equals(patch.before)) throw new Error(`a patch of ${volume.name} lies elsewhere`);
        }
      }
    }
    layouts.add(volumes.map(({ name, disk }) => `${name}: ${disk.sizeBytes}`).join('\n'));
    return [];
  };
  survivesGuestMutants(title, { disk: fs.readFileSync(image), use, ...how });
  expect(layouts.size, 'layouts that mutants came to').toBeGreaterThan(5);
}

function mended(disk: Disk, mend: Mend): Disk {
  return {
    ...disk,
    sizeBytes: disk.sizeBytes,
    read(target, offset) {
      disk.read(target, offset);
      if (target.length === sectorBytes) mend(new DataView(target.buffer, target.byteOffset, target.byteLength), disk);
    },
  };
}

/** Bytes of the disk; undefined where they are not on it, or too many. */
function bytesOf(disk: Disk, offset: number, length: number): Uint8Array | undefined {
  if (length > 4 * MiB || !Number.isSafeInteger(offset) || offset + length > disk.sizeBytes) return undefined;
  const bytes = new Uint8Array(length);
  disk.read(bytes, offset);
  return bytes;
}

function textAt(sector: DataView, offset: number, length: number): string {
  return Buffer.from(sector.buffer, sector.byteOffset + offset, length).toString('latin1');
}

const mendGpt: Mend = (sector, disk) => {
  if (textAt(sector, 0, 8) !== 'EFI PART') return;
  const lengthBytes = sector.getUint32(80, true) * sector.getUint32(84, true);
  const entries = bytesOf(disk, Number(sector.getBigUint64(72, true)) * sectorBytes, lengthBytes);
  if (entries !== undefined) sector.setUint32(88, crc32(entries), true);
  sector.setUint32(16, 0, true);
  const headerBytes = Math.min(sector.getUint32(12, true), sectorBytes);
  sector.setUint32(16, crc32(new Uint8Array(sector.buffer, sector.byteOffset, headerBytes)), true);
};

/** LVM's own start value, and no inversion at the end. */
const lvmChecksum = (bytes: Uint8Array): number => ~crc32(bytes, ~0xf597a6cf >>> 0) >>> 0;

/** Of a disk that is one physical volume. */
const mendLvm: Mend = (sector, disk) => {
  const rest = (from: number): Uint8Array =>
    new Uint8Array(sector.buffer, sector.byteOffset + from, sectorBytes - from);
  if (textAt(sector, 0, 8) === 'LABELONE') sector.setUint32(16, lvmChecksum(rest(20)), true);
  if (textAt(sector, 4, 6) !== ' LVM2 ') return;
  const start = Number(sector.getBigUint64(24, true));
  const text = bytesOf(disk, start + Number(sector.getBigUint64(40, true)), Number(sector.getBigUint64(48, true)));
  if (text !== undefined) sector.setUint32(56, lvmChecksum(text), true);
  sector.setUint32(0, lvmChecksum(rest(4)), true);
};

/** Another number in a text, as long as the one that was there. */
function changeNumber(text: Buffer, random: Seeded): void {
  const numbers = [...text.toString('latin1').matchAll(/(?<=[ \t])\d+(?=\n)/g)];
  if (numbers.length === 0) return;
  const number = random.pick(numbers);
  const digits = String(random.below(10 ** Math.min(12, number[0].length)));
  text.write(digits.padEnd(number[0].length), number.index, 'latin1');
}

function blank(name: string, sizeBytes: number): string {
  const image = folder.write(name, '');
  fs.truncateSync(image, sizeBytes);
  return image;
}

const firstPartition = MiB;

it('mutants of a GPT', () => {
  const image = blank('gpt', 24 * MiB);
  run('bash', '-c', `printf 'label: gpt\nsize=2048,type=uefi\nsize=4096,type=linux\nsize=8192\n' | sfdisk -q ${image}`);
  const isTable = (offset: number): boolean => offset < firstPartition || offset >= 23 * MiB;
  survives('GPT', image, mendGpt, { changes: isTable });
});

it('mutants of an MBR with logical partitions', () => {
  const image = blank('mbr', 24 * MiB);
  run('bash', '-c', `printf 'size=2048\nsize=30000,type=5\nsize=2000\nsize=3000\nsize=4000\n' | sfdisk -q ${image}`);
  // Each logical partition has a table in a sector in front of it; the others hold nothing.
  const disk = fs.readFileSync(image);
  const isTable = (offset: number): boolean => disk.readUInt16LE(offset + 510) === 0xaa55;
  survives('MBR', image, () => undefined, { changes: isTable });
});

it.skipIf(noLoops !== undefined)('mutants of a description of logical volumes', () => {
  const image = blank('lvm', 64 * MiB);
  const group = `vgmutants${process.pid}`;
  layLogicalVolumes(image, { offset: 0, sizeBytes: 64 * MiB }, group, (lvm) => {
    for (const name of ['first', 'other']) addLogicalVolume(lvm, group, name, 2);
    lvm('lvextend', '-qq', '-l', '+3', `${group}/first`);
  });
  // The label, the header of the descriptions, and the newest of them, which begins with the group's name.
  const disk = fs.readFileSync(image).toString('latin1');
  const isLvm = (offset: number): boolean =>
    disk.startsWith('LABELONE', offset) || disk.startsWith(' LVM2 ', offset + 4) || disk.startsWith(group, offset);
  survives('LVM', image, mendLvm, { changes: isLvm, change: changeNumber });
});
