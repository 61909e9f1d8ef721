/**
 * The master boot record: boot code, disk signature and four partitions; and the protective one before a GPT (UEFI specification 5.2).
 *
 *     0    boot code, 440 bytes
 *     440  disk signature, then two bytes of zeros
 *     446  four entries of 16 bytes
 *     510  55 AA
 */
import { assert, CapacityError } from '../base/errors.ts';
import type { Decoded } from '../bytes/layout.ts';
import {
  activeFlag,
  bootCodeBytes,
  bootSignature,
  masterBootRecord,
  mbrEntry,
  mbrEntryCount,
  protectiveType,
  sectorBytes,
} from '../volume/table-layout.ts';
import { partitionTypes, type BootableGeometry } from './geometry.ts';

/** The last sector that 32 bits can name. */
const maxLba = 2 ** 32 - 1;

export function encodeMbr(geometry: BootableGeometry): Uint8Array {
  const code = Buffer.from(geometry.bootCodeBase64 ?? '', 'base64');
  assert(code.length <= bootCodeBytes, 'boot code is longer than its room in the MBR');
  const bootCode = new Uint8Array(bootCodeBytes);
  bootCode.set(code);
  const entries = new Uint8Array(mbrEntryCount * mbrEntry.sizeBytes);
  const found = geometry.style === 'gpt' ? [protectiveEntry(geometry)] : partitionEntries(geometry);
  for (const [index, value] of found.entries()) mbrEntry.encode(value, entries, index * mbrEntry.sizeBytes);
  return masterBootRecord.encode({
    bootCode,
    diskSignature: geometry.diskSignature,
    entries,
    signature: bootSignature,
  });
}

type Entry = Decoded<typeof mbrEntry>;

function partitionEntries(geometry: BootableGeometry): Entry[] {
  checkMbrHolds(geometry);
  return geometry.partitions.map((partition) => {
    const firstLba = partition.startBytes / sectorBytes;
    const sectorCount = partition.sizeBytes / sectorBytes;
    return {
      flag: partition.active ? activeFlag : 0,
      firstChs: chsOf(firstLba),
      type: partitionTypes[partition.type].mbr,
      lastChs: chsOf(firstLba + sectorCount - 1),
      firstLba,
      sectorCount,
    };
  });
}

/** 5.2.3: the whole disk but this sector, as far as 32 bits go. */
function protectiveEntry(geometry: BootableGeometry): Entry {
  const sectorCount = Math.min(geometry.sizeBytes / sectorBytes - 1, maxLba);
  return {
    flag: 0,
    firstChs: chsOf(1),
    type: protectiveType,
    lastChs: Uint8Array.of(0xff, 0xff, 0xff),
    firstLba: 1,
    sectorCount,
  };
}

const heads = 255;
const sectorsPerTrack = 63;
const maxCylinder = 1023;

/** @throws CapacityError when the partitions, or where they lie, are more than an MBR can say */
export function checkMbrHolds(geometry: Pick<BootableGeometry, 'partitions' | 'sizeBytes'>): void {
  const { partitions, sizeBytes } = geometry;
  if (partitions.length > mbrEntryCount) {
    throw new CapacityError(`an MBR holds 4 partitions, not ${partitions.length}; use --partition-style gpt`);
  }
  if (sizeBytes / sectorBytes > maxLba) {
    throw new CapacityError('an MBR reaches 2 TiB, and the volumes do not fit; use --partition-style gpt');
  }
}

/** In the geometry of 255 heads and 63 sectors; what lies past its end is said to be at its end. */
function chsOf(lba: number): Uint8Array {
  const cylinder = Math.floor(lba / (heads * sectorsPerTrack));
  if (cylinder > maxCylinder) return Uint8Array.of(heads - 1, 0xff, 0xff);
  const head = Math.floor(lba / sectorsPerTrack) % heads;
  const sector = (lba % sectorsPerTrack) + 1;
  return Uint8Array.of(head, sector + Math.floor(cylinder / 256) * 64, cylinder % 256);
}

/** Whether a sector holds a partition table: the mark at its end, and entries that could be partitions. */
export function isPartitionTable(sector: Uint8Array): boolean {
  const record = masterBootRecord.parse(sector);
  if (record.signature !== bootSignature) return false;
  const entries = Array.from({ length: mbrEntryCount }, (_, index) =>
    mbrEntry.parse(record.entries, index * mbrEntry.sizeBytes),
  );
  const isSound = ({ flag, type, sectorCount }: Entry): boolean =>
    (flag === 0 || flag === activeFlag) && (type === 0) === (sectorCount === 0);
  return entries.every(isSound) && entries.some(({ type }) => type !== 0);
}
