/** The bytes of files: inline, in extents, compressed by zlib or zstd; each sector held against its checksum before it is believed. */
import { inflateSync, zstdDecompressSync } from 'node:zlib';
import { FormatError, IntegrityError, UnsupportedError } from '../../base/errors.ts';
import { alignUp, toOffset } from '../../base/ranges.ts';
import { KiB, MiB } from '../../base/units.ts';
import type { Decoded } from '../../bytes/layout.ts';
import type { Disk } from '../../disk/disk.ts';
import { placedDisk } from '../pieces.ts';
import * as format from './layout.ts';
import { highestOffset, lowestOffset, type TreeRoot } from './tree.ts';
import { treeOf, type Btrfs } from './volume.ts';
import { zstdFrameBytes } from './zstd-frame.ts';

export interface Inode extends Omit<Decoded<typeof format.inodeItem>, 'sizeBytes' | 'flags'> {
  /** A subvolume's, and its number. */
  readonly tree: TreeRoot;
  readonly subvolume: bigint;
  readonly object: bigint;
  readonly sizeBytes: number;
  readonly hasChecksums: boolean;
}

export interface FileExtent {
  readonly fileOffset: number;
  readonly lengthBytes: number;
  readonly compression: number;
  readonly ramBytes: number;
  /** Of data in the item itself. */
  readonly inline?: Uint8Array;
  /** Of data on the disk: the extent's logical address and length there, and how far into it these bytes begin. */
  readonly place?: { readonly address: bigint; readonly diskBytes: number; readonly offset: number };
}

const maxExtents = 300_000;
const maxLinkBytes = 64 * KiB;
/** The kernel compresses at most so much at once. */
const maxCompressedBytes = 128 * KiB;
const maxExtentBytes = 128 * MiB;
/** Data are read, and their checksums looked up, in pieces. */
const readBytes = MiB;

/** @param object undefined for the subvolume's own folder */
export function readInode(fs: Btrfs, subvolume: bigint, object?: bigint): Inode {
  const tree = treeOf(fs, subvolume);
  const number = object ?? tree.folder;
  const key = { object: number, type: format.itemTypes.inode, offset: 0n };
  for (const { data, at } of fs.trees.items(tree, key, key)) {
    const { sizeBytes, flags, ...fields } = format.inodeItem.parse(data);
    const where = { structure: 'btrfs inode', field: 'size', offset: at };
    const size = toOffset(sizeBytes, Number.MAX_SAFE_INTEGER, where);
    const hasChecksums = (flags & format.noChecksumsFlag) === 0n;
    return { ...fields, tree, subvolume, object: number, sizeBytes: size, hasChecksums };
  }
  throw new FormatError('btrfs tree', 'inode', 0, `has no inode ${number}`);
}

/** In the order of the file, without holes and what is only preallocated. */
export function* extentsOf(fs: Btrfs, inode: Inode): Generator<FileExtent> {
  const first = { object: inode.object, type: format.itemTypes.fileExtent, offset: lowestOffset };
  let end = 0;
  let count = 0;
  for (const { key, data, at } of fs.trees.items(inode.tree, first, { ...first, offset: highestOffset })) {
    const extent = parseExtent(key.offset, data, at);
    if (extent === undefined) continue;
    if (extent.fileOffset < end)
      throw new FormatError('btrfs file extent', 'offset', at, 'overlaps the extent before it');
    end = extent.fileOffset + extent.lengthBytes;
    if (++count > maxExtents)
      throw new UnsupportedError(`btrfs: inode ${inode.object} has more than ${maxExtents} extents; it is not read`);
    if (extent.fileOffset < inode.sizeBytes) yield extent;
  }
}

function parseExtent(offset: bigint, data: Uint8Array, at: number): FileExtent | undefined {
  const where = { structure: 'btrfs file extent', offset: at };
  const { ramBytes, compression, encryption, otherEncoding, type } = format.fileExtent.parse(data);
  if (encryption !== 0 || otherEncoding !== 0) throw new UnsupportedError('btrfs: an encrypted extent is not read');
  const rest = data.subarray(format.fileExtent.sizeBytes);
  const fileOffset = toOffset(offset, Number.MAX_SAFE_INTEGER, { ...where, field: 'file offset' });
  const limit = compression === format.compressions.none ? maxExtentBytes : maxCompressedBytes;
  if (type === format.fileExtentTypes.inline) {
    const lengthBytes = toOffset(ramBytes, limit, { ...where, field: 'length' });
    if (compression === format.compressions.none && rest.length !== lengthBytes)
      throw new FormatError('btrfs file extent', 'length', at, `${rest.length} bytes where ${lengthBytes} belong`);
    return { fileOffset, lengthBytes, compression, ramBytes: lengthBytes, inline: rest };
  }
  if (type === format.fileExtentTypes.preallocated) return undefined;
  if (type !== format.fileExtentTypes.regular) throw new FormatError('btrfs file extent', 'type', at, `${type}`);
  const place = format.fileExtentPlace.parse(rest);
  if (place.diskAddress === 0n) return undefined;
  const ram = toOffset(ramBytes, limit, { ...where, field: 'length' });
  const lengthBytes = toOffset(place.lengthBytes, limit, { ...where, field: 'length' });
  const inExtent = toOffset(place.offset, limit, { ...where, field: 'offset' });
  const diskBytes = toOffset(place.diskBytes, limit, { ...where, field: 'length on the disk' });
  if (inExtent + lengthBytes > ram || (compression === format.compressions.none && inExtent + lengthBytes > diskBytes))
    throw new FormatError('btrfs file extent', 'length', at, 'reaches beyond the extent');
  return {
    fileOffset,
    lengthBytes,
    compression,
    ramBytes: ram,
    place: { address: place.diskAddress, diskBytes, offset: inExtent },
  };
}

/** A file's bytes. Of extents that are compressed, the last one that was read is kept inflated. */
export function openFile(fs: Btrfs, inode: Inode): Disk {
  const extents = [...extentsOf(fs, inode)];
  let inflated: { readonly of: FileExtent; readonly bytes: Uint8Array } | undefined;

  function readExtent(extent: FileExtent, target: Uint8Array, within: number): void {
    const { place, inline, compression, lengthBytes } = extent;
    if (place !== undefined && compression === format.compressions.none) {
      for (let done = 0; done < target.length; done += readBytes) {
        const part = target.subarray(done, done + readBytes);
        part.set(readData(fs, inode, place.address + BigInt(place.offset + within + done), part.length));
      }
      return;
    }
    if (inflated?.of !== extent) {
      const stored = inline ?? (place === undefined ? undefined : readData(fs, inode, place.address, place.diskBytes));
      const from = place?.offset ?? 0;
      const bytes =
        stored === undefined ? new Uint8Array(0) : inflate(stored, extent).subarray(from, from + lengthBytes);
      inflated = { of: extent, bytes };
    }
    const bytes = inflated.bytes.subarray(within, within + target.length);
    if (bytes.length < target.length)
      throw new FormatError('btrfs file extent', 'data', within, `${bytes.length} bytes where ${target.length} belong`);
    target.set(bytes);
  }

  return placedDisk(
    inode.sizeBytes,
    extents.map((extent) => ({ fileOffset: extent.fileOffset, lengthBytes: extent.lengthBytes, extent })),
    ({ extent }, target, within) => readExtent(extent, target, within),
  );
}

/** Where a link leads. */
export function targetOf(fs: Btrfs, link: Inode): Uint8Array {
  if (link.sizeBytes > maxLinkBytes)
    throw new FormatError('btrfs link', 'size', 0, `${link.sizeBytes} bytes, at most ${maxLinkBytes}`);
  const target = new Uint8Array(link.sizeBytes);
  openFile(fs, link).read(target, 0);
  return target;
}

/** At most `ramBytes`; fewer where the file ends within its last sector, for what is behind its end is not kept. */
function inflate(stored: Uint8Array, { compression, ramBytes }: FileExtent): Uint8Array {
  if (compression === format.compressions.none) return stored;
  if (compression === format.compressions.lzo)
    throw new UnsupportedError('btrfs: data compressed by LZO are not read; nothing else has its form');
  const limit = { maxOutputLength: ramBytes };
  try {
    return compression === format.compressions.zlib
      ? inflateSync(stored, limit)
      : zstdDecompressSync(stored.subarray(0, zstdFrameBytes(stored)), limit);
  } catch (error) {
    throw new FormatError('btrfs file extent', 'data', 0, 'cannot be decompressed', { cause: error });
  }
}

/** Whole sectors are read, so that their checksums can be checked; of two copies the first that is right counts. */
function readData(fs: Btrfs, inode: Inode, address: bigint, lengthBytes: number): Uint8Array {
  const skip = Number(address % BigInt(fs.sectorBytes));
  const whole = new Uint8Array(alignUp(skip + lengthBytes, fs.sectorBytes));
  const start = address - BigInt(skip);
  for (let at = 0; at < whole.length; at += readBytes) {
    const length = Math.min(readBytes, whole.length - at);
    whole.set(readSectors(fs, inode, start + BigInt(at), length), at);
  }
  return whole.subarray(skip, skip + lengthBytes);
}

function readSectors(fs: Btrfs, inode: Inode, address: bigint, length: number): Uint8Array {
  const places = fs.trees.chunks.placesOf(address, length, 'btrfs data');
  const expected = inode.hasChecksums ? checksumsOf(fs, address, length) : new Map<number, ChecksumPlace>();
  if (inode.hasChecksums && expected.size < length / fs.sectorBytes)
    throw new IntegrityError(`btrfs data at ${address}`, 'one for each sector', 'missing');
  let failure: unknown;
  for (const place of places) {
    const bytes = fs.reader.readData(place, length);
    const bad = [...expected].find(([at, { stored }]) => {
      const actual = fs.trees.checksum.of(bytes.subarray(at, at + fs.sectorBytes));
      return !Buffer.from(actual).equals(stored);
    });
    if (bad === undefined) return bytes;
    failure ??= new IntegrityError(`btrfs data at byte ${place + bad[0]}`, 'what the checksum tree holds', 'another');
  }
  throw failure;
}

export interface ChecksumPlace {
  readonly stored: Uint8Array;
  /** The leaf that holds it, and where in it. */
  readonly leafAddress: bigint;
  readonly at: number;
}

/** The checksums of the sectors of a range, by their place in it. A sector that has none is not among them. */
export function checksumsOf(fs: Btrfs, address: bigint, length: number): Map<number, ChecksumPlace> {
  const tree = treeOf(fs, format.objects.checksumTree);
  const { sizeBytes } = fs.trees.checksum;
  const key = (offset: bigint): format.Key => ({
    object: format.objects.checksums,
    type: format.itemTypes.checksum,
    offset,
  });
  const found = new Map<number, ChecksumPlace>();
  // The first item may begin before the range.
  const first = fs.trees.lastUpTo(tree, key(address))?.key;
  const from =
    first?.object === format.objects.checksums && first.type === format.itemTypes.checksum ? first : key(address);
  for (const { key: itemKey, data, leaf, at } of fs.trees.items(tree, from, key(address + BigInt(length) - 1n))) {
    for (let index = 0; (index + 1) * sizeBytes <= data.length; index++) {
      const place = Number(itemKey.offset - address) + index * fs.sectorBytes;
      if (place < 0 || place >= length) continue;
      const start = index * sizeBytes;
      found.set(place, { stored: data.subarray(start, start + sizeBytes), leafAddress: leaf.address, at: at + start });
    }
  }
  return found;
}
