/** VHD files from elsewhere as disks: fixed, dynamic and differencing. */
import { FormatError, IntegrityError, UnsupportedError } from '../../base/errors.ts';
import { alignUp, isPowerOfTwo, toOffset } from '../../base/ranges.ts';
import type { Disk } from '../../disk/disk.ts';
import { sliceDisk } from '../../disk/slice.ts';
import { sectorBytes } from '../geometry.ts';
import { mappedDisk, type Run } from '../mapped-disk.ts';
import {
  hasExtension,
  type DiskReader,
  checkField,
  checkInside,
  openParentOf,
  readInside,
  type NativeDisk,
  type ParentReference,
  type ReaderOptions,
} from '../reader.ts';
import { TableCache } from '../table-cache.ts';
import {
  batEntryBytes,
  bitmapBytes,
  checksumWithoutField,
  diskType,
  dynamicHeader,
  footer,
  maxDiskBytes,
  parentLocator,
  parentLocatorCount,
  unusedEntry,
  type DynamicHeader,
  type Footer,
} from './layout.ts';
import { vhd } from './format.ts';

const structure = 'VHD';
/** A block's size lies in a range that any writer stays in. */
const minBlockBytes = 256 * 1024;
const maxBlockBytes = 256 * 1024 * 1024;
/** Path of a parent: Windows has none that is longer. */
const maxLocatorBytes = 64 * 1024;

/**
 * The disk that a VHD file holds. On success the disk owns `file`; on an error the caller still does.
 * @throws FormatError, IntegrityError, UnsupportedError when the file is not a VHD that can be read
 */
export function openVhd(file: Disk, options: ReaderOptions = {}): NativeDisk {
  const found = readFooter(file);
  const sizeBytes = toOffset(found.currentSize, maxDiskBytes, { structure, field: 'currentSize', offset: 48 });
  if (found.diskType === diskType.fixed) {
    checkInside(file, structure, 'disk', 0, sizeBytes + footer.sizeBytes);
    return { ...sliceDisk(file, 0, sizeBytes), identity: found.uniqueId };
  }
  if (found.diskType !== diskType.dynamic && found.diskType !== diskType.differencing) {
    throw new UnsupportedError(`VHD: disk type ${found.diskType} is none of fixed, dynamic and differencing`);
  }
  const headerOffset = toOffset(found.dataOffset, file.sizeBytes, { structure, field: 'dataOffset', offset: 16 });
  const header = readDynamicHeader(file, headerOffset);
  const table = checkTable(file, header, sizeBytes);
  const differencing = found.diskType === diskType.differencing;
  const parent = differencing ? openParentOf(structure, parentReference(file, header), options) : undefined;
  const tables = new TableCache(file, structure, options.tableCacheBytes);
  const disk = mappedDisk(file, {
    structure,
    sizeBytes,
    locate: locator(tables, table, header.blockSize, differencing),
    parent: parent === undefined ? undefined : { disk: parent, startBytes: 0 },
    owns: parent === undefined ? [file] : [file, parent],
  });
  return { ...disk, identity: found.uniqueId };
}

/** The footer at the end, or its copy at the start when the end is damaged: a fixed disk has no copy. */
function readFooter(file: Disk): Footer {
  const lastOffset = file.sizeBytes - footer.sizeBytes;
  const last = readInside(file, structure, 'footer', lastOffset, footer.sizeBytes);
  try {
    return parseChecked(last, lastOffset, footer);
  } catch (error) {
    const first = readInside(file, structure, 'footer', 0, footer.sizeBytes);
    if (!Buffer.from(first).subarray(0, 8).equals(Buffer.from('conectix'))) throw error;
    return parseChecked(first, 0, footer);
  }
}

function parseChecked<V extends { readonly checksum: number }>(
  bytes: Uint8Array,
  offset: number,
  layout: { readonly name: string; parse(bytes: Uint8Array): V; offsetOf(field: string): number },
): V {
  let parsed: V;
  try {
    parsed = layout.parse(bytes);
  } catch (error) {
    throw new FormatError(layout.name, 'cookie', offset, 'is not there', { cause: error });
  }
  const actual = checksumWithoutField(bytes, layout.offsetOf('checksum'));
  if (actual !== parsed.checksum) throw new IntegrityError(`${layout.name} at byte ${offset}`, parsed.checksum, actual);
  return parsed;
}

function readDynamicHeader(file: Disk, offset: number): DynamicHeader {
  const bytes = readInside(file, structure, 'dynamic header', offset, dynamicHeader.sizeBytes);
  const header = parseChecked(bytes, offset, dynamicHeader);
  const { blockSize } = header;
  const usual = isPowerOfTwo(blockSize) && blockSize >= minBlockBytes && blockSize <= maxBlockBytes;
  checkField(structure, 'blockSize', offset + 32, usual, `${blockSize} is not a power of two that blocks have`);
  return header;
}

interface Table {
  readonly offset: number;
  readonly blockCount: number;
}

/**
 * The BAT covers the disk and lies in the file, and no two blocks overlap. One pass over at most 2040 GiB / 256 KiB entries, with four
 * bytes of memory for each block that the file has room for.
 */
function checkTable(file: Disk, header: DynamicHeader, sizeBytes: number): Table {
  const blockCount = Math.ceil(sizeBytes / header.blockSize);
  const offset = toOffset(header.tableOffset, file.sizeBytes, { structure, field: 'tableOffset', offset: 16 });
  const enough = header.maxTableEntries >= blockCount;
  checkField(structure, 'maxTableEntries', 28, enough, `${header.maxTableEntries} do not cover ${blockCount} blocks`);
  checkInside(file, structure, 'BAT', offset, blockCount * batEntryBytes);
  const tables = new TableCache(file, structure, 0);
  const wholeSectors = (bitmapBytes(header.blockSize) + header.blockSize) / sectorBytes;
  const fileSectors = Math.min(Math.ceil(file.sizeBytes / sectorBytes), unusedEntry);
  const startIn = new Uint32Array(Math.ceil(fileSectors / wholeSectors) + 1);
  for (let block = 0; block < blockCount; block++) {
    const at = offset + block * batEntryBytes;
    const sector = tables.u32be(at);
    if (sector === unusedEntry) continue;
    checkField(structure, 'BAT entry', at, sector > 0 && sector < fileSectors, `sector ${sector} is not in the file`);
    // Blocks that do not overlap start at least wholeSectors apart: no two in one cell, and neighbours far enough from each other.
    const cell = Math.floor(sector / wholeSectors);
    const before = cell === 0 ? 0 : (startIn[cell - 1] ?? 0);
    const after = startIn[cell + 1] ?? 0;
    const apart =
      startIn[cell] === 0 &&
      (before === 0 || sector - before >= wholeSectors) &&
      (after === 0 || after - sector >= wholeSectors);
    checkField(structure, 'BAT entry', at, apart, `the block at sector ${sector} overlaps another one`);
    startIn[cell] = sector;
  }
  return { offset, blockCount };
}

/** In a differencing disk a bitmap says which sectors are in this file; in a dynamic one a block is here or not. */
function locator(
  tables: TableCache,
  table: Table,
  blockBytes: number,
  differencing: boolean,
): (offset: number, lengthBytes: number) => Run {
  const bitmapLength = bitmapBytes(blockBytes);
  return (offset, lengthBytes) => {
    const within = offset % blockBytes;
    const at = table.offset + Math.floor(offset / blockBytes) * batEntryBytes;
    const entry = tables.u32be(at);
    if (entry === unusedEntry) {
      const blocks = tables.countSteps(at, Math.ceil((within + lengthBytes) / blockBytes), 0, false);
      return {
        kind: differencing ? 'parent' : 'zero',
        lengthBytes: Math.min(lengthBytes, blocks * blockBytes - within),
      };
    }
    const length = Math.min(lengthBytes, blockBytes - within);
    const bitmap = entry * sectorBytes;
    const fileOffset = bitmap + bitmapLength + within;
    if (!differencing) return { kind: 'stored', lengthBytes: length, fileOffset };
    const isHere = (sector: number): boolean =>
      (tables.u8(bitmap + Math.floor(sector / 8)) & (0x80 >> (sector % 8))) !== 0;
    const first = Math.floor(within / sectorBytes);
    const end = Math.ceil((within + length) / sectorBytes);
    const here = isHere(first);
    let sector = first + 1;
    while (sector < end && isHere(sector) === here) sector++;
    const runBytes = Math.min(sector * sectorBytes - within, length);
    return here ? { kind: 'stored', lengthBytes: runBytes, fileOffset } : { kind: 'parent', lengthBytes: runBytes };
  };
}

/** Relative paths first: they still hold when the files were moved together. */
function parentReference(file: Disk, header: DynamicHeader): Omit<ParentReference, 'depth'> {
  const byCode = new Map<string, string>();
  for (let index = 0; index < parentLocatorCount; index++) {
    const entry = parentLocator.parse(header.parentLocators, index * parentLocator.sizeBytes);
    const length = entry.platformDataLength;
    if (!['W2ru', 'W2ku'].includes(entry.platformCode) || length === 0) continue;
    checkField(structure, 'platformDataLength', 8, length <= maxLocatorBytes, `${length} is too long for a path`);
    const where = { structure, field: 'platformDataOffset', offset: 16 };
    const at = toOffset(entry.platformDataOffset, file.sizeBytes, where);
    const bytes = readInside(file, structure, 'parent locator', at, alignUp(length, 2));
    byCode.set(entry.platformCode, Buffer.from(bytes).toString('utf16le'));
  }
  const plainName = Buffer.from(header.parentUnicodeName).swap16().toString('utf16le');
  const names = [byCode.get('W2ru'), byCode.get('W2ku'), plainName]
    .map((name) => (name ?? '').split('\0', 1)[0] ?? '')
    .filter((name) => name !== '')
    .map((name) => name.replaceAll('\\', '/'));
  return { names, identity: header.parentUniqueId, format: 'vhd' };
}

export const vhdReader: DiskReader = {
  name: 'vhd',
  what: 'a VHD file',
  qemuName: 'vpc',
  isNamed: (fileName) => hasExtension(fileName, vhd.extensions),
  signatures: [
    { magic: 'conectix' },
    { magic: 'conectix', at: -512 },
    // Virtual PC before 2004 wrote a byte less.
    { magic: 'conectix', at: -511 },
  ],
  open: openVhd,
};
