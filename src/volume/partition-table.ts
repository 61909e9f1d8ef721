/**
 * Partition tables as a guest's disk has them: MBR with its logical partitions, and GPT (the first copy that is sound). Sectors have 512
 * bytes. What the table says is held against the disk before it is believed.
 */
import { UnsupportedError } from '../base/errors.ts';
import { toOffset } from '../base/ranges.ts';
import { KiB, MiB } from '../base/units.ts';
import type { Guid } from '../bytes/guid.ts';
import { crc32 } from '../bytes/checksum.ts';
import type { Disk } from '../disk/disk.ts';
import {
  activeFlag,
  bootSignature,
  gptEntry,
  gptHeader,
  masterBootRecord,
  mbrEntry,
  mbrEntryCount,
  protectiveType,
  sectorBytes,
} from './table-layout.ts';

export interface Partition {
  /** As the guest's kernel counts it: /dev/sda1 is 1, logical partitions begin at 5. */
  readonly number: number;
  readonly startBytes: number;
  readonly sizeBytes: number;
  /** MBR: the type byte. */
  readonly mbrType?: number;
  readonly active?: boolean;
  /** GPT: what it is for, and its own name. */
  readonly typeGuid?: Guid;
  readonly guid?: Guid;
}

export interface PartitionTable {
  readonly style: 'mbr' | 'gpt';
  /** Of an MBR; also of the protective one. */
  readonly diskSignature: number;
  readonly diskGuid?: Guid;
  readonly partitions: readonly Partition[];
  readonly warnings: readonly string[];
}

const maxLogicalPartitions = 64;
const maxGptEntries = 1024;
const maxGptBytes = MiB;
const extendedTypes = [0x05, 0x0f, 0x85];
const unusedType = '00000000-0000-0000-0000-000000000000';

/** @returns undefined where the first sector is no partition table: a bare volume, or nothing */
export function readPartitionTable(disk: Disk): PartitionTable | undefined {
  if (disk.sizeBytes < 2 * sectorBytes) return undefined;
  const first = readSector(disk, 0);
  const { signature, diskSignature } = masterBootRecord.parse(first);
  if (signature !== bootSignature) return undefined;
  const entries = primaryEntries(first);
  if (entries.some(({ type }) => type === protectiveType)) return { ...readGpt(disk), diskSignature };
  // A boot sector of FAT or NTFS ends like an MBR; its text, where a table would be, does not look like one.
  const plausible = entries.every(({ flag, type, firstLba, sectorCount }) => {
    const used = type !== 0;
    return (flag === 0 || flag === activeFlag) && (!used || (firstLba > 0 && sectorCount > 0));
  });
  if (!plausible || entries.every(({ type }) => type === 0)) return undefined;
  return { style: 'mbr', diskSignature, ...readMbr(disk, entries) };
}

type MbrEntry = ReturnType<typeof mbrEntry.parse>;

function primaryEntries(sector: Uint8Array): MbrEntry[] {
  const { entries } = masterBootRecord.parse(sector);
  return Array.from({ length: mbrEntryCount }, (_, index) => mbrEntry.parse(entries, index * mbrEntry.sizeBytes));
}

function readMbr(disk: Disk, entries: readonly MbrEntry[]): { partitions: Partition[]; warnings: string[] } {
  const partitions: Partition[] = [];
  const warnings: string[] = [];
  const add = (number: number, entry: MbrEntry, base: number): void => {
    const startBytes = (base + entry.firstLba) * sectorBytes;
    const sizeBytes = entry.sectorCount * sectorBytes;
    if (startBytes + sizeBytes > disk.sizeBytes)
      warnings.push(`partition ${number} reaches beyond the disk; it is not read`);
    else partitions.push({ number, startBytes, sizeBytes, mbrType: entry.type, active: entry.flag === activeFlag });
  };
  for (const [index, entry] of entries.entries()) {
    if (entry.type === 0) continue;
    if (!extendedTypes.includes(entry.type)) add(index + 1, entry, 0);
    else
      for (const [place, logical] of logicalEntries(disk, entry.firstLba, warnings).entries())
        add(5 + place, logical.entry, logical.base);
  }
  return { partitions, warnings };
}

/** A chain of sectors like an MBR, each with one partition and the place of the next, counted from the first. */
function logicalEntries(disk: Disk, extendedStart: number, warnings: string[]): { entry: MbrEntry; base: number }[] {
  const found: { entry: MbrEntry; base: number }[] = [];
  const seen = new Set<number>();
  for (let at = extendedStart; found.length < maxLogicalPartitions;) {
    if (seen.has(at) || (at + 1) * sectorBytes > disk.sizeBytes) {
      warnings.push('the chain of logical partitions is broken; those behind the break are not read');
      return found;
    }
    seen.add(at);
    const sector = readSector(disk, at);
    if (masterBootRecord.parse(sector).signature !== bootSignature) return found;
    const [entry, next] = primaryEntries(sector);
    if (entry !== undefined && entry.type !== 0) found.push({ entry, base: at });
    if (next === undefined || !extendedTypes.includes(next.type)) return found;
    at = extendedStart + next.firstLba;
  }
  return found;
}

function readGpt(disk: Disk): Omit<PartitionTable, 'diskSignature'> {
  const lastSector = Math.floor(disk.sizeBytes / sectorBytes) - 1;
  const first = tryGpt(disk, 1);
  const found = first ?? tryGpt(disk, lastSector);
  if (found === undefined)
    throw new UnsupportedError(
      'the disk says that it has a GPT, and neither copy of it is sound; repair it in the guest first',
    );
  const warnings = first === undefined ? ['the first GPT is broken; the backup at the end of the disk was read'] : [];
  return { style: 'gpt', diskGuid: found.diskGuid, partitions: found.partitions, warnings };
}

function tryGpt(disk: Disk, sector: number): { diskGuid: Guid; partitions: Partition[] } | undefined {
  const block = readSector(disk, sector);
  if (Buffer.from(block.subarray(0, 8)).toString('latin1') !== 'EFI PART') return undefined;
  const header = gptHeader.parse(block);
  const { headerBytes, entryCount, entryBytes } = header;
  if (headerBytes < gptHeader.sizeBytes || headerBytes > sectorBytes) return undefined;
  const covered = block.slice(0, headerBytes);
  covered.fill(0, 16, 20);
  if (crc32(covered) !== header.headerCrc32 || header.ownLba !== BigInt(sector)) return undefined;
  const sizeBytes = entryCount * entryBytes;
  if (entryCount > maxGptEntries || entryBytes < gptEntry.sizeBytes || entryBytes > 4 * KiB || sizeBytes > maxGptBytes)
    return undefined;
  const start = Number(header.entriesLba) * sectorBytes;
  if (start + sizeBytes > disk.sizeBytes) return undefined;
  const table = new Uint8Array(sizeBytes);
  disk.read(table, start);
  if (crc32(table) !== header.entriesCrc32) return undefined;
  const partitions = Array.from({ length: entryCount }, (_, index) => gptPartition(disk, table, index, entryBytes));
  return { diskGuid: header.diskGuid, partitions: partitions.filter((one) => one !== undefined) };
}

function gptPartition(disk: Disk, table: Uint8Array, index: number, entryBytes: number): Partition | undefined {
  const entry = gptEntry.parse(table, index * entryBytes);
  if (entry.type === unusedType || entry.lastLba < entry.firstLba) return undefined;
  const limit = Math.floor(disk.sizeBytes / sectorBytes) - 1;
  const where = { structure: `GPT entry ${index + 1}`, field: 'last sector', offset: index * entryBytes };
  const last = toOffset(entry.lastLba, limit, where);
  const startBytes = Number(entry.firstLba) * sectorBytes;
  const sizeBytes = (last + 1) * sectorBytes - startBytes;
  return { number: index + 1, startBytes, sizeBytes, typeGuid: entry.type, guid: entry.guid };
}

function readSector(disk: Disk, sector: number): Uint8Array {
  const bytes = new Uint8Array(sectorBytes);
  disk.read(bytes, sector * sectorBytes);
  return bytes;
}
