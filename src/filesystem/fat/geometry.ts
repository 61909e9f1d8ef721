/** FAT12, FAT16 and FAT32: sizes and places from the boot sector (Microsoft's FAT specification 1.03), held against the volume. */
import { FormatError } from '../../base/errors.ts';
import { isPowerOfTwo } from '../../base/ranges.ts';
import { KiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import { bootSignature, fat16BootSector, fat32BootSector, folderEntryBytes } from './layout.ts';

/** The largest that FAT32 has room for. */
const maxClusters = 0x0fff_fff5;

export interface FatGeometry {
  readonly bits: 12 | 16 | 32;
  readonly clusterBytes: number;
  /** Clusters are numbered from 2. */
  readonly clusterCount: number;
  readonly fatStartBytes: number;
  readonly fatBytes: number;
  readonly fatCount: number;
  /** Of FAT12 and FAT16: the root folder has a place of its own. */
  readonly rootStartBytes: number;
  readonly rootBytes: number;
  readonly rootCluster: number;
  readonly dataStartBytes: number;
  readonly infoOffset: number | undefined;
  readonly serial: string;
  readonly label: string;
}

/** Whether a volume says that it is FAT. */
export function isFat(disk: Disk): boolean {
  if (disk.sizeBytes < 16 * KiB) return false;
  const head = new Uint8Array(fat16BootSector.sizeBytes);
  disk.read(head, 0);
  const { signature, type } = fat16BootSector.parse(head);
  return (
    signature === bootSignature &&
    (head[0] === 0xeb || head[0] === 0xe9) &&
    (type.startsWith('FAT') || fat32BootSector.parse(head).type.startsWith('FAT32'))
  );
}

/** @throws FormatError when the sizes cannot be */
export function readFatGeometry(disk: Disk): FatGeometry {
  const head = new Uint8Array(fat32BootSector.sizeBytes);
  disk.read(head, 0);
  const at = fat32BootSector.parse(head);
  const wrong = (field: string, value: number): FormatError =>
    new FormatError('FAT boot sector', field, 0, `${value} on a volume of ${disk.sizeBytes} bytes`);
  const { bytesPerSector: sectorBytes, sectorsPerCluster, fatCount, rootEntries } = at;
  if (!isPowerOfTwo(sectorBytes) || sectorBytes < 512 || sectorBytes > 4096) throw wrong('sectorBytes', sectorBytes);
  if (!isPowerOfTwo(sectorsPerCluster) || sectorsPerCluster * sectorBytes > 256 * KiB)
    throw wrong('sectorsPerCluster', sectorsPerCluster);
  if (fatCount === 0 || fatCount > 4 || at.reservedSectors === 0) throw wrong('fatCount', fatCount);
  const sectors = at.totalSectors16 || at.totalSectors32;
  const fatSectors = at.sectorsPerFat16 || at.sectorsPerFat32;
  if (sectors * sectorBytes > disk.sizeBytes) throw wrong('totalSectors', sectors);
  const fatStartBytes = at.reservedSectors * sectorBytes;
  const fatBytes = fatSectors * sectorBytes;
  const rootStartBytes = fatStartBytes + fatCount * fatBytes;
  const rootBytes = Math.ceil((rootEntries * folderEntryBytes) / sectorBytes) * sectorBytes;
  const dataStartBytes = rootStartBytes + rootBytes;
  const clusterBytes = sectorsPerCluster * sectorBytes;
  const clusterCount = Math.floor((sectors * sectorBytes - dataStartBytes) / clusterBytes);
  if (clusterCount < 1 || clusterCount > maxClusters) throw wrong('clusters', clusterCount);
  const bits = clusterCount < 4085 ? 12 : clusterCount < 65_525 ? 16 : 32;
  if (fatSectors === 0 || (clusterCount + 2) * bits > fatBytes * 8) throw wrong('sectorsPerFat', fatSectors);
  const wide = bits === 32;
  if (wide !== (rootEntries === 0)) throw wrong('rootEntries', rootEntries);
  const { serial, label } = wide ? at : fat16BootSector.parse(head);
  const hex = serial.toString(16).toUpperCase().padStart(8, '0');
  return {
    bits,
    clusterBytes,
    clusterCount,
    fatStartBytes,
    fatBytes,
    fatCount,
    rootStartBytes,
    rootBytes,
    dataStartBytes,
    rootCluster: wide ? at.rootCluster : 0,
    infoOffset:
      wide && at.infoSector > 0 && at.infoSector < at.reservedSectors ? at.infoSector * sectorBytes : undefined,
    serial: `${hex.slice(0, 4)}-${hex.slice(4)}`,
    label: Buffer.from(label).toString('latin1').split('\0')[0]?.trim() ?? '',
  };
}
