/**
 * A FAT volume (the EFI system partition, for one), read, and the patches that change file data in place or add a file: FAT has no
 * journal, and so a file that is added is whole at once.
 */
import { FormatError, UnsupportedError, UsageError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import { replaceInPlace, type FileEdit, type FilePiece, type FileStat } from '../file-system.ts';
import type { Patch } from '../edit/patch.ts';
import { VolumeReader } from '../volume-reader.ts';
import { StagedWrites } from '../edit/staged-writes.ts';
import type { OpenFile, WindowsFileSystem } from '../windows-file-system.ts';
import { folderEntry, folderEntryBytes } from './layout.ts';
import { allocateChain, chainFrom, firstCluster, offsetOfCluster, type ReadRange } from './chains.ts';
import { encodeShortName, folderAttribute, freeEntryOffset, parseFolder, type FatEntry } from './folders.ts';
import { isFat, readFatGeometry, type FatGeometry } from './geometry.ts';

const maxFolderBytes = 2 * MiB;
const maxPathDepth = 64;

interface Folder {
  readonly contents: Uint8Array;
  readonly entries: readonly FatEntry[];
  /** Where each cluster (or the root's one place) lies on the volume, in order. */
  readonly pieces: readonly FilePiece[];
  readonly cluster: number;
}

export class FatVolume implements WindowsFileSystem {
  readonly kind = 'fat';
  readonly uuid: string;
  readonly label: string;
  readonly warnings: readonly string[] = [];
  readonly #disk: Disk;
  readonly #geometry: FatGeometry;
  readonly #read: ReadRange;

  /** @throws FormatError when its boot sector contradicts itself */
  constructor(disk: Disk) {
    this.#disk = disk;
    this.#geometry = readFatGeometry(disk);
    this.uuid = this.#geometry.serial;
    this.label = this.#geometry.label;
    const reader = new VolumeReader(disk, 'FAT');
    this.#read = (offset, lengthBytes) => reader.read(offset, lengthBytes, 'structure');
  }

  stat(path: string): FileStat | undefined {
    const names = namesOf(path);
    if (names.length === 0) return { type: 'folder', sizeBytes: 0 };
    const entry = this.#find(names);
    if (entry === undefined) return undefined;
    return entry.isFolder ? { type: 'folder', sizeBytes: 0 } : { type: 'file', sizeBytes: entry.sizeBytes };
  }

  list(path: string): string[] {
    const folder = this.#folder(namesOf(path));
    if (folder === undefined) throw new UsageError(`${path}: is no folder of the guest`);
    return folder.entries.map(({ name }) => name).sort();
  }

  readFile(path: string, limitBytes: number): Uint8Array {
    const file = this.open(path);
    if (file.sizeBytes > limitBytes)
      throw new UnsupportedError(`${path}: has ${file.sizeBytes} bytes; at most ${limitBytes} are read`);
    const bytes = new Uint8Array(file.sizeBytes);
    file.read(bytes, 0);
    return bytes;
  }

  open(path: string): OpenFile {
    const { sizeBytes } = this.#file(path);
    const pieces = this.locate(path);
    return {
      sizeBytes,
      read: (target, offset) => {
        if (offset < 0 || offset + target.length > sizeBytes)
          throw new UsageError(`${path}: bytes ${offset} to ${offset + target.length} of ${sizeBytes}`);
        for (const piece of pieces) {
          const from = Math.max(offset, piece.fileOffset);
          const to = Math.min(offset + target.length, piece.fileOffset + piece.lengthBytes);
          if (from < to)
            this.#disk.read(
              target.subarray(from - offset, to - offset),
              piece.volumeOffset + (from - piece.fileOffset),
            );
        }
      },
    };
  }

  locate(path: string): readonly FilePiece[] {
    const { cluster, sizeBytes } = this.#file(path);
    return sizeBytes === 0 ? [] : this.#pieces(cluster, sizeBytes);
  }

  roomOf(path: string): number {
    return this.#file(path).sizeBytes;
  }

  replace(edits: readonly FileEdit[]): Patch[] {
    return replaceInPlace(this, this.#disk, edits);
  }

  /**
   * The patches that add a file, and the folders that its path lacks. Names are of 8 and 3 capital letters.
   * @throws UnsupportedError when a folder or the volume has no room; UsageError when the file is there
   */
  addFile(path: string, contents: Uint8Array): Patch[] {
    if (this.stat(path) !== undefined) throw new UsageError(`${path}: is there already`);
    const writes = new StagedWrites(this.#disk);
    const names = namesOf(path);
    let folder = this.#folder([]);
    for (const [index, name] of names.slice(0, -1).entries()) {
      if (folder === undefined) throw new UsageError(`${path}: a part of its path is no folder`);
      const next = this.#folder(names.slice(0, index + 1));
      folder = next ?? this.#addFolder(writes, folder, name);
    }
    const name = names.at(-1);
    if (folder === undefined || name === undefined) throw new UsageError(`${path}: a part of its path is no folder`);
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

  #file(path: string): FatEntry {
    const entry = this.#find(namesOf(path));
    if (entry === undefined || entry.isFolder) throw new UsageError(`${path}: is no file of the guest`);
    return entry;
  }

  #find(names: readonly string[]): FatEntry | undefined {
    const wanted = names.at(-1)?.toUpperCase();
    return this.#folder(names.slice(0, -1))?.entries.find(
      ({ name, shortName }) => name.toUpperCase() === wanted || shortName.toUpperCase() === wanted,
    );
  }

  #folder(names: readonly string[]): Folder | undefined {
    let folder = this.#rootFolder();
    for (const name of names) {
      const wanted = name.toUpperCase();
      const entry = folder.entries.find(
        (one) => one.name.toUpperCase() === wanted || one.shortName.toUpperCase() === wanted,
      );
      if (entry?.isFolder !== true) return undefined;
      folder = this.#folderAt(entry.cluster);
    }
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
