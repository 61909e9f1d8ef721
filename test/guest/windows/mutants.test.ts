/** Broken hives, boot configurations, NTFS and FAT below a Windows: an error or a plan that holds, never a crash, a hang or a patch outside. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { alignUp } from '../../../src/base/ranges.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { openGuestDisk, type GuestDisk } from '../../../src/volume/open-disk.ts';
import { checkPatches, type Patch } from '../../../src/filesystem/edit/patch.ts';
import { FilesByPath } from '../../../src/filesystem/by-path.ts';
import { openFat } from '../../../src/filesystem/fat/volume.ts';
import { openNtfs } from '../../../src/filesystem/ntfs/volume.ts';
import { LoadedHive } from '../../../src/guest/windows/loaded-hive.ts';
import { planWindows } from '../../../src/guest/windows/plan-windows.ts';
import { RecordedEdits } from '../../../src/guest/windows/recorded-edits.ts';
import { registerDrivers } from '../../../src/guest/windows/virtio.ts';
import { viewOf } from '../../../src/bytes/view.ts';
import { baseBlock, checksumOf } from '../../../src/guest/windows/registry/layout.ts';
import { soak } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { makeFat } from '../../filesystem/fat/made-volume.ts';
import { leaveFreeRecords, makeVolume } from '../../filesystem/ntfs/made-volume.ts';
import { guestMutantCount, survivesGuestMutants } from '../mutants.ts';
import { bareFiles, bareFileUnitBytes } from './bare-files.ts';
import { filledHive, realHive, skipWithout } from './hives.ts';
import { partitionStartBytes, smallSystem, softwareLines, withPartition } from './machine.ts';

const paths = { system: '/Windows/System32/config/SYSTEM', store: '/Boot/BCD' } as const;

function sealHive(structure: Buffer): void {
  if (structure.length < 512 || structure.toString('latin1', 0, 4) !== 'regf') return;
  viewOf(structure).setUint32(baseBlock.offsetOf('checksum'), checksumOf(structure), true);
}

/** A disk that holds only these files, and what a plan makes of it. */
function mutantsOfFiles(title: string, files: readonly (readonly [string, Uint8Array])[]): number {
  const disk = Buffer.concat(
    files.map(([, contents]) => Buffer.concat([contents], alignUp(contents.length, bareFileUnitBytes))),
  );
  const sizes = files.map(([path, contents]) => [path, contents.length] as const);
  const use = (mutant: Disk): readonly Patch[] => {
    const partition = { number: 1, startBytes: 0, sizeBytes: mutant.sizeBytes };
    const guest: GuestDisk = {
      disk: mutant,
      table: { style: 'mbr', diskSignature: 7, partitions: [partition], warnings: [] },
      volumes: [
        {
          name: 'partition 1',
          disk: mutant,
          partition,
          fileSystem: bareFiles(mutant, sizes),
          toDisk: (patches) => [...patches],
        },
      ],
      warnings: [],
    };
    return planWindows(guest, 'hyperv-gen1')?.patches ?? [];
  };
  return survivesGuestMutants(title, { disk, use, reseal: sealHive });
}

/** Some mutants get through, or what is behind the first check was never reached; and some do not. */
function expectBoth(planned: number): void {
  expect(planned).toBeGreaterThan(0);
  expect(planned).toBeLessThan(guestMutantCount);
}

const timeout = 1_800_000;

it('mutants of a small SYSTEM hive', { timeout }, (context) => {
  skipWithout(context, ['hivexregedit']);
  expectBoth(mutantsOfFiles('small SYSTEM', [[paths.system, filledHive(smallSystem, 8 * KiB)]]));
});

it('mutants of a small SYSTEM hive that drivers are entered in', { timeout }, (context) => {
  skipWithout(context, ['hivexregedit']);
  const database = ['DeviceIds\\PCI', 'DriverInfFiles', 'DriverPackages'].map((key) => `[\\DriverDatabase\\${key}]`);
  const hive = filledHive(
    [...smallSystem, '[\\DriverDatabase]', '[\\DriverDatabase\\DeviceIds]', ...database],
    8 * KiB,
  );
  const use = (mutant: Disk): readonly Patch[] => {
    const files = bareFiles(mutant, [[paths.system, hive.length]]);
    const edits = new RecordedEdits(new LoadedHive(files, paths.system));
    const version = { name: '', version: '', build: 22_631, server: false, drive: 'C', warnings: [] };
    const drivers = ['viostor', 'vioscsi'].map((name) => ({
      name,
      path: '',
      contents: new Uint8Array(0),
      modified: new Date(0),
    }));
    registerDrivers(edits, 'ControlSet001', drivers, version);
    return files.replace(edits.hive.edits());
  };
  expectBoth(survivesGuestMutants('small SYSTEM with drivers', { disk: hive, use, reseal: sealHive }));
});

it('mutants of a boot configuration', { timeout }, (context) => {
  skipWithout(context, ['hivexregedit']);
  const store = realHive(context, 'BCDlaptop');
  // The first changes of a plan that is made are of the store, which is larger.
  expectBoth(
    mutantsOfFiles('BCD', [
      [paths.store, store],
      [paths.system, filledHive(smallSystem)],
    ]),
  );
});

it('mutants of a hive with its logs', { timeout }, (context) => {
  const logs = ['.LOG1', '.LOG2'].map((suffix) => realHive(context, `dirty/NewDirtyHive1/NewDirtyHive${suffix}`));
  const files: [string, Uint8Array][] = [
    [paths.store, realHive(context, 'dirty/NewDirtyHive1/NewDirtyHive')],
    ...logs.map((log, index): [string, Uint8Array] => [`${paths.store}.LOG${index + 1}`, log]),
    [paths.system, filledHive(smallSystem)],
  ];
  expectBoth(mutantsOfFiles('hive and logs', files));
});

it.runIf(soak)('mutants of the SYSTEM hive of Windows 7', { timeout }, (context) => {
  expectBoth(mutantsOfFiles('SYSTEM of Windows 7', [[paths.system, realHive(context, 'SYSTEM')]]));
});

it('mutants of an NTFS volume', { timeout }, (context) => {
  skipWithout(context, ['hivexregedit']);
  using folder = new TempFolder();
  const files: Record<string, Uint8Array> = {
    'Windows/System32/config/SYSTEM': filledHive(smallSystem),
    'Windows/System32/config/SOFTWARE': filledHive(softwareLines),
    'Boot/BCD': filledHive(['[\\Objects]']),
    'hiberfil.sys': Buffer.alloc(5000, 'hibr'),
  };
  for (let index = 0; index < 300; index++) files[`Windows/System32/file${index}.dll`] = Buffer.alloc(index % 700);
  const { image } = makeVolume(context, folder, { sizeBytes: 8 * MiB, files });
  const disk = withPartition(fs.readFileSync(image));
  const use = (mutant: Disk): readonly Patch[] => planWindows(openGuestDisk(mutant), 'hyperv-gen1')?.patches ?? [];
  expect(use(memoryDisk(disk)).length).toBeGreaterThan(5);
  expect(disk.length).toBe(partitionStartBytes + 8 * MiB);
  expectBoth(survivesGuestMutants('NTFS', { disk, use, reseal: sealHive }));
});

it('mutants of an NTFS volume that drivers are added to', { timeout }, (context) => {
  using folder = new TempFolder();
  const files: Record<string, Uint8Array> = { 'drivers/storport.sys': Buffer.alloc(5000, 1) };
  for (let index = 0; index < 300; index++) files[`drivers/a${index}.sys`] = Buffer.alloc(index % 900, index);
  const { image } = makeVolume(context, folder, {
    sizeBytes: 8 * MiB,
    files,
    fill: (mountpoint) => leaveFreeRecords(mountpoint, 40),
  });
  const added = [...Array(12).keys()].map((index) => ({
    path: `/drivers/a100_${index}.sys`,
    contents: Buffer.alloc(index % 3 === 0 ? 100 : 20_000, index),
    modified: new Date(0),
    source: 'a test',
    why: 'it is tested',
  }));
  const use = (mutant: Disk): readonly Patch[] => openNtfs(mutant)?.addFiles(added).patches ?? [];
  const disk = fs.readFileSync(image);
  expect(use(memoryDisk(disk)).length).toBeGreaterThan(30);
  expectBoth(survivesGuestMutants('NTFS with drivers', { disk, use }));
});

it.for([16, 32])('mutants of a FAT%i volume', { timeout }, (bits, context) => {
  using folder = new TempFolder();
  const path = 'EFI/Microsoft/Boot/BCD';
  const image = makeFat(context, folder, {
    bits,
    sizeBytes: bits === 16 ? 16 * MiB : 40 * MiB,
    files: { [path]: Buffer.alloc(30 * KiB, 1), 'a file with a long name': Buffer.alloc(100, 2) },
  });
  const use = (mutant: Disk): readonly Patch[] => {
    const volume = openFat(mutant);
    if (volume === undefined) return [];
    const files = new FilesByPath(volume);
    files.list('/');
    files.readFile(`/${path}`, MiB);
    const edits = files.replace([{ path: `/${path}`, fileOffset: 10_000, after: Buffer.alloc(10_000, 3) }]);
    return checkPatches([...edits, ...volume.addFile('/EFI/BOOT/BOOTX64.EFI', Buffer.alloc(100 * KiB, 4))], mutant);
  };
  expectBoth(survivesGuestMutants(`FAT${bits}`, { disk: fs.readFileSync(image), use }));
});
