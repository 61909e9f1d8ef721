/** Sizes and places that the NTFS boot sector gives, checked against each other and the volume. */
import { FormatError } from '../../base/errors.ts';
import { isPowerOfTwo, toOffset } from '../../base/ranges.ts';
import { KiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import { bootSector, maxClusterBytes, maxVolumeBytes, strideBytes } from './layout.ts';

const minVolumeBytes = 16 * KiB;

export interface Geometry {
  readonly sectorBytes: number;
  readonly clusterBytes: number;
  readonly clusterCount: number;
  readonly recordBytes: number;
  readonly indexBlockBytes: number;
  readonly mftCluster: number;
  readonly serial: bigint;
  readonly hiddenSectors: number;
  /** Of the file system: the boot sector's copy stands in the sector behind. */
  readonly sectorCount: number;
}

/** Whether a volume says that it is NTFS. */
export function isNtfs(disk: Disk): boolean {
  return nameIn(disk) === 'NTFS    ';
}

/** Whether it is one that BitLocker has encrypted. */
export function isBitLocker(disk: Disk): boolean {
  return nameIn(disk) === '-FVE-FS-';
}

/** In the place of a boot sector where a file system names itself. */
function nameIn(disk: Disk): string {
  if (disk.sizeBytes < minVolumeBytes) return '';
  const bytes = Buffer.alloc(8);
  disk.read(bytes, 3);
  return bytes.toString('latin1');
}

/** @throws FormatError when the sizes cannot be */
export function readGeometry(disk: Disk): Geometry {
  if (disk.sizeBytes < minVolumeBytes) throw wrong('length', 0, `${disk.sizeBytes} bytes are no NTFS volume`);
  const bytes = new Uint8Array(bootSector.sizeBytes);
  disk.read(bytes, 0);
  const boot = bootSector.parse(bytes);
  const { sectorBytes, sectorsPerCluster } = boot;
  if (!isPowerOfTwo(sectorBytes) || sectorBytes < 512 || sectorBytes > 4096)
    throw wrong('sectorBytes', 11, `${sectorBytes}`);
  const clusterBytes = sectorBytes * (sectorsPerCluster > 0x80 ? 2 ** (256 - sectorsPerCluster) : sectorsPerCluster);
  if (!isPowerOfTwo(clusterBytes) || clusterBytes > maxClusterBytes)
    throw wrong('sectorsPerCluster', 13, `${sectorsPerCluster}`);
  const narrow = (field: 'sectorCount' | 'mftCluster'): number =>
    toOffset(boot[field], maxVolumeBytes, { structure: 'NTFS boot sector', field, offset: bootSector.offsetOf(field) });
  const sectorCount = narrow('sectorCount');
  if (sectorCount === 0 || sectorCount * sectorBytes > disk.sizeBytes)
    throw wrong('sectorCount', 40, `${sectorCount} sectors on a volume of ${disk.sizeBytes} bytes`);
  const clusterCount = Math.floor((sectorCount * sectorBytes) / clusterBytes);
  const recordBytes = structureBytes(boot.clustersPerRecord, clusterBytes, 'clustersPerRecord');
  const indexBlockBytes = structureBytes(boot.clustersPerIndexBlock, clusterBytes, 'clustersPerIndexBlock');
  const mftCluster = narrow('mftCluster');
  if (mftCluster * clusterBytes + recordBytes > clusterCount * clusterBytes)
    throw wrong('mftCluster', 48, `${mftCluster}`);
  const { serial, hiddenSectors } = boot;
  return {
    sectorBytes,
    clusterBytes,
    clusterCount,
    recordBytes,
    indexBlockBytes,
    mftCluster,
    serial,
    hiddenSectors,
    sectorCount,
  };
}

/** A size in clusters, or, negative, the exponent of one in bytes. */
function structureBytes(encoded: number, clusterBytes: number, field: string): number {
  const sizeBytes = encoded >= 0x80 ? 2 ** (256 - encoded) : encoded * clusterBytes;
  if (!isPowerOfTwo(sizeBytes) || sizeBytes < strideBytes || sizeBytes > 64 * KiB)
    throw wrong(field, bootSector.offsetOf(field), `${encoded}`);
  return sizeBytes;
}

function wrong(field: string, offset: number, detail: string): FormatError {
  return new FormatError('NTFS boot sector', field, offset, detail);
}
