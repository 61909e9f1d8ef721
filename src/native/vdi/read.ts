/** VDI files from elsewhere as disks: dynamic, static and differencing. */
import { UnsupportedError } from '../../base/errors.ts';
import { toOffset } from '../../base/ranges.ts';
import { nilGuid } from '../../bytes/guid.ts';
import type { Disk } from '../../disk/disk.ts';
import { sectorBytes } from '../geometry.ts';
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
  blockBytes,
  discardedEntry,
  freeEntry,
  header,
  minHeaderSize,
  imageType,
  mapEntryBytes,
  maxBlocks,
  maxDiskBytes,
  version,
  type Header,
} from './layout.ts';
import { vdi } from './format.ts';

const structure = 'VDI';
/** Up to here all of the map is looked at when the file is opened: 4 TiB of disk. */
const maxCheckedBlocks = 4 * 1024 * 1024;

/**
 * The disk that a VDI file holds. On success the disk owns `file`; on an error the caller still does.
 * @throws FormatError, UnsupportedError when the file is not a VDI that can be read
 */
export function openVdi(file: Disk, options: ReaderOptions = {}): NativeDisk {
  const found = readHeader(file);
  const sizeBytes = toOffset(found.diskSize, maxDiskBytes, { structure, field: 'diskSize', offset: 368 });
  const blocks = Math.ceil(sizeBytes / blockBytes);
  const enough = found.blockCount >= blocks && found.blockCount <= maxBlocks;
  checkField(structure, 'blockCount', 384, enough, `${found.blockCount} blocks for ${blocks}`);
  const mapEnd = found.blocksOffset + found.blockCount * mapEntryBytes;
  const aligned = found.blocksOffset % sectorBytes === 0 && found.dataOffset % sectorBytes === 0;
  checkField(structure, 'dataOffset', 344, aligned, 'map or blocks do not begin on a sector');
  checkField(structure, 'dataOffset', 344, found.dataOffset >= mapEnd, `${found.dataOffset} lies in the map`);
  const behindHeader = found.blocksOffset >= header.sizeBytes;
  checkField(structure, 'blocksOffset', 340, behindHeader, `${found.blocksOffset} lies in the header`);
  checkInside(file, structure, 'block map', found.blocksOffset, found.blockCount * mapEntryBytes);

  const tables = new TableCache(file, structure, options.tableCacheBytes);
  if (blocks <= maxCheckedBlocks) checkMap(file, tables, found, blocks);
  const identity = found.uuidLinkage === nilGuid ? undefined : found.uuidLinkage;
  const differencing = found.imageType === imageType.differencing;
  const parent = differencing ? openParentOf(structure, { names: [], identity, format: 'vdi' }, options) : undefined;
  const disk = mappedDisk(file, {
    structure,
    sizeBytes,
    locate: locator(tables, found, differencing),
    parent: parent === undefined ? undefined : { disk: parent, startBytes: 0 },
    owns: parent === undefined ? [file] : [file, parent],
  });
  return { ...disk, identity: found.uuidCreate };
}

function readHeader(file: Disk): Header {
  const found = header.parse(readInside(file, structure, 'header', 0, header.sizeBytes));
  if (found.version !== version) {
    throw new UnsupportedError(`VDI: version 0x${found.version.toString(16)}; 1.1 alone is read`);
  }
  checkField(structure, 'headerSize', 72, found.headerSize >= minHeaderSize, `${found.headerSize} is too short`);
  if (!Object.values<number>(imageType).includes(found.imageType)) {
    throw new UnsupportedError(`VDI: image type ${found.imageType} is none of dynamic, static and differencing`);
  }
  if (found.blockSize !== blockBytes || found.blockExtraSize !== 0) {
    throw new UnsupportedError(`VDI: blocks of ${found.blockSize}+${found.blockExtraSize} bytes; 1 MiB alone is read`);
  }
  return found;
}

/** No two blocks of the disk are one in the file. Memory: a bit for each block that the file has room for. */
function checkMap(file: Disk, tables: TableCache, found: Header, blocks: number): void {
  const room = Math.ceil(Math.max(0, file.sizeBytes - found.dataOffset) / blockBytes);
  const seen = new Uint8Array(Math.ceil(Math.min(room, maxBlocks) / 8));
  for (let block = 0; block < blocks; block++) {
    const at = found.blocksOffset + block * mapEntryBytes;
    const entry = tables.u32le(at);
    if (entry === freeEntry || entry === discardedEntry) continue;
    const byte = Math.floor(entry / 8);
    const bit = 1 << (entry % 8);
    checkField(structure, 'map entry', at, entry < room && byte < seen.length, `block ${entry} is not in the file`);
    checkField(structure, 'map entry', at, ((seen[byte] ?? 0) & bit) === 0, `block ${entry} is used twice`);
    seen[byte] = (seen[byte] ?? 0) | bit;
  }
}

function locator(
  tables: TableCache,
  found: Header,
  differencing: boolean,
): (offset: number, lengthBytes: number) => Run {
  return (offset, lengthBytes) => {
    const within = offset % blockBytes;
    const at = found.blocksOffset + Math.floor(offset / blockBytes) * mapEntryBytes;
    const entry = tables.u32le(at);
    const isStored = entry !== freeEntry && entry !== discardedEntry;
    const blocks = tables.countSteps(at, Math.ceil((within + lengthBytes) / blockBytes), isStored ? 1 : 0, true);
    const length = Math.min(lengthBytes, blocks * blockBytes - within);
    if (isStored)
      return { kind: 'stored', lengthBytes: length, fileOffset: found.dataOffset + entry * blockBytes + within };
    return { kind: differencing && entry === freeEntry ? 'parent' : 'zero', lengthBytes: length };
  };
}

export const vdiReader: DiskReader = {
  name: 'vdi',
  what: 'a VDI file',
  qemuName: 'vdi',
  isNamed: (fileName) => hasExtension(fileName, vdi.extensions),
  signatures: [{ magic: '\x7f\x10\xda\xbe', at: 64 }],
  open: openVdi,
};
