/**
 * What a VHDX says of itself: its current header, its regions and its metadata, each checked before it is believed.
 *
 * Nothing here trusts the file: every count and offset meets a limit of the specification, or the file's own end, before it is used.
 */
import { FormatError, IntegrityError, UnsupportedError } from '../../base/errors.ts';
import { toOffset } from '../../base/ranges.ts';
import { checkCrc32c } from '../../bytes/checksum.ts';
import type { Guid } from '../../bytes/guid.ts';
import type { Disk } from '../../disk/disk.ts';
import * as vhdx from './layout.ts';
import { parseParentLocator, type ParentLocator } from './parent-locator.ts';

/** A part of the file. */
export interface Region {
  readonly offset: number;
  readonly lengthBytes: number;
}

export interface Regions {
  readonly bat: Region;
  readonly metadata: Region;
}

/** The metadata items that a reader needs. */
export interface Metadata extends vhdx.BlockGeometry {
  readonly physicalSectorBytes: number;
  readonly virtualDiskId: Guid;
  readonly leavesBlocksAllocated: boolean;
  /** Only a differencing file's. */
  readonly parentLocator?: ParentLocator;
}

/**
 * The header that counts (2.2.2): of those whose checksum holds, the one with the higher sequence number.
 * @throws FormatError when the file is no VHDX, no header is valid, or two different ones claim the same number
 */
export function readCurrentHeader(file: Disk): vhdx.Header {
  const smallest = vhdx.regionTableOffsets[1] + vhdx.regionTableBytes;
  if (file.sizeBytes < smallest) throw new FormatError('VHDX file', 'length', 0, `${file.sizeBytes} bytes are too few`);
  vhdx.fileTypeIdentifier.parse(readAt(file, 0, vhdx.fileTypeIdentifier.sizeBytes));
  const [first, second] = vhdx.headerOffsets.map((offset) => attempt(() => readHeader(file, offset)));
  if (first?.value === undefined || second?.value === undefined) {
    const only = first?.value ?? second?.value;
    if (only !== undefined) return only;
    throw new FormatError('VHDX file', 'headers', vhdx.headerOffsets[0], 'neither is valid', { cause: first?.error });
  }
  if (first.value.sequenceNumber !== second.value.sequenceNumber) {
    return first.value.sequenceNumber > second.value.sequenceNumber ? first.value : second.value;
  }
  if (Buffer.compare(vhdx.header.encode(first.value), vhdx.header.encode(second.value)) !== 0) {
    throw new FormatError(
      'VHDX header',
      'sequenceNumber',
      vhdx.headerOffsets[1],
      'two different headers have the same',
    );
  }
  return first.value;
}

function readHeader(file: Disk, offset: number): vhdx.Header {
  const bytes = readAt(file, offset, vhdx.headerBytes);
  const parsed = vhdx.header.parse(bytes);
  checkCrc32c(bytes, vhdx.header.offsetOf('checksum'), 'VHDX header');
  if (parsed.version !== 1)
    throw new FormatError('VHDX header', 'version', offset, `${parsed.version} where 1 belongs`);
  return parsed;
}

/**
 * Where the log is (2.2.2).
 * @throws FormatError when it cannot be there
 */
export function logPlaceOf(header: vhdx.Header, file: Disk): Region & { readonly logGuid: Guid } {
  const at = vhdx.headerOffsets[0];
  if (header.logVersion !== 0)
    throw new FormatError('VHDX header', 'logVersion', at, `${header.logVersion} where 0 belongs`);
  const log = regionOf(file, header.logOffset, header.logLengthBytes, {
    structure: 'VHDX header',
    field: 'logOffset',
    offset: at,
  });
  return { ...log, logGuid: header.logGuid };
}

/**
 * The regions (2.2.3), from the first of the two tables whose checksum holds.
 * @throws UnsupportedError when there is a required region that nobody here knows
 */
export function readRegions(file: Disk): Regions {
  const [first, second] = vhdx.regionTableOffsets.map((offset) => attempt(() => readRegionTable(file, offset)));
  const table = first?.value ?? second?.value;
  if (table === undefined) {
    throw new FormatError('VHDX file', 'region tables', vhdx.regionTableOffsets[0], 'neither is valid', {
      cause: first?.error,
    });
  }
  const found = new Map<Guid, Region>();
  for (const { entry, at } of table) {
    const where = { structure: 'VHDX region table entry', field: 'fileOffset', offset: at };
    if (found.has(entry.regionId))
      throw new FormatError(where.structure, 'regionId', at, `${entry.regionId} is there twice`);
    const known = entry.regionId === vhdx.batRegionId || entry.regionId === vhdx.metadataRegionId;
    if (!known && entry.required % 2 === 1)
      throw new UnsupportedError(`VHDX: the required region ${entry.regionId} is not known`);
    found.set(
      entry.regionId,
      known ? regionOf(file, entry.fileOffset, entry.lengthBytes, where) : { offset: 0, lengthBytes: 0 },
    );
  }
  const bat = found.get(vhdx.batRegionId);
  const metadata = found.get(vhdx.metadataRegionId);
  if (bat === undefined || metadata === undefined) {
    throw new FormatError(
      'VHDX region table',
      'entries',
      vhdx.regionTableOffsets[0],
      'the BAT or the metadata region is missing',
    );
  }
  if (overlap(bat, metadata)) {
    throw new FormatError(
      'VHDX region table',
      'entries',
      vhdx.regionTableOffsets[0],
      'the BAT and the metadata region overlap',
    );
  }
  return { bat, metadata };
}

function readRegionTable(file: Disk, offset: number) {
  const bytes = readAt(file, offset, vhdx.regionTableBytes);
  const { entryCount } = vhdx.regionTableHeader.parse(bytes);
  checkCrc32c(bytes, vhdx.regionTableHeader.offsetOf('checksum'), 'VHDX region table');
  if (entryCount > vhdx.maxRegionEntries) {
    throw new FormatError(
      'VHDX region table',
      'entryCount',
      offset,
      `${entryCount} is more than ${vhdx.maxRegionEntries}`,
    );
  }
  return Array.from({ length: entryCount }, (_, index) => {
    const within = vhdx.regionTableHeader.sizeBytes + index * vhdx.regionTableEntry.sizeBytes;
    return { entry: vhdx.regionTableEntry.parse(bytes, within), at: offset + within };
  });
}

/** Checks a part's place: whole MiB, behind the header section, inside the file. */
function regionOf(
  file: Disk,
  fileOffset: bigint,
  lengthBytes: number,
  where: { structure: string; field: string; offset: number },
): Region {
  const offset = toOffset(fileOffset, file.sizeBytes, where);
  const misplaced = offset % vhdx.regionAlignment !== 0 || lengthBytes % vhdx.regionAlignment !== 0;
  if (misplaced || offset < vhdx.headerSectionBytes || lengthBytes === 0 || offset + lengthBytes > file.sizeBytes) {
    const end = `in a file of ${file.sizeBytes}`;
    throw new FormatError(
      where.structure,
      where.field,
      where.offset,
      `${lengthBytes} bytes at ${offset} ${end} cannot be`,
    );
  }
  return { offset, lengthBytes };
}

export function overlap(a: Region, b: Region): boolean {
  return a.offset < b.offset + b.lengthBytes && b.offset < a.offset + a.lengthBytes;
}

/**
 * The metadata (2.6), complete and consistent.
 * @throws UnsupportedError when there is a required item that nobody here knows
 */
export function readMetadata(file: Disk, region: Region): Metadata {
  const items = readItemTable(file, region);
  const item = <V>(id: Guid, name: string, structure: { sizeBytes: number; parse(bytes: Uint8Array): V }): V => {
    const found = items.get(id);
    if (found === undefined) throw new FormatError('VHDX metadata', name, region.offset, 'is missing');
    if (found.lengthBytes < structure.sizeBytes)
      throw new FormatError('VHDX metadata', name, found.offset, 'is too short');
    return structure.parse(readAt(file, found.offset, structure.sizeBytes));
  };
  const parameters = item(vhdx.metadataItems.fileParameters, 'file parameters', vhdx.fileParameters);
  const size = item(vhdx.metadataItems.virtualDiskSize, 'virtual disk size', vhdx.virtualDiskSize);
  const logical = item(vhdx.metadataItems.logicalSectorSize, 'logical sector size', vhdx.sectorSize);
  const physical = item(vhdx.metadataItems.physicalSectorSize, 'physical sector size', vhdx.sectorSize);
  const diskId = item(vhdx.metadataItems.virtualDiskId, 'virtual disk id', vhdx.virtualDiskIdItem);
  const reject = (field: string, detail: string): never => {
    throw new FormatError('VHDX metadata', field, region.offset, detail);
  };
  const { blockBytes, flags } = parameters;
  if (!vhdx.payloadBlockSizes.includes(blockBytes)) {
    reject('block size', `${blockBytes} is not a power of two from 1 MiB to 256 MiB`);
  }
  for (const sector of [logical, physical]) {
    if (!vhdx.sectorSizes.includes(sector.sizeBytes)) reject('sector size', `${sector.sizeBytes} is not 512 or 4096`);
  }
  const where = { structure: 'VHDX metadata', field: 'virtual disk size', offset: region.offset };
  const virtualBytes = toOffset(size.sizeBytes, vhdx.maxVirtualBytes, where);
  if (virtualBytes === 0 || virtualBytes % logical.sizeBytes !== 0) {
    reject('virtual disk size', `${virtualBytes} is not a whole number of sectors of ${logical.sizeBytes} bytes`);
  }
  const isDifferencing = Math.floor(flags / vhdx.hasParent) % 2 === 1;
  return {
    virtualBytes,
    logicalSectorBytes: logical.sizeBytes,
    physicalSectorBytes: physical.sizeBytes,
    payloadBlockBytes: blockBytes,
    virtualDiskId: diskId.id,
    leavesBlocksAllocated: flags % 2 === vhdx.leaveBlocksAllocated,
    ...(isDifferencing
      ? { parentLocator: readParentLocator(file, items.get(vhdx.metadataItems.parentLocator), region) }
      : {}),
  };
}

function readParentLocator(file: Disk, item: Region | undefined, region: Region): ParentLocator {
  if (item === undefined) {
    throw new FormatError('VHDX metadata', 'parent locator', region.offset, 'is missing in a differencing file');
  }
  return parseParentLocator(readAt(file, item.offset, item.lengthBytes), item.offset);
}

/** Where the known items lie (2.6.1). */
function readItemTable(file: Disk, region: Region): Map<Guid, Region> {
  const table = readAt(file, region.offset, vhdx.metadataTableBytes);
  const { entryCount } = vhdx.metadataTableHeader.parse(table);
  if (entryCount > vhdx.maxMetadataEntries) {
    throw new FormatError(
      'VHDX metadata table',
      'entryCount',
      region.offset,
      `${entryCount} is more than ${vhdx.maxMetadataEntries}`,
    );
  }
  const known: readonly Guid[] = Object.values(vhdx.metadataItems);
  const items = new Map<Guid, Region>();
  for (let index = 0; index < entryCount; index++) {
    const at = vhdx.metadataTableHeader.sizeBytes + index * vhdx.metadataTableEntry.sizeBytes;
    const { itemId, offset, lengthBytes, flags } = vhdx.metadataTableEntry.parse(table, at);
    if (flags % 2 === vhdx.metadataIsUser || !known.includes(itemId)) {
      if (Math.floor(flags / vhdx.metadataIsRequired) % 2 === 0) continue;
      throw new UnsupportedError(`VHDX: the required metadata item ${itemId} is not known`);
    }
    const reject = (field: string, detail: string): never => {
      throw new FormatError('VHDX metadata table entry', field, region.offset + at, detail);
    };
    if (items.has(itemId)) reject('itemId', `${itemId} is there twice`);
    if (offset < vhdx.metadataTableBytes || offset + lengthBytes > region.lengthBytes)
      reject('offset', `${offset} is out of the region`);
    if (lengthBytes === 0 || lengthBytes > vhdx.maxMetadataItemBytes) reject('lengthBytes', `${lengthBytes} cannot be`);
    items.set(itemId, { offset: region.offset + offset, lengthBytes });
  }
  return items;
}

function readAt(file: Disk, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  file.read(bytes, offset);
  return bytes;
}

/** A copy that does not parse may have a sound twin; a file that cannot be read has not. */
function attempt<T>(parse: () => T): { readonly value?: T; readonly error?: unknown } {
  try {
    return { value: parse() };
  } catch (error) {
    if (error instanceof FormatError || error instanceof IntegrityError) return { error };
    throw error;
  }
}
