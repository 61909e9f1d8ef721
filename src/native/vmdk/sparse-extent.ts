/** One sparse extent: grains named by a directory of tables, plain or compressed. */
import { inflateSync } from 'node:zlib';
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { nameOfBytes } from '../../base/names.ts';
import { isPowerOfTwo, toOffset } from '../../base/ranges.ts';
import type { Disk } from '../../disk/disk.ts';
import type { Mapping, Run } from '../mapped-disk.ts';
import { inflatedAtOnce, PackedUnits } from '../packed-units.ts';
import { checkField, checkInside, readInside } from '../reader.ts';
import { TableCache } from '../table-cache.ts';
import {
  compressionDeflate,
  directoryAtEnd,
  entriesPerTable,
  entryBytes,
  grainMarker,
  maxDescriptorBytes,
  maxGrainSectors,
  minGrainSectors,
  sparseFlags,
  sparseHeader,
  type SparseHeader,
} from './layout.ts';
import { sectorBytes } from '../geometry.ts';

const structure = 'VMDK sparse extent';
/** The footer of a stream lies before the end-of-stream marker, the last sector. */
const footerDistanceBytes = 2 * sectorBytes;

export interface SparseExtent {
  readonly sizeBytes: number;
  /** The embedded descriptor; undefined in the parts of a split disk. */
  readonly descriptor: string | undefined;
  readonly locate: (absent: 'zero' | 'parent') => Mapping['locate'];
}

/** @throws FormatError, UnsupportedError when the file is not a sparse extent that can be read */
export function openSparseExtent(file: Disk, tableCacheBytes?: number): SparseExtent {
  const first = parseHeader(file, 0);
  const header = first.gdOffset === directoryAtEnd ? parseHeader(file, file.sizeBytes - footerDistanceBytes) : first;
  const grainBytes = Number(header.grainSize) * sectorBytes;
  const sizeBytes = toSectors(header.capacity, 'capacity', 12) * sectorBytes;
  const directoryBytes = Math.ceil(sizeBytes / grainBytes / entriesPerTable) * entryBytes;
  const directory = toSectors(header.gdOffset, 'gdOffset', 56) * sectorBytes;
  checkField(structure, 'gdOffset', 56, directory >= sparseHeader.sizeBytes, 'the directory lies in the header');
  checkInside(file, structure, 'gdOffset', directory, directoryBytes);
  const tables = new TableCache(file, structure, tableCacheBytes);
  const grains = { file, header, grainBytes, sizeBytes, directory, tables };
  return {
    sizeBytes,
    descriptor: readDescriptor(file, header),
    locate: (absent) => locator(grains, absent),
  };
}

interface Grains {
  readonly file: Disk;
  readonly header: SparseHeader;
  readonly grainBytes: number;
  readonly sizeBytes: number;
  readonly directory: number;
  readonly tables: TableCache;
}

function parseHeader(file: Disk, offset: number): SparseHeader {
  const header = sparseHeader.parse(readInside(file, structure, 'header', offset, sparseHeader.sizeBytes));
  if (header.version < 1 || header.version > 3) {
    throw new UnsupportedError(`VMDK: a sparse extent of version ${header.version}; 1 to 3 are read`);
  }
  const grain = Number(header.grainSize);
  const usual = isPowerOfTwo(grain) && grain >= minGrainSectors && grain <= maxGrainSectors;
  checkField(structure, 'grainSize', offset + 20, usual, `${header.grainSize} sectors are no grain`);
  if (header.numGTEsPerGT !== entriesPerTable) {
    throw new UnsupportedError(
      `VMDK: grain tables of ${header.numGTEsPerGT} entries; ${entriesPerTable} alone are read`,
    );
  }
  const isCompressed = (header.flags & sparseFlags.compressed) !== 0;
  const isMarked = (header.flags & sparseFlags.markers) !== 0;
  if (isCompressed && (header.compressAlgorithm !== compressionDeflate || !isMarked)) {
    throw new UnsupportedError(`VMDK: compression ${header.compressAlgorithm}; deflate with grain markers is read`);
  }
  return header;
}

/** Sectors of a header field as a number whose bytes are a safe integer. */
function toSectors(value: bigint, field: string, offset: number): number {
  return toOffset(value, 2 ** 42, { structure, field, offset });
}

function readDescriptor(file: Disk, header: SparseHeader): string | undefined {
  if (header.descriptorOffset === 0n) return undefined;
  const offset = toSectors(header.descriptorOffset, 'descriptorOffset', 28) * sectorBytes;
  const lengthBytes = toSectors(header.descriptorSize, 'descriptorSize', 36) * sectorBytes;
  const usual = lengthBytes > 0 && lengthBytes <= maxDescriptorBytes;
  checkField(structure, 'descriptorSize', 36, usual, `${lengthBytes} bytes are no descriptor`);
  const text = nameOfBytes(readInside(file, structure, 'descriptor', offset, lengthBytes));
  return text.split('\0', 1)[0];
}

function locator(grains: Grains, absent: 'zero' | 'parent'): (offset: number, lengthBytes: number) => Run {
  const { file, header, grainBytes, directory, tables } = grains;
  const tableCoversBytes = grainBytes * entriesPerTable;
  const isCompressed = (header.flags & sparseFlags.compressed) !== 0;
  const hasZeroedGrains = (header.flags & sparseFlags.zeroedGrains) !== 0;
  const descriptorEnd = Number(header.descriptorOffset + header.descriptorSize) * sectorBytes;
  const packed = new PackedUnits(file);

  return (offset, lengthBytes) => {
    const directoryAt = directory + Math.floor(offset / tableCoversBytes) * entryBytes;
    const table = tables.u32le(directoryAt) * sectorBytes;
    const withinTable = offset % tableCoversBytes;
    if (table === 0) return { kind: absent, lengthBytes: Math.min(lengthBytes, tableCoversBytes - withinTable) };
    const grain = Math.floor(withinTable / grainBytes);
    const entryAt = table + grain * entryBytes;
    const sector = tables.u32le(entryAt);
    const within = offset % grainBytes;
    // Grains that lie behind each other, or are absent behind each other, are one run.
    const isPlace = sector > 1 || !hasZeroedGrains;
    const step = sector === 0 || !isPlace ? 0 : grainBytes / sectorBytes;
    const limit = Math.min(entriesPerTable - grain, Math.ceil((within + lengthBytes) / grainBytes));
    const count = isCompressed && step > 0 ? 1 : tables.countSteps(entryAt, limit, step, true);
    const length = Math.min(lengthBytes, count * grainBytes - within);
    if (sector === 0) return { kind: absent, lengthBytes: length };
    if (!isPlace) return { kind: 'zero', lengthBytes: length };
    const at = sector * sectorBytes;
    checkField(structure, 'grain table entry', entryAt, at >= descriptorEnd, `sector ${sector} is no grain`);
    if (!isCompressed) return { kind: 'stored', lengthBytes: length, fileOffset: at + within };
    checkInside(file, structure, 'grain', at, grainMarker.sizeBytes);
    return {
      kind: 'packed',
      lengthBytes: length,
      unpack: (target) => packed.read(target, within, at, () => unpackGrain(grains, packed, at, offset - within)),
    };
  };
}

/** The grain whose marker lies at `at`: it must be the one for this place of the disk. Only the disk's last grain may be short. */
function unpackGrain(grains: Grains, packed: PackedUnits, at: number, diskOffset: number): Uint8Array {
  const { file, grainBytes, sizeBytes } = grains;
  const marker = grainMarker.parse(readInside(file, structure, 'grain marker', at, grainMarker.sizeBytes));
  const isRight = marker.firstSector === BigInt(diskOffset / sectorBytes);
  checkField(
    structure,
    'grain marker',
    at,
    isRight,
    `is for sector ${marker.firstSector}, not ${diskOffset / sectorBytes}`,
  );
  // Deflate makes nothing noticeably longer than it was.
  checkField(structure, 'grain marker', at, marker.dataSize <= 2 * grainBytes, `has ${marker.dataSize} bytes`);
  checkInside(file, structure, 'grain', at + grainMarker.sizeBytes, marker.dataSize);
  const stored = packed.stored(at + grainMarker.sizeBytes, marker.dataSize);
  let unpacked: Uint8Array;
  try {
    unpacked = inflateSync(stored, inflatedAtOnce(grainBytes));
  } catch (error) {
    throw new FormatError(structure, 'grain', at, 'does not decompress', { cause: error });
  }
  const needed = Math.min(grainBytes, sizeBytes - diskOffset);
  checkField(structure, 'grain', at, unpacked.length >= needed, `decompresses to ${unpacked.length} bytes`);
  return unpacked;
}
