/** A Windows that UEFI starts: GPT, an EFI system partition with the store, and a SOFTWARE hive that says what Windows it is. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { expect, it, type TestContext } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { guidFromBytes, guidToBytes } from '../../../src/bytes/guid.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { openGuestDisk, type GuestDisk } from '../../../src/volume/open-disk.ts';
import { readBcd } from '../../../src/guest/windows/bcd.ts';
import { tableForWindows } from '../../../src/guest/windows/installation.ts';
import { planWindows } from '../../../src/guest/windows/plan-windows.ts';
import { bytesInMemory, Hive } from '../../../src/guest/windows/registry/hive.ts';
import { TempFolder } from '../../temp-folder.ts';
import { applyTo } from '../../filesystem/trees.ts';
import { faultsOf as fatFaultsOf, makeFat, mtypeBytes } from '../../filesystem/fat/made-volume.ts';
import { catFile, faultsOf, makeVolume } from '../../filesystem/ntfs/made-volume.ts';
import { filledHive, judgeHive, skipWithout } from './hives.ts';
import { hex, softwareLines, systemFile, utf16 } from './machine.ts';

const esp = { start: MiB, size: 40 * MiB, guid: '11111111-2222-3333-4444-555555555555' };
const windows = { start: 41 * MiB, size: 64 * MiB, guid: 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee' };
const diskGuid = '99999999-8888-7777-6666-555555555555';
const oldPartition = '01234567-89ab-cdef-0123-456789abcdef';
const oldDisk = 'fedcba98-7654-3210-fedc-ba9876543210';
const loader = '12345678-aaaa-bbbb-cccc-123456789012';

function deviceOf(partition: string): string {
  const element = Buffer.alloc(88);
  element.writeUInt32LE(6, 16);
  element.writeUInt32LE(0x48, 24);
  element.set(guidToBytes(partition), 32);
  element.set(guidToBytes(oldDisk), 56);
  return hex(element);
}

function storeOf(path: string): Buffer {
  const objects = [
    [
      '9dea862c-5cdd-4e70-acc1-f32b344d4795',
      '11000001',
      `hex(3):${deviceOf(guidFromBytes(new Uint8Array(16).fill(7)))}`,
    ],
    [loader, '11000001', `hex(3):${deviceOf(oldPartition)}`],
    [loader, '12000002', `hex(1):${utf16(path)}`],
    [loader, '12000004', `hex(1):${utf16('Windows 11')}`],
    [loader, '21000001', `hex(3):${deviceOf(oldPartition)}`],
  ] as const;
  const lines = ['[\\Objects]'];
  for (const [object, element, data] of objects)
    lines.push(
      `[\\Objects\\{${object}}]`,
      `[\\Objects\\{${object}}\\Elements]`,
      `[\\Objects\\{${object}}\\Elements\\${element}]`,
      `"Element"=${data}`,
    );
  return filledHive(lines, 4096);
}

const system = [
  '[\\Select]',
  '"Current"=dword:00000001',
  '[\\ControlSet001]',
  '[\\ControlSet001\\Services]',
  ...['vmbus', 'storvsc', 'storflt', 'stornvme', 'storahci'].flatMap((name) => [
    `[\\ControlSet001\\Services\\${name}]`,
    '"Start"=dword:00000000',
    `[\\ControlSet001\\Services\\${name}\\StartOverride]`,
    '"0"=dword:00000003',
  ]),
  '[\\MountedDevices]',
  `"\\\\DosDevices\\\\C:"=hex(3):${hex(Buffer.concat([Buffer.from('DMIO:ID:'), guidToBytes(oldPartition)]))}`,
];

/** A boot manager as far as its header says what machine it is for. */
function program(): Buffer {
  const bytes = Buffer.alloc(300_000, 0x5a);
  bytes.write('MZ');
  bytes.writeUInt32LE(0x80, 0x3c);
  bytes.writeUInt32LE(0x4550, 0x80);
  bytes.writeUInt16LE(0x8664, 0x84);
  return bytes;
}

interface Parts {
  readonly disk: string;
  readonly ntfs: string;
  readonly fat: string;
}

function makeDisk(context: TestContext, folder: TempFolder, winload: string): Parts {
  skipWithout(context, ['sgdisk', 'hivexregedit', 'reged', 'regfinfo']);
  const files = { [systemFile]: filledHive(system), 'Windows/System32/config/SOFTWARE': filledHive(softwareLines) };
  const ntfs = makeVolume(context, folder, { sizeBytes: windows.size, files }).image;
  const fat = makeFat(context, folder, {
    bits: 32,
    sizeBytes: esp.size,
    files: { 'EFI/Microsoft/Boot/BCD': storeOf(winload), 'EFI/Microsoft/Boot/bootmgfw.efi': program() },
  });
  const disk = folder.write('disk.raw', '');
  fs.truncateSync(disk, windows.start + windows.size + MiB);
  const sectors = (bytes: number): number => bytes / 512;
  const partition = (number: number, { start, size, guid }: typeof esp, type: string): string[] => [
    `--new=${number}:${sectors(start)}:${sectors(start + size) - 1}`,
    `--typecode=${number}:${type}`,
    `--partition-guid=${number}:${guid}`,
  ];
  execFileSync(
    'sgdisk',
    ['-a', '1', `--disk-guid=${diskGuid}`, ...partition(1, esp, 'EF00'), ...partition(2, windows, '0700'), disk],
    {
      stdio: 'pipe',
    },
  );
  const fd = fs.openSync(disk, 'r+');
  fs.writeSync(fd, fs.readFileSync(fat), 0, esp.size, esp.start);
  fs.writeSync(fd, fs.readFileSync(ntfs), 0, windows.size, windows.start);
  fs.closeSync(fd);
  return { disk, ntfs, fat };
}

function withGuest<T>(image: string, use: (guest: GuestDisk) => T): T {
  const disk = openFileDisk(image);
  try {
    return use(openGuestDisk(disk));
  } finally {
    disk.close();
  }
}

it('a store, a drive letter and a fallback loader for UEFI: foreign readers find what was planned', (context) => {
  using folder = new TempFolder();
  const { disk, ntfs, fat } = makeDisk(context, folder, '\\Windows\\system32\\winload.exe');
  const plan = withGuest(disk, (guest) => planWindows(guest, 'hyperv-gen2'));
  if (plan === undefined) throw new Error('no Windows was found');
  expect(plan.guest).toMatchObject({ name: 'Windows 11 Pro', version: '10.0.22631', firmware: ['uefi'] });
  expect(plan.warnings).toEqual([]);
  applyTo(disk, plan.patches);
  const bytes = fs.readFileSync(disk);
  fs.writeFileSync(fat, bytes.subarray(esp.start, esp.start + esp.size));
  fs.writeFileSync(ntfs, bytes.subarray(windows.start, windows.start + windows.size));
  expect(execFileSync('sgdisk', ['-v', disk], { encoding: 'utf8' })).toContain('No problems found');
  expect(fatFaultsOf(fat)).toBe('');
  expect(faultsOf(ntfs)).toBe('');
  expect(mtypeBytes(fat, 'EFI/BOOT/BOOTX64.EFI').equals(program())).toBe(true);
  const store = mtypeBytes(fat, 'EFI/Microsoft/Boot/BCD');
  judgeHive(store);
  const { devices, paths } = readBcd(new Hive('BCD', bytesInMemory(store)));
  expect(paths.map(({ path }) => path)).toEqual(['\\Windows\\system32\\winload.efi']);
  expect(devices.map(({ object, partition }) => [object, partition])).toEqual([
    [loader, { style: 'gpt', partition: windows.guid, disk: diskGuid }],
    [loader, { style: 'gpt', partition: windows.guid, disk: diskGuid }],
    ['9dea862c-5cdd-4e70-acc1-f32b344d4795', { style: 'gpt', partition: esp.guid, disk: diskGuid }],
  ]);
  const hive = catFile(ntfs, systemFile);
  judgeHive(hive);
  const read = new Hive('SYSTEM', bytesInMemory(hive));
  const letter = Buffer.from(read.key('MountedDevices')?.value('\\DosDevices\\C:')?.data() ?? []);
  expect(letter.equals(Buffer.concat([Buffer.from('DMIO:ID:'), guidToBytes(windows.guid)]))).toBe(true);
  for (const name of ['vmbus', 'storvsc', 'storflt'])
    expect(read.key(`ControlSet001\\Services\\${name}\\StartOverride`)?.dword('0')).toBe(0);
  expect(withGuest(disk, (guest) => planWindows(guest, 'hyperv-gen2'))?.patches).toEqual([]);
});

it('the GUIDs of a table to be built around these volumes are those that Windows remembers', (context) => {
  using folder = new TempFolder();
  const { disk } = makeDisk(context, folder, '\\Windows\\system32\\winload.efi');
  withGuest(disk, (guest) => {
    expect(tableForWindows(guest.volumes, 'gpt')).toEqual({
      diskGuid: oldDisk,
      partitions: [{ guid: guidFromBytes(new Uint8Array(16).fill(7)) }, { guid: oldPartition }],
    });
    expect(tableForWindows(guest.volumes, 'mbr')).toBeUndefined();
  });
});
