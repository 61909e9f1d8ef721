/** qcow2 files from elsewhere as disks: versions 2 and 3, compressed clusters, subclusters, backing files. */
import { UnsupportedError } from '../../base/errors.ts';
import { nameOfBytes } from '../../base/names.ts';
import { alignUp, toOffset } from '../../base/ranges.ts';
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
import { CompressedClusters, type Compression } from './compressed.ts';
import {
  backingFormatExtension,
  dataFileExtension,
  entryBytes,
  entryFlags,
  entryOffsetMask,
  extensionAlignment,
  fileHeader,
  headerExtension,
  headerLengthBytes,
  headerVersion3,
  incompatible,
  maxBackingNameBytes,
  maxClusterBits,
  maxDiskBytes,
  maxL1Entries,
  minClusterBits,
  type FileHeader,
} from './layout.ts';
import { qcow2 } from './format.ts';

const structure = 'qcow2';
/** With extended L2 entries a cluster has 32 subclusters (specification: "Extended L2 Entries"). */
const subclustersPerCluster = 32;
const extendedEntryBytes = 16;

/** What the reading of clusters needs to know. */
interface Image {
  readonly file: Disk;
  readonly version: number;
  readonly sizeBytes: number;
  readonly clusterBytes: number;
  readonly l1Offset: number;
  readonly extendedL2: boolean;
  readonly compression: Compression;
  readonly backingName: string | undefined;
  /** What the file says that its backing file is. */
  readonly backingFormat: string | undefined;
}

/**
 * The disk that a qcow2 file holds: its active state, not its snapshots. On success the disk owns `file`; on an error the caller
 * still does.
 * @throws FormatError, UnsupportedError when the file is not a qcow2 file that can be read
 */
export function openQcow2(file: Disk, options: ReaderOptions = {}): NativeDisk {
  const image = readImage(file);
  const { backingName } = image;
  const qemuFormat = image.backingFormat;
  const reference = { names: backingName === undefined ? [] : [backingName], identity: undefined, qemuFormat };
  const parent = backingName === undefined ? undefined : openParentOf(structure, reference, options);
  return mappedDisk(file, {
    structure,
    sizeBytes: image.sizeBytes,
    locate: locator(image, new TableCache(file, structure, options.tableCacheBytes)),
    parent: parent === undefined ? undefined : { disk: parent, startBytes: 0 },
    owns: parent === undefined ? [file] : [file, parent],
  });
}

function readImage(file: Disk): Image {
  const header = fileHeader.parse(readInside(file, structure, 'header', 0, fileHeader.sizeBytes));
  const { version, clusterBits } = header;
  if (version !== 2 && version !== 3) throw new UnsupportedError(`qcow2: version ${version}; 2 and 3 are read`);
  const usual = clusterBits >= minClusterBits && clusterBits <= maxClusterBits;
  checkField(structure, 'cluster_bits', 20, usual, `${clusterBits} is not in ${minClusterBits} to ${maxClusterBits}`);
  if (header.cryptMethod !== 0) throw new UnsupportedError('qcow2: the file is encrypted; decrypt it with qemu-img');
  const clusterBytes = 2 ** clusterBits;
  const sizeBytes = toOffset(header.size, maxDiskBytes, { structure, field: 'size', offset: 24 });
  const extensions = readExtensions(file, header, clusterBytes);
  const features =
    version === 2 ? { extendedL2: false, compression: 'deflate' as const } : readFeatures(file, extensions);
  const l1Offset = checkL1(file, header, sizeBytes, clusterBytes, features.extendedL2);
  const backingName = readBackingName(file, header, clusterBytes);
  const backingFormat = backingName === undefined ? undefined : textOf(extensions.get(backingFormatExtension));
  return { file, version, sizeBytes, clusterBytes, l1Offset, ...features, backingName, backingFormat };
}

function readFeatures(file: Disk, extensions: Extensions): { extendedL2: boolean; compression: Compression } {
  const more = readInside(file, structure, 'header', fileHeader.sizeBytes, headerVersion3.sizeBytes);
  const { incompatibleFeatures: features, headerLength } = headerVersion3.parse(more);
  checkField(structure, 'header_length', 100, headerLength >= headerLengthBytes, `${headerLength} is too short`);
  if ((features & incompatible.corrupt) !== 0n) {
    throw new UnsupportedError('qcow2: the file is marked as corrupt; repair it with qemu-img check -r all');
  }
  if ((features & incompatible.externalDataFile) !== 0n) {
    const name = textOf(extensions.get(dataFileExtension)) ?? 'one without a name';
    throw new UnsupportedError(
      `qcow2: the data lies in another file (${JSON.stringify(name)}), which is not read; convert the disk with qemu-img`,
    );
  }
  // A dirty file has wrong reference counts, which reading does not need.
  const known = incompatible.dirty | incompatible.compressionType | incompatible.extendedL2;
  if ((features & ~known) !== 0n) {
    throw new UnsupportedError(`qcow2: unknown incompatible features 0x${(features & ~known).toString(16)}`);
  }
  const typed = (features & incompatible.compressionType) !== 0n;
  checkField(structure, 'header_length', 100, !typed || headerLength > headerLengthBytes, 'no compression type');
  const [type = 0] = typed ? readInside(file, structure, 'compression_type', headerLengthBytes, 1) : [0];
  if (type > 1) throw new UnsupportedError(`qcow2: compression type ${type}; deflate and zstd are read`);
  return {
    extendedL2: (features & incompatible.extendedL2) !== 0n,
    compression: type === 1 ? 'zstd' : 'deflate',
  };
}

type Extensions = ReadonlyMap<number, Uint8Array>;

/** The header extensions by their type, as far as the first cluster has them. */
function readExtensions(file: Disk, header: FileHeader, clusterBytes: number): Extensions {
  const { version, backingFileOffset } = header;
  const start =
    version === 2
      ? fileHeader.sizeBytes
      : headerVersion3.parse(readInside(file, structure, 'header', fileHeader.sizeBytes, headerVersion3.sizeBytes))
          .headerLength;
  const named = backingFileOffset === 0n ? clusterBytes : Number(backingFileOffset);
  const end = Math.min(clusterBytes, named, file.sizeBytes);
  const found = new Map<number, Uint8Array>();
  if (start >= end) return found;
  const bytes = readInside(file, structure, 'header extensions', start, end - start);
  for (let at = 0; at + headerExtension.sizeBytes <= bytes.length;) {
    const { type, lengthBytes } = headerExtension.parse(bytes, at);
    at += headerExtension.sizeBytes;
    if (type === 0 || at + lengthBytes > bytes.length) break;
    found.set(type, bytes.subarray(at, at + lengthBytes));
    at += alignUp(lengthBytes, extensionAlignment);
  }
  return found;
}

function textOf(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined || bytes.length === 0 ? undefined : Buffer.from(bytes.subarray(0, 1024)).toString();
}

/** The L1 table covers the disk, starts on a cluster and lies in the file. Returns its offset. */
function checkL1(file: Disk, header: FileHeader, sizeBytes: number, clusterBytes: number, extendedL2: boolean): number {
  const where = { structure, field: 'l1_table_offset', offset: 40 };
  const offset = toOffset(header.l1TableOffset, file.sizeBytes, where);
  const perTable = clusterBytes / (extendedL2 ? extendedEntryBytes : entryBytes);
  const needed = Math.ceil(sizeBytes / clusterBytes / perTable);
  const enough = header.l1Size >= needed && header.l1Size <= maxL1Entries;
  checkField(structure, 'l1_size', 36, enough, `${header.l1Size} where ${needed} are needed`);
  const aligned = offset % clusterBytes === 0 && (offset > 0 || needed === 0);
  checkField(structure, 'l1_table_offset', 40, aligned, `${offset} is not the start of a cluster behind the header`);
  checkInside(file, structure, 'l1_table_offset', offset, needed * entryBytes);
  return offset;
}

/** A name with a protocol (`json:`, `nbd:`, `file:`) would have QEMU open anything at all: it is refused. */
function readBackingName(file: Disk, header: FileHeader, clusterBytes: number): string | undefined {
  if (header.backingFileOffset === 0n) return undefined;
  const where = { structure, field: 'backing_file_offset', offset: 8 };
  const offset = toOffset(header.backingFileOffset, clusterBytes, where);
  const length = header.backingFileSize;
  const usual = length > 0 && length <= maxBackingNameBytes && offset + length <= clusterBytes;
  checkField(structure, 'backing_file_size', 16, usual && offset >= fileHeader.sizeBytes, `${length} at ${offset}`);
  const name = nameOfBytes(readInside(file, structure, 'backing file name', offset, length));
  checkField(structure, 'backing file name', offset, !name.includes('\0'), 'holds a zero byte');
  if (/^[a-z][a-z0-9+.-]+:/i.test(name)) {
    throw new UnsupportedError(`qcow2: the backing file ${JSON.stringify(name.slice(0, 80))} is not a plain file`);
  }
  return name;
}

function locator(image: Image, tables: TableCache): (offset: number, lengthBytes: number) => Run {
  const { file, clusterBytes, backingName } = image;
  const l2EntryBytes = image.extendedL2 ? extendedEntryBytes : entryBytes;
  const tableCoversBytes = (clusterBytes / l2EntryBytes) * clusterBytes;
  const packed = new CompressedClusters(file, image.compression, clusterBytes);
  const absent = backingName === undefined ? 'zero' : 'parent';

  return (offset, lengthBytes) => {
    const l1At = image.l1Offset + Math.floor(offset / tableCoversBytes) * entryBytes;
    const table = Number(tables.u64be(l1At) & entryOffsetMask);
    const withinTable = offset % tableCoversBytes;
    if (table === 0) return { kind: absent, lengthBytes: Math.min(lengthBytes, tableCoversBytes - withinTable) };
    checkField(structure, 'L1 entry', l1At, table % clusterBytes === 0, `${table} is not the start of a cluster`);
    checkInside(file, structure, 'L2 table', table, clusterBytes);
    const l2At = table + Math.floor(withinTable / clusterBytes) * l2EntryBytes;
    const entry = tables.u64be(l2At);
    const within = offset % clusterBytes;
    const length = Math.min(lengthBytes, clusterBytes - within);
    if ((entry & entryFlags.compressed) !== 0n) {
      const { at, storedBytes } = compressedPlace(entry, clusterBytes);
      checkInside(file, structure, 'L2 entry', at, 1);
      return {
        kind: 'packed',
        lengthBytes: length,
        unpack: (target) => packed.read(target, within, at, storedBytes),
      };
    }
    const cluster = Number(entry & entryOffsetMask);
    const isZero = (entry & entryFlags.zero) !== 0n;
    checkField(structure, 'L2 entry', l2At, cluster % clusterBytes === 0, `${cluster} is not the start of a cluster`);
    if (image.extendedL2) {
      const bitmap = tables.u64be(l2At + entryBytes);
      return inSubclusters(bitmap, cluster, { within, lengthBytes: length }, absent, clusterBytes);
    }
    checkField(structure, 'L2 entry', l2At, image.version > 2 || !isZero, 'version 2 has no clusters of zeros');
    // Clusters that lie behind each other, or are absent behind each other, are one run.
    const isStored = cluster !== 0 && !isZero;
    const left = (tableCoversBytes - withinTable + within) / clusterBytes;
    const limit = Math.min(left, Math.ceil((within + lengthBytes) / clusterBytes));
    const count = tables.countSteps64(l2At, limit, isStored ? clusterBytes : 0);
    const runBytes = Math.min(lengthBytes, count * clusterBytes - within);
    if (isStored) return { kind: 'stored', lengthBytes: runBytes, fileOffset: cluster + within };
    return { kind: isZero ? 'zero' : absent, lengthBytes: runBytes };
  };
}

/** Where a compressed cluster lies: the split between offset and sectors depends on the cluster size. */
function compressedPlace(entry: bigint, clusterBytes: number): { at: number; storedBytes: number } {
  const sectorCountShift = BigInt(62 - (Math.log2(clusterBytes) - 8));
  const at = Number(entry & ((1n << sectorCountShift) - 1n));
  const sectors = Number((entry & (entryFlags.compressed - 1n)) >> sectorCountShift) + 1;
  return { at, storedBytes: sectors * 512 - (at % 512) };
}

/** The subclusters of one kind from `within` on: bits 0 to 31 of the bitmap say "here", bits 32 to 63 "zeros". */
function inSubclusters(
  bitmap: bigint,
  cluster: number,
  asked: { readonly within: number; readonly lengthBytes: number },
  absent: 'zero' | 'parent',
  clusterBytes: number,
): Run {
  const here = Number(bitmap & 0xffff_ffffn);
  const zeros = Number(bitmap >> 32n);
  checkField(structure, 'L2 entry', cluster, (here & zeros) === 0, 'a subcluster is here and zero');
  const kindOf = (index: number): 'stored' | 'zero' | 'parent' => {
    const bit = 2 ** index;
    if (Math.floor(here / bit) % 2 === 1) return 'stored';
    return Math.floor(zeros / bit) % 2 === 1 ? 'zero' : absent;
  };
  const subclusterBytes = clusterBytes / subclustersPerCluster;
  let index = Math.floor(asked.within / subclusterBytes);
  const kind = kindOf(index);
  do index++;
  while (index < subclustersPerCluster && kindOf(index) === kind);
  const lengthBytes = Math.min(asked.lengthBytes, index * subclusterBytes - asked.within);
  if (kind !== 'stored') return { kind, lengthBytes };
  checkField(structure, 'L2 entry', cluster, cluster !== 0, 'a subcluster without a cluster is here');
  return { kind, lengthBytes, fileOffset: cluster + asked.within };
}

export const qcow2Reader: DiskReader = {
  name: 'qcow2',
  what: 'a qcow2 file',
  qemuName: 'qcow2',
  isNamed: (fileName) => hasExtension(fileName, qcow2.extensions),
  signatures: [{ magic: 'QFI\xfb\0\0\0\x02' }, { magic: 'QFI\xfb\0\0\0\x03' }],
  open: openQcow2,
};
