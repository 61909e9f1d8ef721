/** What the Unix file systems share: inodes are read and checked once, folders are read from end to end, and both are kept within a budget. */
import { LRUCache } from 'lru-cache';
import { nameOfBytes } from '../base/names.ts';
import { UnsupportedError } from '../base/errors.ts';
import type { Disk } from '../disk/disk.ts';
import type { EditableFileSystem, NodeEdit } from './edit/editable.ts';
import type { Patch } from './edit/patch.ts';
import type { FileSystem, FolderEntry, NodeId, NodeStat } from './file-system.ts';
import type { FilePiece } from './pieces.ts';

/** What a file system must know of its inodes. */
export interface InodeDriver<Inode> extends Pick<
  FileSystem,
  'kind' | 'uuid' | 'label' | 'warnings' | 'root' | 'subvolumes'
> {
  /** Reads and checks it. */
  inode(node: NodeId): Inode;
  stat(inode: Inode): NodeStat;
  entries(folder: Inode): Iterable<FolderEntry>;
  open(file: Inode): Disk;
  target(link: Inode): Uint8Array;
  locate(file: Inode, path: string): readonly FilePiece[];
  replace(edits: readonly NodeEdit[], inodeOf: (node: NodeId) => Inode): Patch[];
}

const keptInodes = 1024;
const maxFolderEntries = 200_000;
const maxKeptEntries = 400_000;

export function inodeFileSystem<Inode extends object>(driver: InodeDriver<Inode>): EditableFileSystem {
  const inodes = new LRUCache<NodeId, Inode>({ max: keptInodes });
  const folders = new LRUCache<NodeId, ReadonlyMap<string, NodeId>>({
    maxSize: maxKeptEntries,
    sizeCalculation: (names) => names.size + 1,
  });

  function inodeOf(node: NodeId): Inode {
    let inode = inodes.get(node);
    if (inode === undefined) {
      inode = driver.inode(node);
      inodes.set(node, inode);
    }
    return inode;
  }

  function namesIn(folder: NodeId): ReadonlyMap<string, NodeId> {
    const known = folders.get(folder);
    if (known !== undefined) return known;
    const names = new Map<string, NodeId>();
    for (const { name, node } of driver.entries(inodeOf(folder))) {
      if (names.size >= maxFolderEntries)
        throw new UnsupportedError(
          `${driver.kind}: a folder (${folder}) has more than ${maxFolderEntries} names; it is not read`,
        );
      names.set(name, node);
    }
    folders.set(folder, names);
    return names;
  }

  const { kind, uuid, label, warnings, root, subvolumes } = driver;
  return {
    ...{ kind, paths: 'unix', uuid, label, warnings, root },
    ...(subvolumes === undefined ? {} : { subvolumes }),
    stat: (node) => driver.stat(inodeOf(node)),
    lookup: (folder, name) => namesIn(folder).get(name),
    entries: (folder) => Array.from(namesIn(folder), ([name, node]) => ({ name, node })),
    open: (node) => driver.open(inodeOf(node)),
    readLink: (node) => nameOfBytes(driver.target(inodeOf(node))),
    locate: (node, path) => driver.locate(inodeOf(node), path),
    roomOf: (node) => driver.stat(inodeOf(node)).sizeBytes,
    replace: (edits) => driver.replace(edits, inodeOf),
  };
}
