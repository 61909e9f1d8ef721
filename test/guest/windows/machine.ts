/** Disks of Windows machines as far as a plan sees them: NTFS volumes with hives on them, at a place on a disk. */
import fs from 'node:fs';
import type { TestContext } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import type { GivenTable } from '../../../src/bootable/plan.ts';
import type { GuestPlan, Target } from '../../../src/guest/plan.ts';
import { openGuestDisk } from '../../../src/volume/open-disk.ts';
import { tableForWindows } from '../../../src/guest/windows/installation.ts';
import { planWindows, type WindowsPlanOptions } from '../../../src/guest/windows/plan-windows.ts';
import type { TempFolder } from '../../temp-folder.ts';
import { applyTo } from '../../filesystem/trees.ts';
import { catFile, faultsOf, makeVolume } from '../../filesystem/ntfs/made-volume.ts';

export const systemFile = 'Windows/System32/config/SYSTEM';
export const storeFile = 'Boot/BCD';
export const partitionStartBytes = MiB;
const signature = 0xdf45_46ae;
const volumeBytes = 64 * MiB;

/** Bytes, and text, as a .reg file has them. */
export const hex = (bytes: Uint8Array): string =>
  [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(',');
export const utf16 = (text: string): string => hex(Buffer.from(`${text}\0`, 'utf16le'));

/** Start values and drive letters of a small SYSTEM hive. */
export const smallSystem = [
  '[\\Select]',
  '"Current"=dword:00000001',
  '"Default"=dword:00000001',
  '[\\ControlSet001]',
  '[\\ControlSet001\\Control]',
  '[\\ControlSet001\\Control\\Class]',
  '[\\ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}]',
  '"UpperFilters"=hex(7):70,00,61,00,72,00,74,00,6d,00,67,00,72,00,00,00,78,00,65,00,6e,00,66,00,69,00,6c,00,74,00,00,00,00,00',
  '[\\ControlSet001\\Control\\CrashControl]',
  '"AutoReboot"=dword:00000001',
  '[\\ControlSet001\\Services]',
  '[\\ControlSet001\\Services\\storahci]',
  '"Start"=dword:00000003',
  '"Type"=dword:00000001',
  '[\\ControlSet001\\Services\\storahci\\StartOverride]',
  '"0"=dword:00000003',
  '"1"=dword:00000003',
  '[\\ControlSet001\\Services\\xenfilt]',
  '"Start"=dword:00000000',
  '[\\MountedDevices]',
  '"\\\\DosDevices\\\\C:"=hex(3):01,02,03,04,00,00,10,00,00,00,00,00',
];

/** A SOFTWARE hive of Windows 11, which calls itself 10 there. */
export const softwareLines = [
  '[\\Microsoft]',
  '[\\Microsoft\\Windows NT]',
  '[\\Microsoft\\Windows NT\\CurrentVersion]',
  `"ProductName"=hex(1):${utf16('Windows 10 Pro')}`,
  `"CurrentBuild"=hex(1):${utf16('22631')}`,
  '"CurrentMajorVersionNumber"=dword:0000000a',
  '"CurrentMinorVersionNumber"=dword:00000000',
  `"SystemRoot"=hex(1):${utf16('C:\\Windows')}`,
];

/** A disk around a volume: an MBR with one partition. */
export function withPartition(volume: Buffer): Buffer {
  const before = Buffer.alloc(partitionStartBytes);
  before.writeUInt32LE(signature, 440);
  before.writeUInt8(0x80, 446);
  before.writeUInt8(0x07, 450);
  before.writeUInt32LE(partitionStartBytes / 512, 454);
  before.writeUInt32LE(volume.length / 512, 458);
  before.writeUInt16LE(0xaa55, 510);
  return Buffer.concat([before, volume]);
}

/** A machine with one disk: an MBR with one partition. */
export class Machine {
  readonly #volume: string;
  readonly #disk: string;

  /** @param files of the volume, by path; `fill` does the rest. Skips the test where NTFS volumes cannot be made */
  constructor(
    context: TestContext,
    folder: TempFolder,
    files: Readonly<Record<string, Uint8Array>>,
    fill?: (mountpoint: string) => void,
  ) {
    const { image } = makeVolume(context, folder, {
      files,
      sizeBytes: volumeBytes,
      ...(fill === undefined ? {} : { fill }),
    });
    this.#volume = image;
    this.#disk = folder.file('disk.raw');
    fs.writeFileSync(this.#disk, withPartition(fs.readFileSync(image)));
  }

  /** A raw file of the volume alone, as it was at the start or after the last `apply`. */
  get volume(): string {
    return this.#volume;
  }

  plan(target: Target, options: WindowsPlanOptions = {}): GuestPlan {
    const disk = openFileDisk(this.#disk);
    try {
      const plan = planWindows(openGuestDisk(disk), target, options);
      if (plan === undefined) throw new Error('no Windows was found');
      return plan;
    } finally {
      disk.close();
    }
  }

  expectedTable(): GivenTable | undefined {
    const disk = openFileDisk(this.#disk);
    try {
      return tableForWindows(openGuestDisk(disk).volumes, 'mbr');
    } finally {
      disk.close();
    }
  }

  apply(plan: GuestPlan): void {
    applyTo(this.#disk, plan.patches);
    fs.writeFileSync(this.#volume, fs.readFileSync(this.#disk).subarray(partitionStartBytes));
  }

  /** As ntfs-3g reads it. */
  file(name: string): Buffer {
    return catFile(this.#volume, name);
  }

  faults(): string {
    return faultsOf(this.#volume);
  }
}
