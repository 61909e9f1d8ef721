/** Disks of Windows machines as far as a plan sees them: NTFS volumes with hives on them, at a place on a disk. */
import fs from 'node:fs';
import type { TestContext } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { sliceDisk } from '../../../src/disk/slice.ts';
import type { GuestPlan, Target } from '../../../src/guest/plan.ts';
import type { ExpectedTable, WindowsDisk } from '../../../src/guest/windows/disk-names.ts';
import { NtfsVolume } from '../../../src/guest/windows/ntfs/volume.ts';
import { planWindows, tableForWindows, type WindowsVolume } from '../../../src/guest/windows/plan-windows.ts';
import type { TempFolder } from '../../temp-folder.ts';
import { applyTo } from '../trees.ts';
import { catFile, faultsOf, makeVolume } from './ntfs/made-volume.ts';

export const systemFile = 'Windows/System32/config/SYSTEM';
export const storeFile = 'Boot/BCD';
export const partitionStartBytes = MiB;
const volumeBytes = 64 * MiB;

/** A machine with one disk and one partition. */
export class Machine {
  readonly #volume: string;
  readonly #disk: string;

  /** @param files of the volume, by path; skips the test where NTFS volumes cannot be made */
  constructor(context: TestContext, folder: TempFolder, files: Readonly<Record<string, Uint8Array>>) {
    const { image } = makeVolume(context, folder, { files, sizeBytes: volumeBytes });
    this.#volume = image;
    this.#disk = folder.file('disk.raw');
    fs.writeFileSync(this.#disk, '');
    fs.truncateSync(this.#disk, partitionStartBytes + volumeBytes);
    const volume = fs.readFileSync(image);
    const fd = fs.openSync(this.#disk, 'r+');
    try {
      fs.writeSync(fd, volume, 0, volume.length, partitionStartBytes);
    } finally {
      fs.closeSync(fd);
    }
  }

  plan(target: Target, table: WindowsDisk): GuestPlan {
    return this.#withVolumes((disk, volumes) => planWindows(disk, table, volumes, target));
  }

  expectedTable(): ExpectedTable | undefined {
    return this.#withVolumes((_, volumes) => tableForWindows(volumes));
  }

  #withVolumes<T>(use: (disk: Disk, volumes: readonly WindowsVolume[]) => T): T {
    const disk = openFileDisk(this.#disk);
    try {
      const fileSystem = new NtfsVolume(sliceDisk(disk, partitionStartBytes, volumeBytes));
      return use(disk, [{ fileSystem, startBytes: partitionStartBytes, sizeBytes: volumeBytes }]);
    } finally {
      disk.close();
    }
  }

  apply(plan: GuestPlan): void {
    applyTo(this.#disk, plan.patches);
    const disk = fs.readFileSync(this.#disk);
    fs.writeFileSync(this.#volume, disk.subarray(partitionStartBytes));
  }

  /** As ntfs-3g reads it. */
  file(name: string): Buffer {
    return catFile(this.#volume, name);
  }

  faults(): string {
    return faultsOf(this.#volume);
  }
}
