/**
 * A FAT volume (the EFI system partition, for one), read, and the patches that change file data in place or add a file: FAT has no
 * journal, and so a file that is added is whole at once.
 */
import { LRUCache } from 'lru-cache';
import { FormatError, UnsupportedError, UsageError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import { replaceInPlace, type EditableFileSystem, type NodeEdit } from '../edit/editable.ts';
import type { Patch } from '../edit/patch.ts';
import { StagedWrites } from '../edit/staged-writes.ts';
import type { FolderEntry, NodeId, NodeStat } from '../file-system.ts';
import { piecesDisk, type FilePiece } from '../pieces.ts';
import { VolumeReader } from '../volume-reader.ts';
import { folderEntry, folderEntryBytes } from './layout.ts';
import { allocateChain, chainFrom, firstCluster, offsetOfCluster, type ReadRange } from './chains.ts';
import {
  encodeShortName,
  folderAttribute,
  freeEntryOffset,
  parseFile,
  parseFolder,
  type FatEntry,
  type FatFile,
} from './folders.ts';
import { isFat, readFatGeometry, type FatGeometry } from './geometry.ts';

const maxFolderBytes = 2 * MiB;
const maxPathDepth = 64;
const keptFolders = 64;

interface Folder {
  readonly contents: Uint8Array;
  readonly entries: readonly FatEntry[];
  /** Where each cluster (or the root's one place) lies on the volume, in order. */
  readonly pieces: readonly FilePiece[];
  readonly cluster: number;
}

/** A node is the place of its folder entry on the volume; the root has none. */
export class FatVolume implements EditableFileSystem {
  readonly kind = 'fat';
  readonly paths = 'windows';
  readonly uuid: string;
  readonly label: string;
  readonly warnings: readonly string[] = [];
  readonly root = 0n;
  readonly #disk: Disk;
  readonly #geometry: FatGeometry;
  readonly #read: ReadRange;
  readonly #folders = new LRUCache<NodeId, Folder>({ max: keptFolders });

  /** @throws FormatError when its boot sector contradicts itself */
  constructor(disk: Disk) {
    this.#disk = disk;
    this.#geometry = readFatGeometry(disk);
    this.uuid = this.#geometry.serial;
    this.label = this.#geometry.label;
    const reader = new VolumeReader(disk, 'FAT');
    this.#read = (offset, lengthBytes) => reader.read(offset, lengthBytes, 'structure');
  }

  stat(node: NodeId): NodeStat {
    const file = this.#entry(node);
    return {
      type: file?.isFolder === false ? 'file' : 'folder',
      sizeBytes: file?.isFolder === false ? file.sizeBytes : 0,
      links: 1,
      permissions: undefined,
      owner: undefined,
      modifiedNs: file?.modifiedNs,
      changedNs: undefined,
      accessedNs: file?.accessedNs,
      bornNs: file?.bornNs,
      device: undefined,
    };
  }

  lookup(folder: NodeId, name: string): NodeId | undefined {
    const wanted = name.toUpperCase();
    const found = this.#folder(folder);
    const entry = found.entries.find(
      (one) => one.name.toUpperCase() === wanted || one.shortName.toUpperCase() === wanted,
    );
    return entry === undefined ? undefined : nodeOf(found, entry);
  }

  entries(folder: NodeId): FolderEntry[] {
    const found = this.#folder(folder);
    return found.entries.map((entry) => ({ name: entry.name, node: nodeOf(found, entry) }));
  }

  open(node: NodeId): Disk {
    return piecesDisk(this.#disk, this.#file(node).sizeBytes, this.locate(node));
  }

  /** @throws UsageError always: FAT has no links */
  readLink(node: NodeId): string {
    throw new UsageError(`FAT: entry ${node} is no link`);
  }

  locate(node: NodeId): readonly FilePiece[] {
    const { cluster, sizeBytes } = this.#file(node);
    return sizeBytes === 0 ? [] : this.#pieces(cluster, sizeBytes);
  }

  roomOf(node: NodeId): number {
    return this.#file(node).sizeBytes;
  }

  replace(edits: readonly NodeEdit[]): Patch[] {
    return replaceInPlace(this, this.#disk, edits);
  }

  /**
   * The patches that add a file, and the folders that its path lacks. Names are of 8 and 3 capital letters.
   * @throws UnsupportedError when a folder or the volume has no room; UsageError when the file is there
   */
  addFile(path: string, contents: Uint8Array): Patch[] {
    const names = namesOf(path);
    const name = names.pop();
    if (name === undefined) throw new UsageError(`${path}: is the root`);
    const writes = new StagedWrites(this.#disk);
    let at: NodeId | undefined = this.root;
    let folder = this.#folder(this.root);
    for (const part of names) {
      at = at === undefined ? undefined : this.lookup(at, part);
      if (at !== undefined && this.#entry(at)?.isFolder === false)
        throw new UsageError(`${path}: a part of its path is no folder`);
      folder = at === undefined ? this.#addFolder(writes, folder, part) : this.#folder(at);
    }
    if (at !== undefined && this.lookup(at, name) !== undefined) throw new UsageError(`${path}: is there already`);
    const chain = allocateChain(writes, this.#geometry, Math.ceil(contents.length / this.#geometry.clusterBytes));
    for (const [index, cluster] of chain.entries()) {
      const part = new Uint8Array(this.#geometry.clusterBytes);
      part.set(contents.subarray(index * part.length, (index + 1) * part.length));
      writes.write(offsetOfCluster(this.#geometry, cluster), part);
    }
    this.#addEntry(writes, folder, name, 0x20, chain[0] ?? 0, contents.length);
    return writes.patches();
  }

  #addFolder(writes: StagedWrites, parent: Folder, name: string): Folder {
    const [cluster = 0] = allocateChain(writes, this.#geometry, 1);
    const contents = new Uint8Array(this.#geometry.clusterBytes);
    contents.set(entryBytes('.', folderAttribute, cluster, 0));
    contents.set(entryBytes('..', folderAttribute, parent.cluster, 0), folderEntryBytes);
    const volumeOffset = offsetOfCluster(this.#geometry, cluster);
    writes.write(volumeOffset, contents);
    this.#addEntry(writes, parent, name, folderAttribute, cluster, 0);
    return { contents, entries: [], pieces: [{ fileOffset: 0, volumeOffset, lengthBytes: contents.length }], cluster };
  }

  #addEntry(
    writes: StagedWrites,
    folder: Folder,
    name: string,
    attributes: number,
    cluster: number,
    sizeBytes: number,
  ): void {
    const at = freeEntryOffset(folder.contents);
    const piece = folder.pieces.find(
      ({ fileOffset, lengthBytes }) => at !== undefined && at >= fileOffset && at < fileOffset + lengthBytes,
    );
    if (at === undefined || piece === undefined)
      throw new UnsupportedError(`FAT: the folder that ${name} belongs in is full`);
    writes.write(piece.volumeOffset + (at - piece.fileOffset), entryBytes(name, attributes, cluster, sizeBytes));
  }

  /** Undefined for the root. */
  #entry(node: NodeId): FatFile | undefined {
    return node === this.root ? undefined : parseFile(this.#read(Number(node), folderEntryBytes));
  }

  #file(node: NodeId): FatFile {
    const entry = this.#entry(node);
    if (entry === undefined || entry.isFolder) throw new UsageError(`FAT: entry ${node} is no file`);
    return entry;
  }

  #folder(node: NodeId): Folder {
    let folder = this.#folders.get(node);
    if (folder !== undefined) return folder;
    const entry = this.#entry(node);
    if (entry?.isFolder === false) throw new UsageError(`FAT: entry ${node} is no folder`);
    folder = entry === undefined ? this.#rootFolder() : this.#folderAt(entry.cluster);
    this.#folders.set(node, folder);
    return folder;
  }

  #rootFolder(): Folder {
    const { bits, rootStartBytes, rootBytes, rootCluster } = this.#geometry;
    if (bits === 32) return { ...this.#folderAt(rootCluster), cluster: 0 };
    const contents = this.#read(rootStartBytes, rootBytes);
    const pieces = [{ fileOffset: 0, volumeOffset: rootStartBytes, lengthBytes: rootBytes }];
    return { contents, entries: parseFolder(contents), pieces, cluster: 0 };
  }

  #folderAt(cluster: number): Folder {
    const { clusterBytes } = this.#geometry;
    const limit = Math.ceil(maxFolderBytes / clusterBytes);
    const pieces = chainFrom(this.#read, this.#geometry, cluster, limit).map((one, index) => ({
      fileOffset: index * clusterBytes,
      volumeOffset: offsetOfCluster(this.#geometry, one),
      lengthBytes: clusterBytes,
    }));
    const contents = Buffer.concat(pieces.map(({ volumeOffset }) => this.#read(volumeOffset, clusterBytes)));
    return { contents, entries: parseFolder(contents), pieces, cluster };
  }

  #pieces(cluster: number, sizeBytes: number): FilePiece[] {
    const { clusterBytes } = this.#geometry;
    const count = Math.ceil(sizeBytes / clusterBytes);
    const chain = chainFrom(this.#read, this.#geometry, cluster, count);
    if (chain.length < count)
      throw new FormatError('FAT', 'chain', cluster, `has ${chain.length} clusters for ${sizeBytes} bytes`);
    const pieces: { fileOffset: number; volumeOffset: number; lengthBytes: number }[] = [];
    for (const [index, one] of chain.entries()) {
      const volumeOffset = offsetOfCluster(this.#geometry, one);
      const lengthBytes = Math.min(clusterBytes, sizeBytes - index * clusterBytes);
      const last = pieces.at(-1);
      if (last !== undefined && last.volumeOffset + last.lengthBytes === volumeOffset) last.lengthBytes += lengthBytes;
      else pieces.push({ fileOffset: index * clusterBytes, volumeOffset, lengthBytes });
    }
    return pieces;
  }
}

/** For a list of openers: undefined where the volume says that it is something else. */
export function openFat(disk: Disk): FatVolume | undefined {
  return isFat(disk) ? new FatVolume(disk) : undefined;
}

function nodeOf({ pieces }: Folder, { offset }: FatEntry): NodeId {
  const piece = pieces[Math.floor(offset / (pieces[0]?.lengthBytes ?? 1))];
  if (piece === undefined) throw new FormatError('FAT folder', 'entry', offset, 'lies in none of its clusters');
  return BigInt(piece.volumeOffset + (offset - piece.fileOffset));
}

function namesOf(path: string): string[] {
  const names = path.split('/').filter((name) => name !== '');
  if (names.length > maxPathDepth) throw new UsageError(`${path}: has more than ${maxPathDepth} names`);
  return names;
}

function entryBytes(name: string, attributes: number, cluster: number, sizeBytes: number): Uint8Array {
  if (cluster !== 0 && cluster < firstCluster)
    throw new FormatError('FAT', 'cluster', cluster, 'is none of the volume');
  const encoded = /^\.\.?$/.test(name) ? Buffer.from(name.padEnd(11), 'latin1') : encodeShortName(name);
  const halves = { clusterHigh: Math.floor(cluster / 0x1_0000), clusterLow: cluster % 0x1_0000 };
  const times = { createdTenths: 0, createdTime: 0, createdDate: 0, accessedDate: 0, changedTime: 0, changedDate: 0 };
  return folderEntry.encode({ name: encoded, attributes, caseFlags: 0, ...times, ...halves, sizeBytes });
}
