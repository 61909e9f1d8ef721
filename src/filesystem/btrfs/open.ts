/**
 * btrfs on one disk (single or DUP), read-only: its default subvolume as the root, the others where they lie in it, and every subvolume of the
 * top level by itself. Every checksum is checked; patches make those of data again.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import type { EditableFileSystem } from '../edit/editable.ts';
import type { FolderEntry, NodeId } from '../file-system.ts';
import { inodeFileSystem } from '../inode-file-system.ts';
import { VolumeReader } from '../volume-reader.ts';
import { openFile, readInode, targetOf, type Inode } from './files.ts';
import * as format from './layout.ts';
import { locate, replaceData } from './patch-data.ts';
import { statOf } from './stat.ts';
import { highestOffset, lowestOffset } from './tree.ts';
import { defaultSubvolume, folderItems, readVolume, type Btrfs } from './volume.ts';

const maxSubvolumes = 64;

/** @returns undefined where the volume holds no btrfs; else its default subvolume, with the others as `subvolumes` */
export function openBtrfs(volume: Disk): EditableFileSystem | undefined {
  const fs = readVolume(new VolumeReader(volume, 'btrfs'));
  if (fs === undefined) return undefined;
  const dirty = fs.super.logRoot !== 0n;
  return inodeFileSystem<Inode>({
    kind: 'btrfs',
    uuid: fs.super.fsid,
    label: fs.super.label,
    warnings: dirty
      ? [
          'the btrfs log was not replayed (the machine ran when the image was made): what was written last is not seen, and no file of that volume is patched',
        ]
      : [],
    root: rootOf(defaultSubvolume(fs)),
    subvolumes: () => topLevelSubvolumes(fs),
    inode: (node) => inodeOf(fs, node),
    stat: statOf,
    entries: (folder) => entriesOf(fs, folder),
    open: (file) => openFile(fs, file),
    target: (link) => targetOf(fs, link),
    locate: (file, path) => locate(fs, file, path),
    replace(edits, inodes) {
      if (dirty && edits.length > 0)
        throw new UnsupportedError(
          'btrfs: its log was not replayed, and so no file is patched in place; mount it once elsewhere, or image the machine at rest',
        );
      return replaceData(fs, edits, inodes);
    },
  });
}

/** A node is a subvolume and an object in it; no object: the subvolume's own folder. Objects are below this. */
const objects = 2n ** 64n;

function nodeOf(subvolume: bigint, object: bigint): NodeId {
  return subvolume * objects + object;
}

function rootOf(subvolume: bigint): NodeId {
  return nodeOf(subvolume, 0n);
}

function inodeOf(fs: Btrfs, node: NodeId): Inode {
  const object = node % objects;
  return readInode(fs, node / objects, object === 0n ? undefined : object);
}

function* entriesOf(fs: Btrfs, folder: Inode): Generator<FolderEntry> {
  const first = { object: folder.object, type: format.itemTypes.folderIndex, offset: lowestOffset };
  for (const { data, at } of fs.trees.items(folder.tree, first, { ...first, offset: highestOffset })) {
    for (const { name, location } of folderItems(data, at)) {
      if (location.type === format.itemTypes.inode) yield { name, node: nodeOf(folder.subvolume, location.object) };
      else if (location.type === format.itemTypes.root) yield { name, node: rootOf(location.object) };
      else throw new FormatError('btrfs directory item', 'location', at, `type ${location.type}`);
    }
  }
}

/** Installers put the system into one of these: `@`, `@rootfs`, `root`. */
function topLevelSubvolumes(fs: Btrfs): { name: string; root: NodeId }[] {
  const top = rootOf(format.objects.topLevel);
  const found = [{ name: '/', root: top }];
  for (const { name, node } of entriesOf(fs, inodeOf(fs, top))) {
    if (node % objects === 0n) found.push({ name, root: node });
    if (found.length > maxSubvolumes) break;
  }
  return found;
}
