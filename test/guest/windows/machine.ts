/** Disks of Windows machines as far as a plan sees them: NTFS volumes with hives on them, at a place on a disk. */
import fs from 'node:fs';
import type { TestContext } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import type { GivenTable } from '../../../src/bootable/plan.ts';
import type { GuestPlan, Target } from '../../../src/guest/plan.ts';
import { openGuestDisk } from '../../../src/guest/guest-disk.ts';
import { tableForWindows } from '../../../src/guest/windows/installation.ts';
import { planWindows } from '../../../src/guest/windows/plan-windows.ts';
import type { TempFolder } from '../../temp-folder.ts';
import { applyTo } from '../trees.ts';
import { catFile, faultsOf, makeVolume } from './ntfs/made-volume.ts';

export const systemFile = 'Windows/System32/config/SYSTEM';
export const storeFile = 'Boot/BCD';
export const partitionStartBytes = MiB;
export const signature = 0xdf45_46ae;
const volumeBytes = 64 * MiB;

/** A machine with one disk: an MBR with one partition. */
export class Machine {
  readonly #volume: string;
  readonly #disk: string;

  /** @param files of the volume, by path; skips the test where NTFS volumes cannot be made */
  constructor(context: TestContext, folder: TempFolder, files: Readonly<Record<string, Uint8Array>>) {
    const { image } = makeVolume(context, folder, { files, sizeBytes: volumeBytes });
    this.#volume = image;
    this.#disk = folder.file('disk.raw');
    const before = Buffer.alloc(partitionStartBytes);
    before.writeUInt32LE(signature, 440);
    before.writeUInt8(0x07, 450);
    before.writeUInt8(0x80, 446);
    before.writeUInt32LE(partitionStartBytes / 512, 454);
    before.writeUInt32LE(volumeBytes / 512, 458);
    before.writeUInt16LE(0xaa55, 510);
    fs.writeFileSync(this.#disk, Buffer.concat([before, fs.readFileSync(image)]));
  }

  plan(target: Target): GuestPlan {
    const disk = openFileDisk(this.#disk);
    try {
      const plan = planWindows(openGuestDisk(disk), target);
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
