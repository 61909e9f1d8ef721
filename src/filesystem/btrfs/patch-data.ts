/**
 * Patches of file data in place. The data's checksums stand in leaves of the checksum tree, and each leaf begins with its own: all of them
 * are made again, in every copy. Nothing above a leaf speaks of its contents.
 */
import { UnsupportedError } from '../../base/errors.ts';
import { alignDown, alignUp } from '../../base/ranges.ts';
import type { NodeEdit } from '../edit/editable.ts';
import type { Patch } from '../edit/patch.ts';
import type { NodeId } from '../file-system.ts';
import type { FilePiece } from '../pieces.ts';
import { sealBlock } from './checksums.ts';
import { checksumsOf, extentsOf, type Inode } from './files.ts';
import * as format from './layout.ts';
import { treeOf, type Btrfs } from './volume.ts';

/** @throws UnsupportedError where the data are not there byte for byte, or not this file's alone */
export function locate(fs: Btrfs, inode: Inode, path: string): FilePiece[] {
  return placedExtents(fs, inode, path).map(({ fileOffset, lengthBytes, address }) => ({
    fileOffset,
    volumeOffset: fs.trees.chunks.placesOf(address, lengthBytes, 'btrfs data')[0] ?? 0,
    lengthBytes,
  }));
}

interface Placed {
  readonly fileOffset: number;
  readonly lengthBytes: number;
  readonly address: bigint;
}

function placedExtents(fs: Btrfs, inode: Inode, path: string): Placed[] {
  const refuse = (reason: string): UnsupportedError =>
    new UnsupportedError(`btrfs: ${path} ${reason}; it is not patched in place`);
  return [...extentsOf(fs, inode)].map(({ fileOffset, lengthBytes, compression, place }) => {
    if (place === undefined) throw refuse('lies in its metadata (an inline extent)');
    if (compression !== format.compressions.none) throw refuse('is compressed');
    if (referencesOf(fs, place) !== 1n) throw refuse('shares its extent with another file or a snapshot');
    const wanted = Math.min(lengthBytes, inode.sizeBytes - fileOffset);
    return { fileOffset, lengthBytes: wanted, address: place.address + BigInt(place.offset) };
  });
}

function referencesOf(fs: Btrfs, place: { readonly address: bigint; readonly diskBytes: number }): bigint {
  const key = { object: place.address, type: format.itemTypes.extent, offset: BigInt(place.diskBytes) };
  for (const { data } of fs.trees.items(treeOf(fs, format.objects.extentTree), key, key))
    return new DataView(data.buffer, data.byteOffset, data.byteLength).getBigUint64(0, true);
  return 0n;
}

/** All edits at once: two may meet in one sector, and many in one leaf of checksums. */
export function replaceData(fs: Btrfs, edits: readonly NodeEdit[], inodeOf: (node: NodeId) => Inode): Patch[] {
  const sectors = new Map<bigint, { before: Uint8Array; after: Uint8Array; hasChecksums: boolean }>();
  for (const edit of edits) editSectors(fs, edit, inodeOf(edit.node), sectors);
  const leaves = new Map<bigint, { before: Uint8Array; after: Uint8Array }>();
  const patches: Patch[] = [];
  for (const [address, { before, after, hasChecksums }] of sectors) {
    patches.push(...everywhere(fs, address, before, after));
    if (!hasChecksums) continue;
    const place = checksumsOf(fs, address, fs.sectorBytes).get(0);
    if (place === undefined) continue;
    const [where] = fs.trees.chunks.placesOf(place.leafAddress, fs.trees.nodeBytes, 'btrfs leaf');
    const known = leaves.get(place.leafAddress);
    const leaf = known ?? bothOf(fs.reader.read(where ?? 0, fs.trees.nodeBytes, 'leaf of checksums'));
    leaf.after.set(fs.trees.checksum.of(after), place.at);
    leaves.set(place.leafAddress, leaf);
  }
  for (const [address, { before, after }] of leaves) {
    sealBlock(after, fs.trees.checksum);
    patches.push(...everywhere(fs, address, before, after));
  }
  return patches;
}

function bothOf(bytes: Uint8Array): { before: Uint8Array; after: Uint8Array } {
  return { before: bytes, after: bytes.slice() };
}

function editSectors(
  fs: Btrfs,
  edit: NodeEdit,
  inode: Inode,
  sectors: Map<bigint, { before: Uint8Array; after: Uint8Array; hasChecksums: boolean }>,
): void {
  const end = edit.fileOffset + edit.after.length;
  let done = edit.fileOffset;
  for (const { fileOffset, lengthBytes, address } of placedExtents(fs, inode, edit.path)) {
    const to = Math.min(end, fileOffset + lengthBytes);
    if (fileOffset > done || to <= done) continue;
    const start = Number(address) + (done - fileOffset);
    for (
      let at = alignDown(start, fs.sectorBytes);
      at < alignUp(start + to - done, fs.sectorBytes);
      at += fs.sectorBytes
    ) {
      const [place] = fs.trees.chunks.placesOf(at, fs.sectorBytes, 'btrfs data');
      const sector = sectors.get(BigInt(at)) ?? {
        ...bothOf(fs.reader.read(place ?? 0, fs.sectorBytes, 'data')),
        hasChecksums: inode.hasChecksums,
      };
      const from = Math.max(at, start);
      const until = Math.min(at + fs.sectorBytes, start + to - done);
      const inEdit = done - edit.fileOffset + (from - start);
      sector.after.set(edit.after.subarray(inEdit, inEdit + until - from), from - at);
      sectors.set(BigInt(at), sector);
    }
    done = to;
  }
  if (done < end)
    throw new UnsupportedError(
      `btrfs: ${edit.path}: bytes ${done} to ${end} are not on the disk (a hole); not patched in place`,
    );
}

/** One patch for each copy, of the bytes that differ from the first to the last. */
function everywhere(fs: Btrfs, address: bigint, before: Uint8Array, after: Uint8Array): Patch[] {
  const first = after.findIndex((byte, at) => byte !== before[at]);
  if (first < 0) return [];
  const end = after.findLastIndex((byte, at) => byte !== before[at]) + 1;
  return fs.trees.chunks.placesOf(address, before.length, 'btrfs data').map((place) => ({
    offsetBytes: place + first,
    before: before.slice(first, end),
    after: after.slice(first, end),
  }));
}
