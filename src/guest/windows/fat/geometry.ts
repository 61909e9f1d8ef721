/** FAT12, FAT16 and FAT32: sizes and places from the boot sector (Microsoft's FAT specification 1.03), held against the volume. */
import { FormatError } from '../../../base/errors.ts';
import { isPowerOfTwo } from '../../../base/ranges.ts';
import { KiB } from '../../../base/units.ts';
import { bytes, layout, reserved, text, u16le, u32le, u8 } from '../../../bytes/layout.ts';
import type { Disk } from '../../../disk/disk.ts';

const boot = layout('FAT boot sector', 512, {
  jump: u8(0),
  name: reserved(1, 10),
  sectorBytes: u16le(11),
  sectorsPerCluster: u8(13),
  reservedSectors: u16le(14),
  fatCount: u8(16),
  rootEntries: u16le(17),
  totalSectors16: u16le(19),
  media: u8(21),
  sectorsPerFat16: u16le(22),
  disk: reserved(24, 8),
  totalSectors32: u32le(32),
  /** From here on: of FAT32; FAT12 and FAT16 have their serial number and label here. */
  sectorsPerFat32: u32le(36),
  flags: bytes(40, 4),
  rootCluster: u32le(44),
  infoSector: u16le(48),
  backupSector: u16le(50),
  unused: reserved(52, 2),
  type16: text(54, 8, 'utf8'),
  unused2: reserved(62, 5),
  serial32: u32le(67),
  label32: text(71, 11, 'utf8'),
  type32: text(82, 8, 'utf8'),
  code: reserved(90, 420),
  mark: u16le(510),
});
const serial16Offset = 39;
const label16Offset = 43;
const bootMark = 0xaa55;
const entryBytes = 32;
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
  const head = new Uint8Array(boot.sizeBytes);
  disk.read(head, 0);
  const { jump, mark, type16, type32 } = boot.parse(head);
  return (
    mark === bootMark && (jump === 0xeb || jump === 0xe9) && (type16.startsWith('FAT') || type32.startsWith('FAT32'))
  );
}

/** @throws FormatError when the sizes cannot be */
export function readFatGeometry(disk: Disk): FatGeometry {
  const head = Buffer.alloc(boot.sizeBytes);
  disk.read(head, 0);
  const at = boot.parse(head);
  const wrong = (field: string, value: number): FormatError =>
    new FormatError('FAT boot sector', field, 0, `${value} on a volume of ${disk.sizeBytes} bytes`);
  const { sectorBytes, sectorsPerCluster, fatCount, rootEntries } = at;
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
  const rootBytes = Math.ceil((rootEntries * entryBytes) / sectorBytes) * sectorBytes;
  const dataStartBytes = rootStartBytes + rootBytes;
  const clusterBytes = sectorsPerCluster * sectorBytes;
  const clusterCount = Math.floor((sectors * sectorBytes - dataStartBytes) / clusterBytes);
  if (clusterCount < 1 || clusterCount > maxClusters) throw wrong('clusters', clusterCount);
  const bits = clusterCount < 4085 ? 12 : clusterCount < 65_525 ? 16 : 32;
  if (fatSectors === 0 || (clusterCount + 2) * bits > fatBytes * 8) throw wrong('sectorsPerFat', fatSectors);
  const wide = bits === 32;
  if (wide !== (rootEntries === 0)) throw wrong('rootEntries', rootEntries);
  const serial = wide ? at.serial32 : head.readUInt32LE(serial16Offset);
  const hex = serial.toString(16).toUpperCase().padStart(8, '0');
  const label = wide ? at.label32 : head.toString('latin1', label16Offset, label16Offset + 11);
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
    label: label.trim(),
  };
}
