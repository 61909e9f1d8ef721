/** Partition tables of disks that are made around volumes, as sgdisk and sfdisk see them. */
import fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { sectorBytes } from '../../src/volume/table-layout.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { runOk } from '../cli/veneer.ts';
import { writeAround } from './disks.ts';

const folder = new TempFolder();
afterAll(() => folder.remove());

let ext4: string;
let data: string;
let ntfs: string;

beforeAll(async () => {
  ext4 = folder.write('system.ext4', '');
  fs.truncateSync(ext4, 24 * MiB);
  await runOk('/sbin/mke2fs', ['-q', '-t', 'ext4', ext4]);
  // Not a whole number of sectors.
  data = folder.write('data.bin', new Seeded('data volume').bytes(3 * MiB + 700));
  ntfs = folder.write('system.ntfs', '');
  fs.truncateSync(ntfs, 16 * MiB);
  await runOk('/sbin/mkntfs', ['-q', '-F', '-p', '63', '-H', '255', '-S', '63', ntfs]);
});

interface Row {
  readonly start: number;
  readonly size: number;
  readonly type: string;
  readonly uuid?: string;
  readonly bootable?: boolean;
}

interface Table {
  readonly label: string;
  readonly id: string;
  readonly partitions: readonly Row[];
}

async function tableOf(disk: string): Promise<Table> {
  return (JSON.parse(await runOk('/sbin/sfdisk', ['--json', disk])) as { partitiontable: Table }).partitiontable;
}

/** Both are content, with no word of warning. */
async function judge(disk: string): Promise<void> {
  expect(await runOk('/sbin/sgdisk', ['-v', disk])).toMatch(/^No problems found/m);
  const said = await runOk('/sbin/sfdisk', ['-V', disk]);
  expect(said).toMatch(/No errors detected/);
  expect(said).not.toMatch(/warning|overlap|does not/i);
}

describe.each([
  ['bios', 'mbr', ['83', '83']],
  ['bios', 'gpt', ['21686148', '0FC63DAF', '0FC63DAF']],
  ['uefi', 'gpt', ['C12A7328', '0FC63DAF', '0FC63DAF']],
  ['uefi', 'mbr', ['ef', '83', '83']],
] as const)('a disk for %s with %s', (firmware, style, types) => {
  const name = `${firmware}-${style}.raw`;

  it('has a table without fault, and the volumes where it says', async () => {
    const disk = folder.file(name);
    writeAround(disk, [ext4, data], firmware, style);
    await judge(disk);
    const { label, partitions } = await tableOf(disk);
    expect(label).toBe(style === 'mbr' ? 'dos' : 'gpt');
    expect(partitions.map(({ type }) => type.split('-')[0])).toEqual(types);
    const [system, second] = partitions.slice(-2);
    const contents = fs.readFileSync(disk);
    const at = (row: Row | undefined, length: number): Buffer =>
      contents.subarray((row?.start ?? 0) * sectorBytes, (row?.start ?? 0) * sectorBytes + length);
    expect(at(system, 24 * MiB).equals(fs.readFileSync(ext4))).toBe(true);
    expect(at(second, 3 * MiB + 700).equals(fs.readFileSync(data))).toBe(true);
    expect(second?.size).toBe(Math.ceil((3 * MiB + 700) / 512));
    expect(partitions.map(({ bootable }) => bootable === true)).toEqual(
      types
        .map((type) => firmware === 'bios' && style === 'mbr' && type === '83')
        .map((is, index) => is && index === 0),
    );
  });

  it('is the same each time, down to its GUIDs', () => {
    writeAround(folder.file(`again-${name}`), [ext4, data], firmware, style);
    expect(fs.readFileSync(folder.file(`again-${name}`)).equals(fs.readFileSync(folder.file(name)))).toBe(true);
  });
});

it('a damaged first GPT is mended from the second', async () => {
  const disk = folder.file('mended.raw');
  writeAround(disk, [ext4], 'uefi', 'gpt');
  const before = await tableOf(disk);
  const fd = fs.openSync(disk, 'r+');
  fs.writeSync(fd, Buffer.alloc(34 * sectorBytes), 0, 33 * sectorBytes, sectorBytes);
  fs.closeSync(fd);
  await runOk('/sbin/sgdisk', ['-e', disk]);
  expect(await tableOf(disk)).toEqual(before);
});

it('signature, starts and GUIDs are taken where they are given', async () => {
  const mbr = folder.file('given-mbr.raw');
  writeAround(mbr, [ntfs], 'bios', 'mbr', { diskSignature: 0xdead_beef, partitions: [{ startBytes: 63 * 512 }] });
  await judge(mbr);
  expect(await tableOf(mbr)).toMatchObject({
    id: '0xdeadbeef',
    partitions: [{ start: 63, type: '7', bootable: true }],
  });
  const gpt = folder.file('given-gpt.raw');
  writeAround(gpt, [ext4], 'uefi', 'gpt', {
    diskGuid: '11111111-2222-3333-4444-555555555555',
    partitions: [{ startBytes: 100 * MiB, guid: '66666666-7777-8888-9999-aaaaaaaaaaaa' }],
  });
  await judge(gpt);
  const { id, partitions } = await tableOf(gpt);
  expect(id).toBe('11111111-2222-3333-4444-555555555555');
  expect(partitions.at(-1)).toMatchObject({
    start: (100 * MiB) / 512,
    uuid: '66666666-7777-8888-9999-AAAAAAAAAAAA',
  });
});

it('an NTFS volume says where it lies now, in its boot sector and in the copy, and nothing else changes', async () => {
  const disk = folder.file('placed-ntfs.raw');
  writeAround(disk, [ntfs], 'bios', 'mbr', { partitions: [{ startBytes: 300 * 512 }] });
  const volume = Buffer.from(fs.readFileSync(disk).subarray(300 * 512, 300 * 512 + 16 * MiB));
  const expected = fs.readFileSync(ntfs);
  const copy = expected.length - 512;
  for (const at of [0, copy]) {
    expect(volume.readUInt32LE(at + 0x1c)).toBe(300);
    expect(volume.readUInt8(at + 0x24)).toBe(0x80);
    expected.writeUInt32LE(300, at + 0x1c);
    expected.writeUInt8(0x80, at + 0x24);
  }
  expect(volume.equals(expected)).toBe(true);
  await runOk('ntfsfix', ['-n', folder.write('placed.ntfs', volume)]);
});

it.each([
  ['a partition over the boot loader', [ext4Of], { partitions: [{ startBytes: 512 }] }, /cannot start at byte 512/],
  ['one between sectors', [ext4Of], { partitions: [{ startBytes: 2 ** 20 + 1 }] }, /cannot start at byte 1048577/],
  [
    'two in one place',
    [ext4Of, ext4Of],
    { partitions: [{ startBytes: 2 ** 20 }, { startBytes: 2 * 2 ** 20 }] },
    /cannot start at byte 2097152/,
  ],
  ['too many volumes', [ext4Of, ext4Of, ext4Of, ext4Of, ext4Of], {}, /1 to 4 volumes, not 5/],
] as const)('refuses %s', (_what, volumes, given, says) => {
  expect(() =>
    writeAround(
      folder.file('refused.raw'),
      volumes.map((of) => of()),
      'bios',
      'mbr',
      given,
    ),
  ).toThrow(says);
  expect(fs.existsSync(folder.file('refused.raw'))).toBe(false);
});

function ext4Of(): string {
  return ext4;
}
