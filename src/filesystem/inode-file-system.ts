/**
 * Paths over a driver that knows only nodes: folders are searched, symbolic links followed inside the file system, and what was found of
 * folders is kept within a budget. All Unix file systems here share this; a driver says what a node is and where its bytes lie.
 */
import { LRUCache } from 'lru-cache';
import { FormatError, UnsupportedError, UsageError } from '../base/errors.ts';
import type { FileEdit, FilePiece, FileStat, GuestFileSystem } from './file-system.ts';
import type { Patch } from './edit/patch.ts';

export interface NodeStat {
  readonly type: 'file' | 'folder' | 'link' | 'other';
  readonly sizeBytes: number;
}

export interface FolderEntry<Id> {
  readonly name: string;
  readonly id: Id;
}

/** What a file system must know of its nodes (inodes). `Id` names a node; opening it reads and checks it. */
export interface NodeDriver<Id, Node> {
  readonly kind: string;
  readonly uuid: string;
  readonly label: string;
  readonly warnings: readonly string[];
  readonly root: Id;
  open(id: Id): Node;
  stat(node: Node): NodeStat;
  /** Without `.` and `..`. */
  entries(folder: Node): Iterable<FolderEntry<Id>>;
  /** All bytes of a file or of a link's target; never called for more than the caller's limit. */
  read(node: Node): Uint8Array;
  locate(node: Node, path: string): readonly FilePiece[];
  replace(
    edits: readonly FileEdit[],
    locate: (path: string) => readonly FilePiece[],
    open: (path: string) => Node,
  ): Patch[];
}

const maxLinks = 40;
const maxPathParts = 256;
const maxLinkBytes = 4096;
const maxFolderEntries = 200_000;
const maxKeptEntries = 400_000;

export function nodeFileSystem<Id extends bigint | number | object, Node>(
  driver: NodeDriver<Id, Node>,
): GuestFileSystem {
  const folders = new LRUCache<string, Map<string, Id>>({
    maxSize: maxKeptEntries,
    sizeCalculation: (names) => names.size + 1,
  });

  /** `key` is the folder's path without links: what was read of it is kept under that. */
  function namesIn(folder: Node, key: string): Map<string, Id> {
    const known = folders.get(key);
    if (known !== undefined) return known;
    const names = new Map<string, Id>();
    for (const { name, id } of driver.entries(folder)) {
      if (names.size >= maxFolderEntries)
        throw new UnsupportedError(
          `${driver.kind}: ${key || '/'} has more than ${maxFolderEntries} names; it is not read`,
        );
      names.set(name, id);
    }
    folders.set(key, names);
    return names;
  }

  function find(path: string): { node: Node; key: string } | undefined {
    const above = [{ node: driver.open(driver.root), name: '' }];
    const pending = partsOf(path);
    let links = 0;
    for (let part = pending.shift(); part !== undefined; part = pending.shift()) {
      if (part === '..') {
        if (above.length > 1) above.pop();
        continue;
      }
      const folder = above.at(-1);
      if (folder === undefined || driver.stat(folder.node).type !== 'folder') return undefined;
      const id = namesIn(folder.node, above.map(({ name }) => name).join('/')).get(part);
      if (id === undefined) return undefined;
      const node = driver.open(id);
      const { type, sizeBytes } = driver.stat(node);
      if (type !== 'link') {
        above.push({ node, name: part });
        continue;
      }
      if (++links > maxLinks || sizeBytes > maxLinkBytes) return undefined;
      const target = Buffer.from(driver.read(node)).toString('utf8');
      if (target.startsWith('/')) above.length = 1;
      pending.unshift(...partsOf(target));
      if (pending.length > maxPathParts) return undefined;
    }
    const last = above.at(-1);
    return last === undefined ? undefined : { node: last.node, key: above.map(({ name }) => name).join('/') };
  }

  function file(path: string): Node {
    const found = find(path);
    if (found === undefined || driver.stat(found.node).type !== 'file')
      throw new UsageError(`${driver.kind}: ${path} is no file there`);
    return found.node;
  }

  const locate = (path: string): readonly FilePiece[] => driver.locate(file(path), path);

  return {
    kind: driver.kind,
    uuid: driver.uuid,
    label: driver.label,
    warnings: driver.warnings,
    stat(path): FileStat | undefined {
      const found = find(path);
      if (found === undefined) return undefined;
      const { type, sizeBytes } = driver.stat(found.node);
      return { type: type === 'link' ? 'other' : type, sizeBytes };
    },
    list(path) {
      const found = find(path);
      if (found === undefined || driver.stat(found.node).type !== 'folder')
        throw new UsageError(`${driver.kind}: ${path} is no folder there`);
      return [...namesIn(found.node, found.key).keys()].sort();
    },
    readFile(path, limitBytes) {
      const node = file(path);
      const { sizeBytes } = driver.stat(node);
      if (sizeBytes > limitBytes)
        throw new UnsupportedError(
          `${path} has ${sizeBytes} bytes, more than the ${limitBytes} that are read of such a file`,
        );
      const bytes = driver.read(node);
      if (bytes.length !== sizeBytes)
        throw new FormatError(`${driver.kind} ${path}`, 'length', 0, `${bytes.length} bytes where ${sizeBytes} belong`);
      return bytes;
    },
    locate,
    replace: (edits) => driver.replace(edits, locate, file),
  };
}

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}
