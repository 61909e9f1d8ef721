/**
 * A guest's disk as its own system would see it: partitions, logical volumes of LVM, and the file systems on them. Nothing here fails
 * because one volume is broken or foreign: what could not be read is said of that volume.
 */
import { VeneerError } from '../base/errors.ts';
import { concatDisks } from '../disk/concat.ts';
import type { Disk } from '../disk/disk.ts';
import { sliceDisk } from '../disk/slice.ts';
import { FilesByPath } from '../filesystem/by-path.ts';
import type { Patch } from '../filesystem/edit/patch.ts';
import { fileSystems } from '../filesystem/registry.ts';
import { isPhysicalVolume, readLogicalVolumes } from './lvm/lvm.ts';
import { readPartitionTable, type Partition, type PartitionTable } from './partition-table.ts';

export interface GuestVolume {
  /** For people: `partition 2`, `LVM vg/root`, `the volume`. */
  readonly name: string;
  readonly disk: Disk;
  /** The entry in the partition table; of a logical volume and a bare volume there is none. */
  readonly partition?: Partition;
  /** Of LVM: group and name, as in /dev/mapper. */
  readonly logical?: { readonly group: string; readonly name: string };
  readonly fileSystem?: FilesByPath;
  /** Why there is no file system to read. */
  readonly problem?: string;
  /** Patches of the volume as patches of the disk. */
  toDisk(patches: readonly Patch[]): Patch[];
}

export interface GuestDisk {
  readonly disk: Disk;
  /** Undefined where the disk is one bare volume. */
  readonly table?: PartitionTable;
  readonly volumes: readonly GuestVolume[];
  readonly warnings: readonly string[];
}

/** A run of a volume and where it lies on the disk. */
interface Run {
  readonly volumeOffset: number;
  readonly diskOffset: number;
  readonly lengthBytes: number;
}

/** Looks at a disk, which stays the caller's. @throws UnsupportedError, UnavailableError, IntegrityError when the disk itself cannot be read */
export function openGuestDisk(disk: Disk): GuestDisk {
  const table = bareFileSystem(disk) ? undefined : readPartitionTable(disk);
  const slices =
    table === undefined ? [wholeDisk(disk)] : table.partitions.map((partition) => partitionSlice(disk, partition));
  const physicals = slices.filter(({ disk: slice }) => isPhysicalVolume(slice));
  const lvm = readLvm(physicals);
  const plain = slices.filter((slice) => !physicals.includes(slice));
  const logical = lvm.volumes.map(({ group, name, pieces }) => {
    const runs: Run[] = [];
    let volumeOffset = 0;
    for (const { physical, offset, lengthBytes } of pieces) {
      runs.push({ volumeOffset, diskOffset: (physicals[physical]?.start ?? 0) + offset, lengthBytes });
      volumeOffset += lengthBytes;
    }
    const parts = runs.map(({ diskOffset, lengthBytes }) => sliceDisk(disk, diskOffset, lengthBytes));
    return volumeOf(`LVM ${group}/${name}`, concatDisks(parts), runs, { logical: { group, name } });
  });
  return {
    disk,
    ...(table === undefined ? {} : { table }),
    volumes: [
      ...plain.map((slice) =>
        volumeOf(
          slice.name,
          slice.disk,
          [{ volumeOffset: 0, diskOffset: slice.start, lengthBytes: slice.disk.sizeBytes }],
          slice.partition === undefined ? {} : { partition: slice.partition },
        ),
      ),
      ...logical,
    ],
    warnings: [...(table?.warnings ?? []), ...lvm.warnings],
  };
}

interface Slice {
  readonly name: string;
  readonly disk: Disk;
  readonly start: number;
  readonly partition?: Partition;
}

function wholeDisk(disk: Disk): Slice {
  return { name: 'the volume', disk, start: 0 };
}

function partitionSlice(disk: Disk, partition: Partition): Slice {
  const { number, startBytes, sizeBytes } = partition;
  return { name: `partition ${number}`, disk: sliceDisk(disk, startBytes, sizeBytes), start: startBytes, partition };
}

function readLvm(physicals: readonly Slice[]): ReturnType<typeof readLogicalVolumes> {
  try {
    return readLogicalVolumes(physicals.map(({ disk }) => disk));
  } catch (error) {
    if (!isRefusal(error)) throw error;
    return { volumes: [], warnings: [`LVM is not read: ${error.message}`] };
  }
}

/** A file system that starts at the disk's first byte is no partition table, whatever its boot sector holds. */
function bareFileSystem(disk: Disk): boolean {
  return detect(disk).fileSystem !== undefined;
}

function detect(volume: Disk): { fileSystem?: FilesByPath; problem?: string } {
  for (const reader of fileSystems) {
    try {
      const fileSystem = reader.open(volume);
      if (fileSystem !== undefined) return { fileSystem: new FilesByPath(fileSystem) };
    } catch (error) {
      if (!isRefusal(error)) throw error;
      return { problem: error.message };
    }
  }
  return {};
}

function volumeOf(
  name: string,
  disk: Disk,
  runs: readonly Run[],
  more: { readonly partition?: Partition; readonly logical?: { readonly group: string; readonly name: string } },
): GuestVolume {
  return {
    name,
    disk,
    ...more,
    ...detect(disk),
    toDisk: (patches) => patches.flatMap((patch) => splitPatch(patch, runs)),
  };
}

/** One piece for each run that the patch touches. */
function splitPatch(patch: Patch, runs: readonly Run[]): Patch[] {
  const end = patch.offsetBytes + patch.after.length;
  return runs.flatMap(({ volumeOffset, diskOffset, lengthBytes }) => {
    const from = Math.max(patch.offsetBytes, volumeOffset);
    const to = Math.min(end, volumeOffset + lengthBytes);
    if (from >= to) return [];
    const part = (bytes: Uint8Array): Uint8Array => bytes.slice(from - patch.offsetBytes, to - patch.offsetBytes);
    return [{ offsetBytes: diskOffset + (from - volumeOffset), before: part(patch.before), after: part(patch.after) }];
  });
}

/** What a disk from elsewhere may be refused with; anything else (a failed read, a bug) is no matter of one volume. */
export function isRefusal(error: unknown): error is VeneerError {
  return error instanceof VeneerError && ['FORMAT', 'INTEGRITY', 'UNSUPPORTED', 'USAGE'].includes(error.code);
}
