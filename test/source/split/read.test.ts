/** A raw disk that was split. GNU split makes the parts. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { beforeAll, afterAll, expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { nativeSource, openSource } from '../../../src/source/open-source.ts';
import { conformsToDisk } from '../../disk/conformance.ts';
import { writeGolden } from '../../native/golden.ts';
import { Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';

const sizeBytes = 5 * MiB + 512;

/** In a folder of its own. @returns the path of the first part */
function split(folder: TempFolder, raw: string, partBytes: number, from = 1): string {
  const args = ['-b', String(partBytes), '-a', '3', `--numeric-suffixes=${from}`, raw, folder.file('disk.raw.')];
  const { status, stderr } = spawnSync('split', args, { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return folder.file(`disk.raw.${String(from).padStart(3, '0')}`);
}

let golden: TempFolder;
let raw: string;
beforeAll(() => {
  golden = new TempFolder();
  raw = golden.file('golden.raw');
  writeGolden(raw, sizeBytes, new Seeded('split'));
});
afterAll(() => golden.remove());

for (const partBytes of [MiB, 700_001, 5 * MiB]) {
  conformsToDisk(`split every ${partBytes} bytes`, () => {
    const folder = new TempFolder();
    const own = folder.file('golden.raw');
    const model = writeGolden(own, sizeBytes, new Seeded('split'));
    const disk = openSource(split(folder, own, partBytes));
    return { disk, model, boundaries: [partBytes], remove: () => folder.remove() };
  });
}

it('is imaged whole, whether its parts begin with .000 or .001', async () => {
  for (const from of [0, 1]) {
    using folder = new TempFolder();
    await createImage(split(folder, raw, MiB, from), folder.file('vm.spf'), { source: nativeSource });
    const disk = openChainDisk(folder.file('vm.spf'));
    const bytes = Buffer.alloc(sizeBytes);
    disk.read(bytes, 0);
    disk.close();
    expect(bytes.equals(fs.readFileSync(raw))).toBe(true);
  }
});

it('is refused where a part is missing, cut off, too long or empty, and where a later part is given', () => {
  const cases: readonly (readonly [spoil: (folder: TempFolder) => unknown, says: RegExp])[] = [
    [(folder) => fs.rmSync(folder.file('disk.raw.003')), /its part disk\.raw\.003 is missing/],
    [(folder) => fs.truncateSync(folder.file('disk.raw.002'), MiB - 512), /disk\.raw\.002.*cut off/],
    [(folder) => fs.appendFileSync(folder.file('disk.raw.002'), 'x'), /disk\.raw\.002.*another disk/],
    [(folder) => fs.truncateSync(folder.file('disk.raw.006'), 2 * MiB), /disk\.raw\.006.*another disk/],
    [(folder) => fs.truncateSync(folder.file('disk.raw.006'), 0), /disk\.raw\.006/],
    [(folder) => folder.file('disk.raw.002'), /give its first one, disk\.raw\.001, or --source-format raw/],
  ];
  for (const [spoil, says] of cases) {
    using folder = new TempFolder();
    const first = split(folder, raw, MiB);
    const given = spoil(folder);
    expect(() => openSource(typeof given === 'string' ? given : first)).toThrow(says);
  }
});

it('numbered copies of one disk are no parts of one, unless somebody says so', () => {
  using folder = new TempFolder();
  const disk = Buffer.alloc(MiB);
  disk.writeUInt16LE(0xaa55, 510);
  disk.set([0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0], 446);
  for (const number of ['001', '002']) folder.write(`copy.${number}`, disk);
  expect(() => openSource(folder.file('copy.001'))).toThrow(/begins like a disk of its own.*split.*raw/);
  for (const [format, wanted] of [
    ['split', 2 * MiB],
    ['raw', MiB],
  ] as const) {
    const source = openSource(folder.file('copy.001'), format);
    expect(source.sizeBytes).toBe(wanted);
    source.close();
  }
});

it('one file with a number and no other beside it is a raw disk', () => {
  using folder = new TempFolder();
  folder.write('disk.365', Buffer.alloc(64 * KiB, 7));
  folder.write('other.366', Buffer.alloc(64 * KiB, 7));
  const source = openSource(folder.file('disk.365'));
  expect(source.sizeBytes).toBe(64 * KiB);
  source.close();
});

it('a container under such a name is refused, with the ways to insist', () => {
  using folder = new TempFolder();
  folder.write('disk.001', Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), Buffer.alloc(64 * KiB)]));
  expect(() => openSource(folder.file('disk.001'))).toThrow(
    /is a qcow2 file.*--source-format qcow2;.*--source-format split/,
  );
});
