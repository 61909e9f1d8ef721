/** Disks around volumes for tests: planned and assembled as `plugin create` does it, over volumes in memory or in files. */
import { assembleBootable, type BootExtras } from '../../src/bootable/assemble.ts';
import type { BootableGeometry, Firmware, PartitionStyle } from '../../src/bootable/geometry.ts';
import { makeLoader } from '../../src/bootable/loader.ts';
import { planBootable, type GivenTable } from '../../src/bootable/plan.ts';
import { inspectVolume } from '../../src/bootable/volume.ts';
import { closing } from '../../src/base/ownership.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { writeDiskOut } from '../../src/disk/write-out.ts';

const identity = '7ff7355a-3214-4588-83ea-f1ca1539fea0';

export interface Made {
  readonly geometry: BootableGeometry;
  readonly disk: Disk;
}

/** @param volumes owned by the disk from now on */
export function around(
  volumes: readonly Disk[],
  firmware: Firmware,
  style: PartitionStyle,
  given?: GivenTable,
  extras?: BootExtras,
): Made {
  const facts = volumes.map((volume, index) => inspectVolume(volume, `volume ${index}`));
  const loader = makeLoader(firmware, style, facts);
  const request = { identity, firmware, style, volumes: facts, loader, ...(given === undefined ? {} : { given }) };
  const { geometry, bootFile } = planBootable(request);
  return { geometry, disk: assembleBootable(geometry, volumes, bootFile, extras) };
}

/** The disk around volumes in files, written to `out`. */
export function writeAround(
  out: string,
  volumes: readonly string[],
  firmware: Firmware,
  style: PartitionStyle,
  given?: GivenTable,
): BootableGeometry {
  const made = around(volumes.map(openFileDisk), firmware, style, given);
  using disk = closing(made.disk);
  writeDiskOut(disk.value, out, () => undefined);
  return made.geometry;
}
