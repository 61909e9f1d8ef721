/**
 * ext2, ext3 and ext4, read-only: files by extents or block maps, data inside inodes, folders read from end to end (the index of a large
 * one hides in entries that look unused). A journal that was not replayed is said, and refuses patches: what it would write at the next
 * mount is not known here.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import { replaceInPlace, type FilePiece, type GuestFileSystem } from '../file-system.ts';
import { nodeFileSystem, type FolderEntry, type NodeStat } from '../node-file-system.ts';
import { VolumeReader } from '../volume-reader.ts';
import { extentRuns, mappedRuns, type BlockRun } from './blocks.ts';
import { inlineBytes, inlineParts } from './inline-data.ts';
import { readInode, readSuperBlock, type Ext4, type Inode } from './inodes.ts';
import * as format from './layout.ts';

const rootInode = 2;
/** Of a file whose blocks are looked up at all. */
const maxFileBytes = 512 * MiB;
const maxFolderBytes = 64 * MiB;
const fastLinkBytes = 60;
const folderTypes: Readonly<Record<number, NodeStat['type']>> = { 0x8000: 'file', 0x4000: 'folder', 0xa000: 'link' };

/** @returns undefined where the volume holds no file system of this family */
export function openExt4(volume: Disk): GuestFileSystem | undefined {
  const fs = readSuperBlock(new VolumeReader(volume, 'ext4'));
  if (fs === undefined) return undefined;
  const dirty = (fs.super.featureIncompatible & format.incompatible.recover) !== 0;
  return nodeFileSystem<number, Inode>({
    kind: kindOf(fs),
    uuid: fs.super.uuid,
    label: fs.super.volumeName,
    warnings: dirty
      ? [
          'the ext4 journal was not replayed (the machine ran when the image was made): what it holds is not seen, and no file of that volume is patched',
        ]
      : [],
    root: rootInode,
    open: (number) => readInode(fs, number),
    stat: statOf,
    entries: (folder) => entriesOf(fs, folder),
    read: (node) => readAll(fs, node),
    locate: (node, path) => locate(fs, node, path),
    replace(edits, locateFile) {
      if (dirty && edits.length > 0)
        throw new UnsupportedError(
          'ext4: its journal was not replayed, and so no file is patched in place; mount it once elsewhere, or image the machine at rest',
        );
      return replaceInPlace({ locate: locateFile }, volume, edits);
    },
  });
}

function kindOf({ super: { featureIncompatible, featureCompatible } }: Ext4): string {
  if ((featureIncompatible & format.incompatible.extents) !== 0) return 'ext4';
  return (featureCompatible & 0x4) === 0 ? 'ext2' : 'ext3';
}

function statOf({ mode, sizeBytes }: Inode): NodeStat {
  return { type: folderTypes[mode - (mode % 0x1000)] ?? 'other', sizeBytes };
}

function has(node: Inode, flag: keyof typeof format.inodeFlags): boolean {
  return (node.flags & format.inodeFlags[flag]) !== 0;
}

function runsOf(fs: Ext4, node: Inode): BlockRun[] {
  if (node.sizeBytes > maxFileBytes)
    throw new UnsupportedError(
      `ext4: inode ${node.number} has ${node.sizeBytes} bytes; files above ${maxFileBytes} are not read`,
    );
  return has(node, 'extents')
    ? extentRuns(fs, node.block)
    : mappedRuns(fs, node.block, Math.ceil(node.sizeBytes / fs.blockBytes));
}

function readAll(fs: Ext4, node: Inode): Uint8Array {
  if (has(node, 'encrypted')) throw new UnsupportedError(`ext4: inode ${node.number} is encrypted; it is not read`);
  if (has(node, 'inlineData')) return inlineBytes(node);
  const isLink = statOf(node).type === 'link';
  if (isLink && !has(node, 'extents') && node.sizeBytes < fastLinkBytes) return node.block.subarray(0, node.sizeBytes);
  const runs = runsOf(fs, node);
  const whole = new Uint8Array(node.sizeBytes);
  for (const { file, disk, count } of runs) {
    const at = file * fs.blockBytes;
    const length = Math.min(count * fs.blockBytes, whole.length - at);
    if (length > 0) whole.set(fs.reader.read(disk * fs.blockBytes, length, `data of inode ${node.number}`), at);
  }
  return whole;
}

function locate(fs: Ext4, node: Inode, path: string): FilePiece[] {
  const reasons = {
    encrypted: 'is encrypted',
    verity: 'is sealed by fs-verity',
    inlineData: 'lies in its inode',
  } as const;
  for (const [flag, reason] of Object.entries(reasons)) {
    if (has(node, flag as keyof typeof reasons))
      throw new UnsupportedError(`ext4: ${path} ${reason}; it is not patched in place`);
  }
  return runsOf(fs, node).flatMap(({ file, disk, count }) => {
    const fileOffset = file * fs.blockBytes;
    const lengthBytes = Math.min(count * fs.blockBytes, node.sizeBytes - fileOffset);
    return lengthBytes > 0 ? [{ fileOffset, volumeOffset: disk * fs.blockBytes, lengthBytes }] : [];
  });
}

function* entriesOf(fs: Ext4, folder: Inode): Generator<FolderEntry<number>> {
  if (folder.sizeBytes > maxFolderBytes)
    throw new UnsupportedError(
      `ext4: folder ${folder.number} has ${folder.sizeBytes} bytes, more than the ${maxFolderBytes} that are read`,
    );
  if (has(folder, 'inlineData')) {
    const [first, rest] = inlineParts(folder);
    // The first four bytes are the number of the folder above.
    yield* entriesIn(first.subarray(4), folder.number);
    yield* entriesIn(rest, folder.number);
    return;
  }
  const whole = readAll(fs, folder);
  for (let at = 0; at + fs.blockBytes <= whole.length; at += fs.blockBytes)
    yield* entriesIn(whole.subarray(at, at + fs.blockBytes), folder.number);
}

function* entriesIn(block: Uint8Array, folder: number): Generator<FolderEntry<number>> {
  for (let at = 0; at + format.folderEntry.sizeBytes <= block.length;) {
    const { inode, length, nameLength } = format.folderEntry.parse(block, at);
    // A block of 64 KiB that is one entry has no room for its own length.
    const next = length === 0 || length === 0xffff ? at + 0x10000 : at + length;
    const nameAt = at + format.folderEntry.sizeBytes;
    if (next <= nameAt - 1 || next > block.length || (inode !== 0 && nameAt + nameLength > next))
      throw new FormatError(`ext4 folder ${folder}`, 'entry', at, `${length} bytes with a name of ${nameLength}`);
    const name = Buffer.from(block.subarray(nameAt, nameAt + nameLength)).toString('utf8');
    if (inode !== 0 && nameLength > 0 && name !== '.' && name !== '..') yield { name, id: inode };
    at = next;
  }
}
