/** Our MBR boot code runs in a real BIOS: it finds the active partition, reads it with and without LBA, and says what is wrong. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { chainLoaderCode } from '../../src/bootable/boot-code.ts';
import { type BootableGeometry, type Partition } from '../../src/bootable/geometry.ts';
import { encodeMbr } from '../../src/bootable/mbr.ts';
import { GiB, MiB } from '../../src/base/units.ts';
import { sectorBytes } from '../../src/volume/table-layout.ts';
import { TempFolder } from '../temp-folder.ts';
import { startFromDisk } from './bios.ts';

const folder = new TempFolder();
afterAll(() => folder.remove());

function assemble(source: string): Buffer {
  const out = folder.file(`${path.basename(source)}.bin`);
  const { status, stderr, error } = spawnSync('nasm', ['-f', 'bin', source, '-o', out], { encoding: 'utf8' });
  if (error !== undefined) throw error;
  expect(status, stderr).toBe(0);
  return fs.readFileSync(out);
}

const here = (name: string): string => path.join(import.meta.dirname, name);

function partition(lba: number, active: boolean): Partition {
  const guid = '00000000-0000-0000-0000-000000000000';
  return { type: 'windows', startBytes: lba * sectorBytes, sizeBytes: MiB, guid, active };
}

/** What the test's boot sector says when it was started as it should be. */
const startedAt = (lba: number): RegExp => new RegExp(`D80L${lba.toString(16).padStart(8, '0')}$`, 'm');

function mbrOf(sizeBytes: number, partitions: readonly Partition[]): Uint8Array {
  const geometry: BootableGeometry = {
    style: 'mbr',
    firmware: 'bios',
    sizeBytes,
    diskSignature: 0x1234_5678,
    diskGuid: '00000000-0000-0000-0000-000000000000',
    bootCodeBase64: Buffer.from(chainLoaderCode).toString('base64'),
    partitions,
    volumes: [],
  };
  return encodeMbr(geometry);
}

type Sectors = ReadonlyArray<readonly [lba: number, bytes: Uint8Array]>;

/** Boots a sparse disk with these sectors. @returns all that it said until it said `until`, or ended */
async function boot(sizeBytes: number, sectors: Sectors, until: RegExp): Promise<string> {
  const disk = folder.write('disk', '');
  fs.truncateSync(disk, sizeBytes);
  const fd = fs.openSync(disk, 'r+');
  for (const [lba, bytes] of sectors) fs.writeSync(fd, bytes, 0, bytes.length, lba * sectorBytes);
  fs.closeSync(fd);
  return await startFromDisk(disk, until);
}

it('is what its source assembles to', () => {
  const built = assemble(path.join(import.meta.dirname, '../../native-notes/boot-code/mbr.asm'));
  expect(built.length).toBe(440);
  const padded = Buffer.alloc(440);
  padded.set(chainLoaderCode);
  expect(padded.equals(built)).toBe(true);
});

it.each([
  ['at sector 63', GiB, 63],
  ['at sector 2048', GiB, 2048],
  ['past what cylinders, heads and sectors reach', 100 * GiB, 100_000_000],
])('starts the active partition %s, with the drive and the entry that it was given', async (_where, sizeBytes, lba) => {
  const sector = assemble(here('boot-sector.asm'));
  const mbr = mbrOf(sizeBytes, [partition(lba - 16, false), partition(lba, true)]);
  const started = startedAt(lba);
  expect(
    await boot(
      sizeBytes,
      [
        [0, mbr],
        [lba, sector],
      ],
      started,
    ),
  ).toMatch(started);
});

it.each([
  ['at sector 63', GiB, 63],
  ['at sector 1,000,000', GiB, 1_000_000],
])('starts the active partition %s where the BIOS has no LBA', async (_where, sizeBytes, lba) => {
  const sectors = [
    [0, assemble(here('no-extensions.asm'))],
    [1, mbrOf(sizeBytes, [partition(lba, true)])],
    [lba, assemble(here('boot-sector.asm'))],
  ] as const;
  const started = startedAt(lba);
  expect(await boot(sizeBytes, sectors, started)).toMatch(started);
});

const complaints: ReadonlyArray<readonly [why: string, says: RegExp, sectors: () => Sectors]> = [
  ['no partition is active', /No active partition/, () => [[0, mbrOf(GiB, [partition(63, false)])]]],
  [
    'two partitions are active',
    /Invalid partition table/,
    () => [[0, mbrOf(GiB, [partition(63, true), partition(4096, true)])]],
  ],
  ['the partition has no boot sector', /Missing operating system/, () => [[0, mbrOf(GiB, [partition(63, true)])]]],
  [
    'the partition lies behind the end of the disk',
    /Error loading operating system/,
    () => [[0, mbrOf(GiB, [partition(4_000_000_000, true)])]],
  ],
];

it.each(complaints)('says on the screen that %s', async (_why, says, sectors) => {
  expect(await boot(GiB, sectors(), says)).toMatch(says);
});
