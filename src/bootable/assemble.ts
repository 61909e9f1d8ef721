/** A disk around volumes as a Disk: what the geometry says, over the volumes, which it owns. The same geometry gives the same bytes. */
import { CapacityError, FormatError } from '../base/errors.ts';
import { closeAll } from '../base/ownership.ts';
import { denseDisk } from '../disk/dense.ts';
import type { Disk } from '../disk/disk.ts';
import { memoryDisk } from '../disk/memory.ts';
import { patchedDisk } from '../disk/patched.ts';
import { placeDisks, type PlacedDisk } from '../disk/placed.ts';
import { sectorBytes } from '../volume/table-layout.ts';
import { planFat } from './fat.ts';
import { configBytes, configLba, type BootableGeometry, type BootFileRange } from './geometry.ts';
import { encodeGpt } from './gpt.ts';
import { encodeMbr } from './mbr.ts';

/** What a patch set adds to a disk that GRUB boots. Nothing of the geometry changes with it. */
export interface BootExtras {
  /** Instead of the configuration that the geometry holds. */
  readonly config?: string;
  /** Into the room; owned by the disk from now on. */
  readonly initramfs?: Disk;
}

const newline = 0x0a;

/**
 * @param volumes in the geometry's order; owned by the disk from now on, also when this throws
 * @param bootFile all of it
 * @throws FormatError, UsageError when the geometry contradicts itself or the volumes; CapacityError when extras have no room
 */
export function assembleBootable(
  geometry: BootableGeometry,
  volumes: readonly Disk[],
  bootFile: Uint8Array,
  extras: BootExtras = {},
): Disk {
  try {
    const rangeOf = (range: BootFileRange): Uint8Array => {
      const end = range.offsetBytes + range.lengthBytes;
      if (end > bootFile.length)
        throw wrong('boot file', `it ends at byte ${bootFile.length}, and byte ${end} is needed`);
      return bootFile.subarray(range.offsetBytes, end);
    };
    const config = encodeConfig(extras.config ?? geometry.config);
    return placeDisks(geometry.sizeBytes, [
      ...placeTables(geometry),
      ...(geometry.core === undefined ? [] : placeCore(geometry.core, rangeOf, config)),
      ...(geometry.efiFiles === undefined ? [] : [placeEfiSystem(geometry, rangeOf, config)]),
      ...placeVolumes(geometry, volumes),
      ...placeRoom(geometry, extras.initramfs),
    ]);
  } catch (error) {
    closeAll([...volumes, ...(extras.initramfs === undefined ? [] : [extras.initramfs])]);
    throw error;
  }
}

function placeTables(geometry: BootableGeometry): PlacedDisk[] {
  const mbr = { offset: 0, disk: memoryDisk(encodeMbr(geometry)) };
  if (geometry.style === 'mbr') return [mbr];
  const { head, tail } = encodeGpt(geometry);
  return [
    mbr,
    { offset: sectorBytes, disk: memoryDisk(head) },
    { offset: geometry.sizeBytes - tail.length, disk: memoryDisk(tail) },
  ];
}

type ReadRange = (range: BootFileRange) => Uint8Array;

function placeCore(core: NonNullable<BootableGeometry['core']>, rangeOf: ReadRange, config: Uint8Array): PlacedDisk[] {
  return [
    { offset: core.startBytes, disk: memoryDisk(rangeOf(core)) },
    { offset: configLba * sectorBytes, disk: memoryDisk(config) },
  ];
}

function placeEfiSystem(geometry: BootableGeometry, rangeOf: ReadRange, config: Uint8Array): PlacedDisk {
  const partition = geometry.partitions.find(({ type, volume }) => type === 'efi-system' && volume === undefined);
  if (partition === undefined) throw wrong('partitions', 'there is no EFI system partition for the EFI files');
  const files = (geometry.efiFiles ?? []).map(({ path, from }) => ({
    path,
    bytes: from === 'config' ? config : rangeOf(from),
  }));
  const plan = planFat({
    sizeBytes: partition.sizeBytes,
    startLba: partition.startBytes / sectorBytes,
    serial: Number.parseInt(partition.guid.slice(0, 8), 16),
    files: files.map(({ path, bytes }) => ({ path, lengthBytes: bytes.length })),
  });
  const placed = [
    ...plan.structures,
    ...files.map(({ bytes }, index) => ({ offset: plan.fileOffsets[index] ?? 0, bytes })),
  ].map(({ offset, bytes }) => ({ offset, disk: memoryDisk(bytes) }));
  return { offset: partition.startBytes, disk: placeDisks(partition.sizeBytes, placed) };
}

function placeVolumes(geometry: BootableGeometry, volumes: readonly Disk[]): PlacedDisk[] {
  if (geometry.volumes.length !== volumes.length) {
    throw wrong('volumes', `${volumes.length} volumes where there are ${geometry.volumes.length}`);
  }
  return volumes.map((disk, index) => {
    const partition = geometry.partitions.find(({ volume }) => volume === index);
    const volume = geometry.volumes[index];
    if (partition === undefined || volume === undefined) throw wrong('partitions', `volume ${index} has none`);
    if (disk.sizeBytes !== volume.sizeBytes || disk.sizeBytes > partition.sizeBytes) {
      throw wrong('volumes', `volume ${index} has ${disk.sizeBytes} bytes, not ${volume.sizeBytes}`);
    }
    const patches = volume.patches.map(({ offset, base64 }) => ({ offset, bytes: Buffer.from(base64, 'base64') }));
    return { offset: partition.startBytes, disk: patches.length === 0 ? disk : patchedDisk(disk, patches) };
  });
}

function placeRoom({ room }: BootableGeometry, initramfs: Disk | undefined): PlacedDisk[] {
  if (room === undefined && initramfs === undefined) return [];
  if (room === undefined || (initramfs?.sizeBytes ?? 0) > room.sizeBytes) {
    throw new CapacityError(`the disk has no room for an initramfs of ${initramfs?.sizeBytes ?? 0} bytes`);
  }
  const contents = initramfs === undefined ? [] : [{ offset: 0, disk: initramfs }];
  // All of it counts as data, so that a growing native layout has units for what may come.
  return [{ offset: room.startBytes, disk: denseDisk(placeDisks(room.sizeBytes, contents)) }];
}

/** Padded with empty lines: another configuration is in the same place, and nothing else changes. */
function encodeConfig(text = ''): Uint8Array {
  const encoded = Buffer.from(text);
  if (encoded.length > configBytes) {
    throw new CapacityError(`GRUB's configuration has ${encoded.length} bytes, more than ${configBytes}`);
  }
  const padded = new Uint8Array(configBytes).fill(newline);
  padded.set(encoded);
  return padded;
}

function wrong(field: string, detail: string): FormatError {
  return new FormatError('disk around volumes', field, 0, `${detail}; make the plugin file again`);
}
