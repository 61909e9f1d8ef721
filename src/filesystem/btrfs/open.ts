/**
 * btrfs on one disk (single or DUP), read-only: its default subvolume as the root, the others where they lie in it, and every subvolume of the
 * top level by itself. Every checksum is checked; patches make those of data again.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import type { GuestFileSystem } from '../file-system.ts';
import { nodeFileSystem, type FolderEntry, type NodeDriver, type NodeStat } from '../node-file-system.ts';
import { VolumeReader } from '../volume-reader.ts';
import { readAll, readInode, type Inode } from './files.ts';
import * as format from './layout.ts';
import { locate, replaceData } from './patch-data.ts';
import { highestOffset, lowestOffset, type TreeRoot } from './tree.ts';
import { defaultSubvolume, folderItems, readVolume, treeOf, type Btrfs } from './volume.ts';

/** An inode in a tree, or the folder of a subvolume. */
type Id = { readonly tree: TreeRoot; readonly object: bigint } | { readonly subvolume: bigint };

const types: Readonly<Record<number, NodeStat['type']>> = { 0x8000: 'file', 0x4000: 'folder', 0xa000: 'link' };
const maxSubvolumes = 64;

/** @returns undefined where the volume holds no btrfs; else its default subvolume, with the others as `subvolumes` */
export function openBtrfs(volume: Disk): GuestFileSystem | undefined {
  const fs = readVolume(new VolumeReader(volume, 'btrfs'));
  if (fs === undefined) return undefined;
  const standard = defaultSubvolume(fs);
  const subvolumes = (): readonly { name: string; fileSystem: GuestFileSystem }[] =>
    topLevelSubvolumes(fs)
      .filter(({ subvolume }) => subvolume !== standard)
      .map(({ name, subvolume }) => ({ name, fileSystem: nodeFileSystem(driverOf(fs, subvolume)) }));
  return { ...nodeFileSystem(driverOf(fs, standard)), subvolumes };
}

function driverOf(fs: Btrfs, subvolume: bigint): NodeDriver<Id, Inode> {
  const dirty = fs.super.logRoot !== 0n;
  return {
    kind: 'btrfs',
    uuid: fs.super.fsid,
    label: fs.super.label,
    warnings: dirty
      ? [
          'the btrfs log was not replayed (the machine ran when the image was made): what was written last is not seen, and no file of that volume is patched',
        ]
      : [],
    root: { subvolume },
    open: (id) => openNode(fs, id),
    stat: ({ mode, sizeBytes }) => ({ type: types[mode - (mode % 0x1000)] ?? 'other', sizeBytes }),
    entries: (folder) => entriesOf(fs, folder),
    read: (node) => readAll(fs, node),
    locate: (node, path) => locate(fs, node, path),
    replace(edits, _locate, open) {
      if (dirty && edits.length > 0)
        throw new UnsupportedError(
          'btrfs: its log was not replayed, and so no file is patched in place; mount it once elsewhere, or image the machine at rest',
        );
      return replaceData(fs, edits, open);
    },
  };
}

function openNode(fs: Btrfs, id: Id): Inode {
  if ('object' in id) return readInode(fs, id.tree, id.object);
  const tree = treeOf(fs, id.subvolume);
  return readInode(fs, tree, tree.folder);
}

function* entriesOf(fs: Btrfs, folder: Inode): Generator<FolderEntry<Id>> {
  const first = { object: folder.object, type: format.itemTypes.folderIndex, offset: lowestOffset };
  for (const { data, at } of fs.trees.items(folder.tree, first, { ...first, offset: highestOffset })) {
    for (const { name, location } of folderItems(data, at)) {
      if (location.type === format.itemTypes.inode) yield { name, id: { tree: folder.tree, object: location.object } };
      else if (location.type === format.itemTypes.root) yield { name, id: { subvolume: location.object } };
      else throw new FormatError('btrfs directory item', 'location', at, `type ${location.type}`);
    }
  }
}

/** Installers put the system into one of these: `@`, `@rootfs`, `root`. */
function topLevelSubvolumes(fs: Btrfs): { name: string; subvolume: bigint }[] {
  const found: { name: string; subvolume: bigint }[] = [{ name: '/', subvolume: format.objects.topLevel }];
  const folder = openNode(fs, { subvolume: format.objects.topLevel });
  for (const { name, id } of entriesOf(fs, folder)) {
    if ('subvolume' in id) found.push({ name, subvolume: id.subvolume });
    if (found.length > maxSubvolumes) break;
  }
  return found;
}
