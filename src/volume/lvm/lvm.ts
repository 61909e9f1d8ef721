/**
 * Logical volumes of LVM2 that lie on one disk in plain runs (segments of one stripe). Their description is text, in the metadata area of a
 * physical volume, under a checksum. Mirrors, RAID, thin and cached volumes are named and not read.
 */
import { FormatError } from '../../base/errors.ts';
import { toOffset } from '../../base/ranges.ts';
import { KiB, MiB } from '../../base/units.ts';
import { crc32 } from '../../bytes/checksum.ts';
import { ascii, bytes, layout, text, u32le, u64le } from '../../bytes/layout.ts';
import type { Disk } from '../../disk/disk.ts';
import { parseLvmText, type LvmSection, type LvmValue } from './lvm-text.ts';

export interface LogicalVolume {
  readonly group: string;
  readonly name: string;
  /** In order; of the physical volumes that were given, by their index. */
  readonly pieces: readonly { readonly physical: number; readonly offset: number; readonly lengthBytes: number }[];
}

export interface LvmResult {
  readonly volumes: readonly LogicalVolume[];
  readonly warnings: readonly string[];
}

const sectorBytes = 512;
const labelSectors = 4;
const maxMetadataBytes = 4 * MiB;
const maxSegments = 10_000;
/** LVM's own start value of its CRC-32, without the final inversion. */
const checksumStart = 0xf597a6cf;

const label = layout('LVM label', 32, {
  id: ascii(0, 'LABELONE'),
  sector: u64le(8),
  checksum: u32le(16),
  offset: u32le(20), //        of the header behind it, from the label
  type: ascii(24, 'LVM2 001'),
});
const physicalHeader = layout('LVM physical volume header', 40, { uuid: text(0, 32, 'utf8'), sizeBytes: u64le(32) });
const area = layout('LVM area', 16, { offset: u64le(0), sizeBytes: u64le(8) });
const metadataHeader = layout('LVM metadata header', 40, {
  checksum: u32le(0),
  magic: ascii(4, ' LVM2 x[5A%r0N*>'),
  version: u32le(20),
  start: u64le(24),
  sizeBytes: u64le(32),
});
const location = layout('LVM metadata location', 24, {
  offset: u64le(0),
  sizeBytes: u64le(8),
  checksum: u32le(16),
  flags: bytes(20, 4),
});
const metadataHeaderBytes = 512;

interface PhysicalVolume {
  readonly uuid: string;
  readonly text: string;
}

/** Whether a volume is a physical volume of LVM2. */
export function isPhysicalVolume(volume: Disk): boolean {
  return findLabel(volume) !== undefined;
}

/** @param physicals all physical volumes of the guest's disk */
export function readLogicalVolumes(physicals: readonly Disk[]): LvmResult {
  const warnings: string[] = [];
  const found = physicals.map((volume) => {
    try {
      return readPhysical(volume);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      warnings.push(`an LVM physical volume is not read: ${error.message}`);
      return undefined;
    }
  });
  const volumes: LogicalVolume[] = [];
  const seen = new Set<string>();
  for (const physical of found) {
    if (physical === undefined || physical.text === '') continue;
    for (const [group, section] of Object.entries(parseLvmText(physical.text))) {
      if (!isSection(section) || seen.has(group)) continue;
      seen.add(group);
      volumes.push(...volumesOf(group, section, found, warnings));
    }
  }
  const whole = volumes.filter(({ group, name, pieces }) => {
    const outside = pieces.some(
      ({ physical, offset, lengthBytes }) => offset + lengthBytes > (physicals[physical]?.sizeBytes ?? 0),
    );
    if (outside) warnings.push(`LVM ${group}/${name} reaches beyond its physical volume; it is not read`);
    return !outside;
  });
  return { volumes: whole, warnings };
}

function findLabel(volume: Disk): { sector: Uint8Array; at: number; headerOffset: number } | undefined {
  if (volume.sizeBytes < labelSectors * sectorBytes) return undefined;
  for (let index = 0; index < labelSectors; index++) {
    const sector = new Uint8Array(sectorBytes);
    volume.read(sector, index * sectorBytes);
    if (Buffer.from(sector.subarray(0, 8)).toString('latin1') !== 'LABELONE') continue;
    if (Buffer.from(sector.subarray(24, 32)).toString('latin1') !== 'LVM2 001') continue;
    const { checksum, offset } = label.parse(sector);
    if (
      checksum === lvmChecksum(sector.subarray(20)) &&
      offset >= 32 &&
      offset <= sectorBytes - physicalHeader.sizeBytes
    )
      return { sector, at: index * sectorBytes, headerOffset: offset };
  }
  return undefined;
}

function readPhysical(volume: Disk): PhysicalVolume | undefined {
  const found = findLabel(volume);
  if (found === undefined) return undefined;
  const { uuid } = physicalHeader.parse(found.sector, found.headerOffset);
  // Two lists, each ended by zeros: areas of data, areas of metadata.
  let ended = 0;
  for (
    let at = found.headerOffset + physicalHeader.sizeBytes;
    at + area.sizeBytes <= sectorBytes && ended < 2;
    at += area.sizeBytes
  ) {
    const { offset, sizeBytes } = area.parse(found.sector, at);
    if (offset === 0n && sizeBytes === 0n) ended++;
    else if (ended === 1) return { uuid, text: readMetadata(volume, offset) };
  }
  return { uuid, text: '' };
}

/** The text lies in a ring behind its header. */
function readMetadata(volume: Disk, areaOffset: bigint): string {
  const where = { structure: 'LVM metadata', offset: 0 };
  const start = toOffset(areaOffset, volume.sizeBytes - metadataHeaderBytes, { ...where, field: 'area' });
  const block = new Uint8Array(metadataHeaderBytes);
  volume.read(block, start);
  const header = metadataHeader.parse(block);
  if (lvmChecksum(block.subarray(4)) !== header.checksum)
    throw new FormatError('LVM metadata', 'checksum', start, 'is wrong');
  const ringBytes = toOffset(header.sizeBytes, volume.sizeBytes - start, { ...where, field: 'size' });
  const place = location.parse(block, metadataHeader.sizeBytes);
  const length = toOffset(place.sizeBytes, Math.min(maxMetadataBytes, ringBytes), { ...where, field: 'length' });
  const offset = toOffset(place.offset, ringBytes, { ...where, field: 'offset' });
  if (length === 0) return '';
  const contents = new Uint8Array(length);
  const before = Math.min(length, ringBytes - offset);
  volume.read(contents.subarray(0, before), start + offset);
  if (before < length) {
    if (metadataHeaderBytes + length - before > ringBytes)
      throw new FormatError('LVM metadata', 'length', start, 'is more than its area');
    volume.read(contents.subarray(before), start + metadataHeaderBytes);
  }
  if (lvmChecksum(contents) !== place.checksum)
    throw new FormatError('LVM metadata', 'checksum', start + offset, 'is wrong');
  return Buffer.from(contents).toString('latin1').replace(/\0.*$/s, '');
}

function volumesOf(
  group: string,
  section: LvmSection,
  physicals: readonly (PhysicalVolume | undefined)[],
  warnings: string[],
): LogicalVolume[] {
  const extentBytes = numberOf(section['extent_size']) * sectorBytes;
  if (extentBytes < KiB || extentBytes > 4 * 1024 * MiB)
    throw new FormatError('LVM metadata', 'extent_size', 0, `${extentBytes} bytes`);
  const places = new Map<string, { physical: number; start: number }>();
  for (const [name, physical] of Object.entries(sectionOf(section['physical_volumes']))) {
    if (!isSection(physical)) continue;
    const uuid = wordOf(physical['id']).replaceAll('-', '');
    const index = physicals.findIndex((one) => one?.uuid === uuid);
    if (index >= 0) places.set(name, { physical: index, start: numberOf(physical['pe_start']) * sectorBytes });
  }
  const volumes: LogicalVolume[] = [];
  for (const [name, logical] of Object.entries(sectionOf(section['logical_volumes']))) {
    if (!isSection(logical) || !isVisible(logical)) continue;
    const pieces = piecesOf(logical, extentBytes, places);
    if (typeof pieces === 'string') warnings.push(`LVM ${group}/${name} is not read: ${pieces}`);
    else volumes.push({ group, name, pieces });
  }
  return volumes;
}

/** What is inside other volumes (a mirror's halves, a pool) is none that is mounted. */
function isVisible(logical: LvmSection): boolean {
  return listOf(logical['status']).includes('VISIBLE');
}

function piecesOf(
  logical: LvmSection,
  extentBytes: number,
  places: ReadonlyMap<string, { physical: number; start: number }>,
): LogicalVolume['pieces'] | string {
  const count = numberOf(logical['segment_count']);
  if (count < 1 || count > maxSegments) return `it has ${count} segments`;
  const pieces: { physical: number; offset: number; lengthBytes: number }[] = [];
  let next = 0;
  for (let index = 1; index <= count; index++) {
    const segment = sectionOf(logical[`segment${index}`]);
    const stripes = listOf(segment['stripes']);
    if (segment['type'] !== 'striped' || segment['stripe_count'] !== 1)
      return `it is not one plain run but of type ${wordOf(segment['type'])}`;
    const place = places.get(wordOf(stripes[0]));
    if (place === undefined) return 'a part of it lies on another disk';
    if (numberOf(segment['start_extent']) !== next) return 'its segments leave a gap';
    const lengthBytes = numberOf(segment['extent_count']) * extentBytes;
    next += numberOf(segment['extent_count']);
    pieces.push({ physical: place.physical, offset: place.start + numberOf(stripes[1]) * extentBytes, lengthBytes });
  }
  return pieces;
}

function isSection(value: LvmValue | undefined): value is LvmSection {
  return typeof value === 'object' && !Array.isArray(value);
}

function sectionOf(value: LvmValue | undefined): LvmSection {
  return isSection(value) ? value : {};
}

function listOf(value: LvmValue | undefined): readonly (string | number)[] {
  return Array.isArray(value) ? (value as readonly (string | number)[]) : [];
}

function wordOf(value: LvmValue | undefined): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : 'no word';
}

/** @throws FormatError when it is no whole number from 0 that a disk could have */
function numberOf(value: LvmValue | undefined): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value < 2 ** 43) return value;
  throw new FormatError('LVM metadata', 'number', 0, `${wordOf(value)} where a number belongs`);
}

function lvmChecksum(covered: Uint8Array): number {
  const inverted = (checksumStart ^ 0xffffffff) >>> 0;
  return (crc32(covered, inverted) ^ 0xffffffff) >>> 0;
}
