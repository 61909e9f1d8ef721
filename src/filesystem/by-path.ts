/**
 * A file system by paths, as plans for other hardware speak of files. Paths are absolute with forward slashes; symbolic links are followed inside
 * the file system, a limited number of times.
 */
import { UnsupportedError, UsageError } from '../base/errors.ts';
import type { Disk } from '../disk/disk.ts';
import type { EditableFileSystem } from './edit/editable.ts';
import type { Patch } from './edit/patch.ts';
import type { NodeId, NodeStat } from './file-system.ts';
import type { FilePiece } from './pieces.ts';

/** Bytes of a file that are replaced by as many others. */
export interface FileEdit {
  readonly path: string;
  readonly fileOffset: number;
  readonly after: Uint8Array;
}

const maxLinks = 40;
const maxPathParts = 256;
const maxLinkBytes = 4096;

export class FilesByPath {
  readonly volume: EditableFileSystem;
  readonly root: NodeId;

  /** @param root of a subvolume; the file system's own by default */
  constructor(volume: EditableFileSystem, root = volume.root) {
    this.volume = volume;
    this.root = root;
  }

  get kind(): string {
    return this.volume.kind;
  }

  get uuid(): string {
    return this.volume.uuid;
  }

  get label(): string {
    return this.volume.label;
  }

  get warnings(): readonly string[] {
    return this.volume.warnings;
  }

  /** Other roots on the same volume. */
  subvolumes(): readonly { readonly name: string; readonly files: FilesByPath }[] {
    const found = this.volume.subvolumes?.() ?? [];
    return found
      .filter(({ root }) => root !== this.root)
      .map(({ name, root }) => ({ name, files: new FilesByPath(this.volume, root) }));
  }

  /** Undefined where nothing has that path. */
  stat(path: string): NodeStat | undefined {
    return this.#find(path)?.stat;
  }

  /** Names in a folder, sorted. @throws UsageError where the path is no folder */
  list(path: string): string[] {
    const found = this.#find(path);
    if (found?.stat.type !== 'folder') throw new UsageError(`${this.kind}: ${path} is no folder there`);
    return Array.from(this.volume.entries(found.node), ({ name }) => name).sort();
  }

  /** @throws UsageError where the path is no file */
  open(path: string): Disk {
    return this.volume.open(this.#file(path));
  }

  /** The whole file. @throws UsageError where it is no file, UnsupportedError where it has more bytes than `limitBytes` */
  readFile(path: string, limitBytes: number): Uint8Array {
    const file = this.open(path);
    if (file.sizeBytes > limitBytes)
      throw new UnsupportedError(`${path}: has ${file.sizeBytes} bytes; at most ${limitBytes} are read of such a file`);
    const bytes = new Uint8Array(file.sizeBytes);
    file.read(bytes, 0);
    return bytes;
  }

  /** As EditableFileSystem.locate. */
  locate(path: string): readonly FilePiece[] {
    return this.volume.locate(this.#file(path), path);
  }

  /** As EditableFileSystem.roomOf. */
  roomOf(path: string): number {
    return this.volume.roomOf(this.#file(path), path);
  }

  /** As EditableFileSystem.replace. */
  replace(edits: readonly FileEdit[]): Patch[] {
    return this.volume.replace(edits.map((edit) => ({ ...edit, node: this.#file(edit.path) })));
  }

  #file(path: string): NodeId {
    const found = this.#find(path);
    if (found?.stat.type !== 'file') throw new UsageError(`${this.kind}: ${path} is no file there`);
    return found.node;
  }

  #find(path: string): { readonly node: NodeId; readonly stat: NodeStat } | undefined {
    const { volume } = this;
    const rootStat = volume.stat(this.root);
    const above = [{ node: this.root, stat: rootStat }];
    const pending = partsOf(path);
    if (pending.length > maxPathParts) throw new UsageError(`${path}: has more than ${maxPathParts} names`);
    let links = 0;
    for (let part = pending.shift(); part !== undefined; part = pending.shift()) {
      if (part === '..') {
        if (above.length > 1) above.pop();
        continue;
      }
      const folder = above.at(-1);
      if (folder?.stat.type !== 'folder') return undefined;
      const node = volume.lookup(folder.node, part);
      if (node === undefined) return undefined;
      const stat = volume.stat(node);
      // A link of Windows leads to a letter, which is known to nobody here.
      if (stat.type !== 'link' || volume.paths === 'windows') {
        above.push({ node, stat });
        continue;
      }
      if (++links > maxLinks || stat.sizeBytes > maxLinkBytes) return undefined;
      const target = volume.readLink(node);
      if (target.startsWith('/')) above.length = 1;
      pending.unshift(...partsOf(target));
      if (pending.length > maxPathParts) return undefined;
    }
    return above.at(-1);
  }
}

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}
