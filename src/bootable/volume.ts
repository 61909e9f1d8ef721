/**
 * What a volume holds, by its first bytes, and what of it depends on where it lies: boot sectors of NTFS and FAT say at which sector of the
 * disk they start.
 */
import { UnsupportedError, UsageError } from '../base/errors.ts';
import { KiB } from '../base/units.ts';
import type { Disk } from '../disk/disk.ts';
import { openFat } from '../filesystem/fat/volume.ts';
import { isPhysicalVolume } from '../volume/lvm/lvm.ts';
import { isRefusal } from '../volume/open-disk.ts';
import { sectorBytes } from '../volume/table-layout.ts';
import { type PartitionType, type VolumePatch } from './geometry.ts';
import { isPartitionTable } from './mbr.ts';

export type VolumeKind = 'linux' | 'lvm' | 'luks' | 'swap' | 'ntfs' | 'fat' | 'efi-system' | 'unknown';

export interface VolumeFacts {
  readonly sizeBytes: number;
  readonly kind: VolumeKind;
  /** Offsets in the volume of its boot sector and of the sector's copies; none where the volume has no place of its own in it. */
  readonly bootSectors: readonly number[];
}

/** What a partition around a volume of this kind is called. */
export const partitionTypeOf: Readonly<Record<VolumeKind, PartitionType>> = {
  linux: 'linux',
  lvm: 'lvm',
  luks: 'luks',
  swap: 'swap',
  ntfs: 'windows',
  fat: 'fat',
  'efi-system': 'efi-system',
  unknown: 'linux',
};

/** Everything that is looked for lies in these first bytes. */
const headBytes = 68 * KiB;
/** Of a boot sector of NTFS or FAT: the sector of the disk that the volume starts at, and the drive's number in the BIOS. */
const hiddenSectorsOffset = 0x1c;
const ntfsDriveOffset = 0x24;
const firstDrive = 0x80;
const ntfsTotalSectorsOffset = 0x28;
const fat32BackupOffset = 0x32;

const marks: ReadonlyArray<readonly [kind: VolumeKind, offset: number, mark: string]> = [
  ['ntfs', 3, 'NTFS    '],
  ['linux', 1024 + 56, '\x53\xef'], // ext2, ext3, ext4
  ['linux', 0, 'XFSB'],
  ['linux', 64 * KiB + 64, '_BHRfS_M'], // btrfs
  ['luks', 0, 'LUKS\xba\xbe'],
  ['swap', 4 * KiB - 10, 'SWAPSPACE2'],
  ['fat', 82, 'FAT32   '],
  ['fat', 54, 'FAT16   '],
  ['fat', 54, 'FAT12   '],
];

/**
 * @param name for errors
 * @throws UsageError for a whole disk, which needs nothing around it
 */
export function inspectVolume(disk: Disk, name: string): VolumeFacts {
  const head = Buffer.alloc(headBytes);
  disk.read(head.subarray(0, Math.min(headBytes, disk.sizeBytes)), 0);
  const kind =
    marks.find(([, offset, mark]) => head.toString('latin1', offset, offset + mark.length) === mark)?.[0] ??
    (isPhysicalVolume(disk) ? 'lvm' : 'unknown');
  if (kind === 'unknown' && isPartitionTable(head)) {
    throw new UsageError(`${name}: is an image of a whole disk, which has its own boot code; leave --boot out`);
  }
  const bootSectors = bootSectorsOf(kind, disk, head);
  const isEfiSystem = kind === 'fat' && hasEfiFolder(disk);
  return { sizeBytes: disk.sizeBytes, kind: isEfiSystem ? 'efi-system' : kind, bootSectors };
}

/** Whether a FAT volume's root folder has the folder EFI; one that cannot be read has none. */
function hasEfiFolder(disk: Disk): boolean {
  try {
    const volume = openFat(disk);
    const folder = volume?.lookup(volume.root, 'EFI');
    return folder !== undefined && volume?.stat(folder).type === 'folder';
  } catch (error) {
    if (isRefusal(error)) return false;
    throw error;
  }
}

function bootSectorsOf(kind: VolumeKind, disk: Disk, head: Buffer): number[] {
  if (kind === 'ntfs') {
    // The copy lies behind the sectors that the file system counts, where the volume was taken with it.
    const copy = Number(head.readBigUInt64LE(ntfsTotalSectorsOffset)) * sectorBytes;
    return copy > 0 && isCopyAt(disk, head, copy) ? [0, copy] : [0];
  }
  if (kind !== 'fat') return [];
  const backup =
    head.toString('latin1', 82, 90) === 'FAT32   ' ? head.readUInt16LE(fat32BackupOffset) * sectorBytes : 0;
  return backup > 0 && isCopyAt(disk, head, backup) ? [0, backup] : [0];
}

/** Whether the boot sector lies there once more, but for its place on the disk. */
function isCopyAt(disk: Disk, head: Buffer, offset: number): boolean {
  if (!Number.isSafeInteger(offset) || offset + sectorBytes > disk.sizeBytes) return false;
  const copy = Buffer.alloc(sectorBytes);
  disk.read(copy, offset);
  return copy.subarray(0, 8).equals(head.subarray(0, 8)) && copy.subarray(510).equals(head.subarray(510, sectorBytes));
}

/** What must read otherwise when the volume starts at `startBytes` of its disk. */
export function placementPatches(volume: VolumeFacts, startBytes: number): VolumePatch[] {
  const lba = startBytes / sectorBytes;
  if (volume.bootSectors.length > 0 && lba >= 2 ** 32) {
    throw new UnsupportedError(`a Windows volume cannot start at sector ${lba}: its boot sector has 32 bits for it`);
  }
  const hiddenSectors = Buffer.alloc(4);
  hiddenSectors.writeUInt32LE(lba % 2 ** 32);
  return volume.bootSectors.flatMap((offset) => [
    { offset: offset + hiddenSectorsOffset, base64: hiddenSectors.toString('base64') },
    ...(volume.kind === 'ntfs'
      ? [{ offset: offset + ntfsDriveOffset, base64: Buffer.of(firstDrive).toString('base64') }]
      : []),
  ]);
}
