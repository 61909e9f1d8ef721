/**
 * ext2, ext3 and ext4, read-only: files by extents or block maps, data inside inodes, folders read from end to end (the index of a large
 * one hides in entries that look unused). A journal that was not replayed is said, and refuses patches: what it would write at the next
 * mount is not known here.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { nameOfBytes } from '../../base/names.ts';
import { MiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import { memoryDisk } from '../../disk/memory.ts';
import { replaceInPlace, type EditableFileSystem } from '../edit/editable.ts';
import { typeOfMode, type FolderEntry } from '../file-system.ts';
import { inodeFileSystem } from '../inode-file-system.ts';
import { piecesDisk, type FilePiece } from '../pieces.ts';
import { VolumeReader } from '../volume-reader.ts';
import { extentRuns, mappedRuns, type BlockRun } from './blocks.ts';
import { inlineBytes, inlineParts } from './inline-data.ts';
import { readInode, readSuperBlock, type Ext4, type Inode } from './inodes.ts';
import * as format from './layout.ts';
import { statOf } from './stat.ts';

const rootInode = 2n;
const maxFolderBytes = 64 * MiB;
const maxLinkBytes = 64 * 1024;
const fastLinkBytes = 60;

/** @returns undefined where the volume holds no file system of this family */
export function openExt4(volume: Disk): EditableFileSystem | undefined {
  const fs = readSuperBlock(new VolumeReader(volume, 'ext4'));
  if (fs === undefined) return undefined;
  const dirty = (fs.super.featureIncompatible & format.incompatible.recover) !== 0;
  const locateIn = (node: Inode, path: string): FilePiece[] => locate(fs, node, path);
  return inodeFileSystem<Inode>({
    kind: kindOf(fs),
    uuid: fs.super.uuid,
    label: fs.super.volumeName,
    warnings: dirty
      ? [
          'the ext4 journal was not replayed (the machine ran when the image was made): what it holds is not seen, and no file of that volume is patched',
        ]
      : [],
    root: rootInode,
    inode: (node) => readInode(fs, Number(node)),
    stat: statOf,
    entries: (folder) => entriesOf(fs, folder),
    open: (file) => openFile(fs, volume, file),
    target: (link) => targetOf(fs, link),
    locate: locateIn,
    replace(edits, inodeOf) {
      if (dirty && edits.length > 0)
        throw new UnsupportedError(
          'ext4: its journal was not replayed, and so no file is patched in place; mount it once elsewhere, or image the machine at rest',
        );
      return replaceInPlace({ locate: (node, path) => locateIn(inodeOf(node), path) }, volume, edits);
    },
  });
}

function kindOf({ super: { featureIncompatible, featureCompatible } }: Ext4): string {
  if ((featureIncompatible & format.incompatible.extents) !== 0) return 'ext4';
  return (featureCompatible & 0x4) === 0 ? 'ext2' : 'ext3';
}

function has(node: Inode, flag: keyof typeof format.inodeFlags): boolean {
  return (node.flags & format.inodeFlags[flag]) !== 0;
}

function runsOf(fs: Ext4, node: Inode): BlockRun[] {
  return has(node, 'extents')
    ? extentRuns(fs, node.block)
    : mappedRuns(fs, node.block, Math.ceil(node.sizeBytes / fs.blockBytes));
}

function piecesOf(fs: Ext4, node: Inode): FilePiece[] {
  return runsOf(fs, node).flatMap(({ file, disk, count }) => {
    const fileOffset = file * fs.blockBytes;
    const lengthBytes = Math.min(count * fs.blockBytes, node.sizeBytes - fileOffset);
    return lengthBytes > 0 ? [{ fileOffset, volumeOffset: disk * fs.blockBytes, lengthBytes }] : [];
  });
}

function openFile(fs: Ext4, volume: Disk, node: Inode): Disk {
  if (has(node, 'encrypted')) throw new UnsupportedError(`ext4: inode ${node.number} is encrypted; it is not read`);
  if (has(node, 'inlineData')) return memoryDisk(inlineBytes(node));
  return piecesDisk(volume, node.sizeBytes, piecesOf(fs, node));
}

function targetOf(fs: Ext4, link: Inode): Uint8Array {
  const isFast = !has(link, 'extents') && !has(link, 'inlineData') && link.sizeBytes < fastLinkBytes;
  return isFast ? link.block.subarray(0, link.sizeBytes) : readWhole(fs, link, maxLinkBytes);
}

/** Of a folder or a link: what the file system is made of. */
function readWhole(fs: Ext4, node: Inode, limitBytes: number): Uint8Array {
  const { number, sizeBytes } = node;
  if (has(node, 'encrypted')) throw new UnsupportedError(`ext4: inode ${number} is encrypted; it is not read`);
  if (sizeBytes > limitBytes)
    throw new UnsupportedError(
      `ext4: ${typeOfMode(node.mode)} ${number} has ${sizeBytes} bytes, more than the ${limitBytes} that are read`,
    );
  if (has(node, 'inlineData')) return inlineBytes(node);
  const whole = new Uint8Array(sizeBytes);
  for (const { fileOffset, volumeOffset, lengthBytes } of piecesOf(fs, node))
    whole.set(fs.reader.read(volumeOffset, lengthBytes, `data of inode ${number}`), fileOffset);
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
  return piecesOf(fs, node);
}

function* entriesOf(fs: Ext4, folder: Inode): Generator<FolderEntry> {
  if (has(folder, 'inlineData')) {
    const [first, rest] = inlineParts(folder);
    // The first four bytes are the number of the folder above.
    yield* entriesIn(first.subarray(4), folder.number);
    yield* entriesIn(rest, folder.number);
    return;
  }
  const whole = readWhole(fs, folder, maxFolderBytes);
  for (let at = 0; at + fs.blockBytes <= whole.length; at += fs.blockBytes)
    yield* entriesIn(whole.subarray(at, at + fs.blockBytes), folder.number);
}

function* entriesIn(block: Uint8Array, folder: number): Generator<FolderEntry> {
  for (let at = 0; at + format.folderEntry.sizeBytes <= block.length;) {
    const { inode, length, nameLength } = format.folderEntry.parse(block, at);
    // A block of 64 KiB that is one entry has no room for its own length.
    const next = length === 0 || length === 0xffff ? at + 0x10000 : at + length;
    const nameAt = at + format.folderEntry.sizeBytes;
    if (next <= nameAt - 1 || next > block.length || (inode !== 0 && nameAt + nameLength > next))
      throw new FormatError(`ext4 folder ${folder}`, 'entry', at, `${length} bytes with a name of ${nameLength}`);
    const name = nameOfBytes(block.subarray(nameAt, nameAt + nameLength));
    if (inode !== 0 && nameLength > 0 && name !== '.' && name !== '..') yield { name, node: BigInt(inode) };
    at = next;
  }
}
