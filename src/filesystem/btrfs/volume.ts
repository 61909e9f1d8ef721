/** The super block, the chunks and the trees of a btrfs on one disk. */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { nameOfBytes } from '../../base/names.ts';
import { isPowerOfTwo } from '../../base/ranges.ts';
import { KiB } from '../../base/units.ts';
import type { VolumeReader } from '../volume-reader.ts';
import { checkBlock, checksumOf } from './checksums.ts';
import { ChunkMap } from './chunks.ts';
import * as format from './layout.ts';
import { highestOffset, lowestOffset, Trees, type TreeRoot } from './tree.ts';

export interface Btrfs {
  readonly super: format.SuperBlock;
  readonly reader: VolumeReader;
  readonly trees: Trees;
  readonly rootTree: TreeRoot;
  readonly sectorBytes: number;
}

/** @returns undefined where there is no btrfs */
export function readVolume(reader: VolumeReader): Btrfs | undefined {
  if (reader.sizeBytes < format.superBlockOffset + format.superBlockBytes) return undefined;
  const bytes = reader.read(format.superBlockOffset, format.superBlockBytes, 'super block');
  if (Buffer.from(bytes.subarray(0x40, 0x48)).toString('latin1') !== '_BHRfS_M') return undefined;
  const found = format.superBlock.parse(bytes);
  const checksum = checksumOf(found.checksumType);
  checkBlock(bytes, checksum, 'btrfs super block');
  checkFields(found);
  const chunks = new ChunkMap();
  readSystemChunks(found, bytes, chunks);
  const fsid = (found.incompatible & format.metadataUuidBit) === 0n ? found.fsid : found.metadataUuid;
  const trees = new Trees(reader, chunks, checksum, found.nodeSize, fsid);
  const chunkGeneration = new DataView(bytes.buffer).getBigUint64(0xa4, true);
  const chunkTree = { address: found.chunkRoot, level: found.chunkRootLevel, generation: chunkGeneration };
  for (const item of trees.items(chunkTree, chunkKey(lowestOffset), chunkKey(highestOffset)))
    chunks.add(item.key.offset, item.data, item.at, found.deviceId);
  const rootTree = { address: found.root, level: found.rootLevel, generation: found.generation };
  return { super: found, reader, trees, rootTree, sectorBytes: found.sectorSize };
}

const chunkObject = 256n;
const chunkKey = (offset: bigint): format.Key => ({ object: chunkObject, type: format.itemTypes.chunk, offset });

function checkFields(found: format.SuperBlock): void {
  const unknown = found.incompatible - (found.incompatible & format.incompatibleKnown);
  if (unknown !== 0n) throw new UnsupportedError(`btrfs: features 0x${unknown.toString(16)} are not read`);
  if (found.deviceCount !== 1n)
    throw new UnsupportedError(`btrfs: it spans ${found.deviceCount} disks; only one is read`);
  const { nodeSize, sectorSize } = found;
  if (!isPowerOfTwo(sectorSize) || sectorSize < 4 * KiB || sectorSize > 64 * KiB)
    throw broken('sector size', `${sectorSize}`);
  if (!isPowerOfTwo(nodeSize) || nodeSize < sectorSize || nodeSize > 64 * KiB) throw broken('node size', `${nodeSize}`);
}

/** Of the chunk tree itself: in the super block, a key and a chunk after another. */
function readSystemChunks(found: format.SuperBlock, bytes: Uint8Array, chunks: ChunkMap): void {
  if (found.systemChunksBytes > format.systemChunksRoom)
    throw broken('system chunks', `${found.systemChunksBytes} bytes`);
  const end = format.systemChunksOffset + found.systemChunksBytes;
  for (let at = format.systemChunksOffset; at < end;) {
    const key = format.key.parse(bytes, at);
    const chunkAt = at + format.keyBytes;
    if (key.type !== format.itemTypes.chunk || chunkAt + format.chunk.sizeBytes > end)
      throw broken('system chunks', 'are cut off');
    const { stripeCount } = format.chunk.parse(bytes, chunkAt);
    const next = chunkAt + format.chunk.sizeBytes + stripeCount * format.stripe.sizeBytes;
    if (next > end) throw broken('system chunks', 'are cut off');
    chunks.add(key.offset, bytes.subarray(chunkAt, next), chunkAt, found.deviceId);
    at = next;
  }
}

/** The root of a tree by its object, as the root tree has it. */
export function treeOf(fs: Btrfs, object: bigint): TreeRoot & { readonly folder: bigint } {
  const first = { object, type: format.itemTypes.root, offset: lowestOffset };
  const last = { ...first, offset: highestOffset };
  for (const item of fs.trees.items(fs.rootTree, first, last)) {
    const { address, level, generation, folder } = format.rootItem.parse(item.data);
    return { address, level, generation, folder };
  }
  throw new FormatError('btrfs root tree', 'tree', 0, `has no tree ${object}`);
}

/** The subvolume that is mounted when none is named. */
export function defaultSubvolume(fs: Btrfs): bigint {
  const first = { object: format.objects.rootFolder, type: format.itemTypes.folderItem, offset: lowestOffset };
  for (const item of fs.trees.items(fs.rootTree, first, { ...first, offset: highestOffset })) {
    for (const { name, location } of folderItems(item.data, item.at)) if (name === 'default') return location.object;
  }
  return format.objects.topLevel;
}

/** The entries that one item holds: one, or several whose names have one hash. */
export function* folderItems(data: Uint8Array, at: number): Generator<{ name: string; location: format.Key }> {
  for (let offset = 0; offset < data.length;) {
    const entry = format.folderItem.parse(data, offset);
    const nameAt = offset + format.folderItem.sizeBytes;
    const next = nameAt + entry.nameLength + entry.dataLength;
    if (next > data.length) throw new FormatError('btrfs directory item', 'name', at + offset, 'is cut off');
    const name = nameOfBytes(data.subarray(nameAt, nameAt + entry.nameLength));
    yield { name, location: format.key.parse(entry.location) };
    offset = next;
  }
}

function broken(field: string, detail: string): FormatError {
  return new FormatError('btrfs super block', field, format.superBlockOffset, detail);
}
