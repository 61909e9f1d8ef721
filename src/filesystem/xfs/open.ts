/**
 * XFS of versions 4 and 5, read-only. What is checksummed is checked. A log that was not replayed is said, and refuses patches: what it
 * would write at the next mount is not known here.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import { replaceInPlace, type FilePiece, type GuestFileSystem } from '../file-system.ts';
import { nodeFileSystem, type NodeStat } from '../node-file-system.ts';
import { VolumeReader } from '../volume-reader.ts';
import { runsOf } from './extents.ts';
import { entriesOf } from './folders.ts';
import { readInode, readSuperBlock, type Inode, type Xfs } from './inodes.ts';
import * as format from './layout.ts';
import { logIsDirty } from './log.ts';

const maxFileBytes = 512 * MiB;
const types: Readonly<Record<number, NodeStat['type']>> = { 0x8000: 'file', 0x4000: 'folder', 0xa000: 'link' };

/** @returns undefined where the volume holds no XFS */
export function openXfs(volume: Disk): GuestFileSystem | undefined {
  const fs = readSuperBlock(new VolumeReader(volume, 'XFS'));
  if (fs === undefined) return undefined;
  const trouble = logTrouble(fs);
  return nodeFileSystem<number, Inode>({
    kind: 'xfs',
    uuid: fs.super.uuid,
    label: fs.super.label,
    warnings:
      trouble === undefined ? [] : [`${trouble}: what it holds is not seen, and no file of that volume is patched`],
    root: fs.rootInode,
    open: (number) => readInode(fs, number),
    stat: statOf,
    entries: (folder) => entriesOf(fs, folder),
    read: (node) => readAll(fs, node),
    locate: (node, path) => locate(fs, node, path),
    replace(edits, locateFile) {
      if (trouble !== undefined && edits.length > 0)
        throw new UnsupportedError(
          `${trouble}, and so no file is patched in place; mount it once elsewhere, or image the machine at rest`,
        );
      return replaceInPlace({ locate: locateFile }, volume, edits);
    },
  });
}

function logTrouble(fs: Xfs): string | undefined {
  try {
    return logIsDirty(fs) ? 'the XFS log was not replayed (the machine ran when the image was made)' : undefined;
  } catch (error) {
    if (!(error instanceof UnsupportedError) && !(error instanceof FormatError)) throw error;
    return `the XFS log cannot be judged (${error.message})`;
  }
}

function statOf({ mode, sizeBytes }: Inode): NodeStat {
  return { type: types[mode - (mode % 0x1000)] ?? 'other', sizeBytes };
}

function readAll(fs: Xfs, node: Inode): Uint8Array {
  if (node.sizeBytes > maxFileBytes)
    throw new UnsupportedError(
      `XFS: inode ${node.number} has ${node.sizeBytes} bytes; files above ${maxFileBytes} are not read`,
    );
  if (node.format === format.forkFormats.local) {
    if (node.sizeBytes > node.fork.length)
      throw new FormatError(`XFS inode ${node.number}`, 'size', 0, 'is more than the inode holds');
    return node.fork.subarray(0, node.sizeBytes);
  }
  if (statOf(node).type === 'link') return readLink(fs, node);
  const whole = new Uint8Array(node.sizeBytes);
  for (const { fileOffset, volumeOffset, lengthBytes } of piecesOf(fs, node))
    whole.set(fs.reader.read(volumeOffset, lengthBytes, `data of inode ${node.number}`), fileOffset);
  return whole;
}

/** Version 5 puts a header in front of each block of a target. */
function readLink(fs: Xfs, node: Inode): Uint8Array {
  const header = fs.version === 5 ? format.linkBlockBytes : 0;
  const parts: Uint8Array[] = [];
  let wanted = node.sizeBytes;
  for (const { offset, count } of runsOf(fs, node)) {
    for (let index = 0; index < count && wanted > 0; index++) {
      const block = fs.reader.read(offset + index * fs.blockBytes, fs.blockBytes, 'link').subarray(header);
      parts.push(block.subarray(0, wanted));
      wanted -= Math.min(wanted, block.length);
    }
  }
  return Buffer.concat(parts);
}

function piecesOf(fs: Xfs, node: Inode): FilePiece[] {
  return runsOf(fs, node).flatMap(({ file, offset, count }) => {
    const fileOffset = file * fs.blockBytes;
    const lengthBytes = Math.min(count * fs.blockBytes, node.sizeBytes - fileOffset);
    return lengthBytes > 0 ? [{ fileOffset, volumeOffset: offset, lengthBytes }] : [];
  });
}

function locate(fs: Xfs, node: Inode, path: string): FilePiece[] {
  if (node.format === format.forkFormats.local)
    throw new UnsupportedError(`XFS: ${path} lies in its inode; it is not patched in place`);
  if (node.reflinked)
    throw new UnsupportedError(`XFS: ${path} may share its blocks with another file; it is not patched in place`);
  return piecesOf(fs, node);
}
