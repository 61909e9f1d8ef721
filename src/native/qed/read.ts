/** QED files from elsewhere as disks, with their backing files. */
import { UnsupportedError } from '../../base/errors.ts';
import { nameOfBytes } from '../../base/names.ts';
import { isPowerOfTwo, toOffset } from '../../base/ranges.ts';
import type { Disk } from '../../disk/disk.ts';
import { mappedDisk, type Run } from '../mapped-disk.ts';
import {
  checkField,
  checkInside,
  hasExtension,
  openParentOf,
  readInside,
  type DiskReader,
  type NativeDisk,
  type ReaderOptions,
} from '../reader.ts';
import { TableCache } from '../table-cache.ts';
import {
  entryBytes,
  features,
  fileHeader,
  maxBackingNameBytes,
  maxClusterBytes,
  maxDiskBytes,
  maxTableClusters,
  minClusterBytes,
  zeroEntry,
  type FileHeader,
} from './layout.ts';

const structure = 'QED';

/**
 * The disk that a QED file holds. On success the disk owns `file`; on an error the caller still does.
 * @throws FormatError, UnsupportedError when the file is not a QED file that can be read
 */
export function openQed(file: Disk, options: ReaderOptions = {}): NativeDisk {
  const header = readHeader(file);
  const sizeBytes = toOffset(header.sizeBytes, maxDiskBytes, { structure, field: 'image_size', offset: 48 });
  const tableBytes = header.tableClusters * header.clusterBytes;
  const covered = (tableBytes / entryBytes) ** 2 * header.clusterBytes;
  checkField(structure, 'image_size', 48, sizeBytes <= covered, `${sizeBytes} is more than the tables cover`);
  const l1Offset = toOffset(header.l1Offset, file.sizeBytes, { structure, field: 'l1_table_offset', offset: 40 });
  checkPlace(file, header, { field: 'l1_table_offset', at: 40 }, l1Offset, tableBytes);
  const name = readBackingName(file, header);
  // Without the mark QEMU looks what its content is, and so do we, together with its name.
  const format = (header.features & features.backingFileIsRaw) !== 0n ? 'raw' : undefined;
  const parent =
    name === undefined ? undefined : openParentOf(structure, { names: [name], identity: undefined, format }, options);
  return mappedDisk(file, {
    structure,
    sizeBytes,
    locate: locator(file, header, l1Offset, new TableCache(file, structure, options.tableCacheBytes)),
    parent: parent === undefined ? undefined : { disk: parent, startBytes: 0 },
    owns: parent === undefined ? [file] : [file, parent],
  });
}

function readHeader(file: Disk): FileHeader {
  const header = fileHeader.parse(readInside(file, structure, 'header', 0, fileHeader.sizeBytes));
  const { clusterBytes, tableClusters, headerClusters } = header;
  const usual = isPowerOfTwo(clusterBytes) && clusterBytes >= minClusterBytes && clusterBytes <= maxClusterBytes;
  checkField(structure, 'cluster_size', 4, usual, `${clusterBytes} is no cluster size`);
  const whole = isPowerOfTwo(tableClusters) && tableClusters <= maxTableClusters;
  checkField(structure, 'table_size', 8, whole, `${tableClusters} clusters is no size of a table`);
  checkField(structure, 'header_size', 12, headerClusters > 0, 'the header has no clusters');
  const unknown = header.features & ~(features.backingFile | features.needsCheck | features.backingFileIsRaw);
  if (unknown !== 0n) throw new UnsupportedError(`QED: unknown features 0x${unknown.toString(16)}`);
  return header;
}

/** A name with a protocol (`json:`, `nbd:`, `file:`) would have QEMU open anything at all: it is refused. */
function readBackingName(file: Disk, header: FileHeader): string | undefined {
  if ((header.features & features.backingFile) === 0n) return undefined;
  const { backingNameOffset: offset, backingNameBytes: length } = header;
  const end = header.headerClusters * header.clusterBytes;
  const usual = length > 0 && length <= maxBackingNameBytes && offset + length <= end;
  checkField(structure, 'backing_filename', 56, usual && offset >= fileHeader.sizeBytes, `${length} at ${offset}`);
  const name = nameOfBytes(readInside(file, structure, 'backing file name', offset, length));
  checkField(structure, 'backing file name', offset, !name.includes('\0'), 'holds a zero byte');
  if (/^[a-z][a-z0-9+.-]+:/i.test(name))
    throw new UnsupportedError(`QED: the backing file ${JSON.stringify(name.slice(0, 80))} is not a plain file`);
  return name;
}

/** @throws FormatError unless whole clusters behind the header, and in the file, are there */
function checkPlace(
  file: Disk,
  header: FileHeader,
  { field, at }: { readonly field: string; readonly at: number },
  offset: number,
  lengthBytes: number,
): void {
  const isCluster = offset % header.clusterBytes === 0 && offset >= header.headerClusters * header.clusterBytes;
  checkField(structure, field, at, isCluster, `${offset} is not the start of a cluster behind the header`);
  checkInside(file, structure, field, offset, lengthBytes);
}

function locator(
  file: Disk,
  header: FileHeader,
  l1Offset: number,
  tables: TableCache,
): (offset: number, lengthBytes: number) => Run {
  const { clusterBytes } = header;
  const tableBytes = header.tableClusters * clusterBytes;
  const tableCoversBytes = (tableBytes / entryBytes) * clusterBytes;
  const absent = (header.features & features.backingFile) === 0n ? 'zero' : 'parent';

  return (offset, lengthBytes) => {
    const l1At = l1Offset + Math.floor(offset / tableCoversBytes) * entryBytes;
    const withinTable = offset % tableCoversBytes;
    const l1Entry = tables.u64le(l1At);
    if (l1Entry === 0n) return { kind: absent, lengthBytes: Math.min(lengthBytes, tableCoversBytes - withinTable) };
    const table = toOffset(l1Entry, file.sizeBytes, { structure, field: 'L1 entry', offset: l1At });
    checkPlace(file, header, { field: 'L1 entry', at: l1At }, table, tableBytes);
    const l2At = table + Math.floor(withinTable / clusterBytes) * entryBytes;
    const entry = tables.u64le(l2At);
    const within = offset % clusterBytes;
    // Clusters that lie behind each other, or are of one kind without a place, are one run.
    const isStored = entry > zeroEntry;
    const left = (tableCoversBytes - withinTable + within) / clusterBytes;
    const limit = Math.min(left, Math.ceil((within + lengthBytes) / clusterBytes));
    const count = tables.countSteps64(l2At, limit, isStored ? clusterBytes : 0, true);
    const runBytes = Math.min(lengthBytes, count * clusterBytes - within);
    if (!isStored) return { kind: entry === zeroEntry ? 'zero' : absent, lengthBytes: runBytes };
    const cluster = toOffset(entry, file.sizeBytes, { structure, field: 'L2 entry', offset: l2At });
    checkPlace(file, header, { field: 'L2 entry', at: l2At }, cluster, 0);
    return { kind: 'stored', lengthBytes: runBytes, fileOffset: cluster + within };
  };
}

export const qedReader: DiskReader = {
  name: 'qed',
  what: 'a QED file',
  qemuName: 'qed',
  isNamed: (fileName) => hasExtension(fileName, ['qed']),
  signatures: [{ magic: 'QED\0' }],
  open: openQed,
};
