/**
 * XFS of versions 4 and 5, read-only. What is checksummed is checked. A log that was not replayed is said, and refuses patches: what it
 * would write at the next mount is not known here.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import { replaceInPlace, type EditableFileSystem } from '../edit/editable.ts';
import { inodeFileSystem } from '../inode-file-system.ts';
import { piecesDisk, type FilePiece } from '../pieces.ts';
import { VolumeReader } from '../volume-reader.ts';
import { runsOf } from './extents.ts';
import { entriesOf } from './folders.ts';
import { readInode, readSuperBlock, type Inode, type Xfs } from './inodes.ts';
import * as format from './layout.ts';
import { logIsDirty } from './log.ts';
import { statOf } from './stat.ts';

/** The format's own limit. */
const maxLinkBytes = 1024;

/** @returns undefined where the volume holds no XFS */
export function openXfs(volume: Disk): EditableFileSystem | undefined {
  const fs = readSuperBlock(new VolumeReader(volume, 'XFS'));
  if (fs === undefined) return undefined;
  const trouble = logTrouble(fs);
  const locateIn = (node: Inode, path: string): FilePiece[] => locate(fs, node, path);
  return inodeFileSystem<Inode>({
    kind: 'xfs',
    uuid: fs.super.uuid,
    label: fs.super.label,
    warnings:
      trouble === undefined ? [] : [`${trouble}: what it holds is not seen, and no file of that volume is patched`],
    root: BigInt(fs.rootInode),
    inode: (node) => readInode(fs, Number(node)),
    stat: statOf,
    entries: (folder) => entriesOf(fs, folder),
    open: (file) => piecesDisk(volume, file.sizeBytes, piecesOf(fs, file)),
    target: (link) => targetOf(fs, link),
    locate: locateIn,
    replace(edits, inodeOf) {
      if (trouble !== undefined && edits.length > 0)
        throw new UnsupportedError(
          `${trouble}, and so no file is patched in place; mount it once elsewhere, or image the machine at rest`,
        );
      return replaceInPlace({ locate: (node, path) => locateIn(inodeOf(node), path) }, volume, edits);
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

function targetOf(fs: Xfs, link: Inode): Uint8Array {
  const { number, sizeBytes, fork } = link;
  const isLocal = link.format === format.forkFormats.local;
  if (sizeBytes > (isLocal ? fork.length : maxLinkBytes))
    throw new FormatError(`XFS inode ${number}`, 'size', 0, 'is more than a link may have');
  return isLocal ? fork.subarray(0, sizeBytes) : readLink(fs, link);
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
