/**
 * What the readers of foreign native disk files share: how a file asks for its parent, and reads that cannot leave the file.
 *
 * A file from elsewhere may be wrong in any way. A reader refuses it with a FormatError or an UnsupportedError; it never reads
 * outside the file, and its time and memory do not follow from numbers that it has not checked.
 */
import path from 'node:path';
import { FormatError, UnsupportedError } from '../base/errors.ts';
import type { Disk } from '../disk/disk.ts';

/** A disk that knows what a differencing file calls it: a VHD's unique id, a VMDK's content id. */
export interface NativeDisk extends Disk {
  readonly identity?: string;
  /** Where the format says them: 512 and 4096 else. */
  readonly logicalSectorBytes?: number;
  readonly physicalSectorBytes?: number;
}

/** How a differencing file names its parent. Nothing of it was checked against the host: that is up to who opens it. */
export interface ParentReference {
  /** Names and paths as the file has them, with slashes for backslashes, the most useful first. */
  readonly names: readonly string[];
  readonly identity: string | undefined;
  /** The name of the reader for it, by the rules of the child's format; undefined where these do not say it. */
  readonly format?: string | undefined;
  /** What the child says that it is, by QEMU's names. */
  readonly qemuFormat?: string | undefined;
  /** To be handed on as `depth` when the parent is opened: it is what ends a loop of parents. */
  readonly depth: number;
}

export interface ReaderOptions {
  /** Opens the parent of a differencing file; without it such a file is refused. The reader closes what it returns. */
  readonly openParent?: (reference: ParentReference) => NativeDisk;
  /** How many files stand between this one and the one that the caller wanted. */
  readonly depth?: number;
  /** Budget for pages of tables. */
  readonly tableCacheBytes?: number;
}

/** Bytes, as latin1, by which a file of a format is known. */
export interface Signature {
  readonly magic: string;
  /** Where they stand; below zero: from the end of the file. Default 0. */
  readonly at?: number;
}

/** What lies beside a file that is read, as far as its reader may follow what the file says. */
export interface ReaderContext {
  /** Of the file, without its folder. */
  readonly fileName: string;
  readonly depth: number;
  /** Whether the user, or the file's child, says that it is of this format. */
  readonly isSaid: boolean;
  /** Budget for pages of tables, of each file. Default: each reader's own. */
  readonly tableCacheBytes?: number;
  openParent(reference: ParentReference): NativeDisk;
  /** Opens the first of these names that lies in the folder of the file, or below it. @throws UnavailableError where none does */
  openBeside(names: readonly string[]): { readonly file: Disk; readonly context: ReaderContext };
  /** Names of what is in the folder. */
  namesBeside(): readonly string[];
}

/** One format that disks are read from: an entry of the registry (readers.ts; of what is no native format, source/formats.ts). */
export interface DiskReader {
  /** As `--source-format` has it. */
  readonly name: string;
  /** With its article, for messages: "a VHDX file". */
  readonly what: string;
  /** QEMU's name, where QEMU has the format. */
  readonly qemuName?: string;
  /** Whether a file is called as those of this format are. */
  isNamed(fileName: string): boolean;
  readonly signatures: readonly Signature[];
  /** Whether a text describes such a disk. */
  describes?(text: string): boolean;
  /** Its files have no mark of their own: what no other format knows is the disk's bytes. */
  readonly isBare?: boolean;
  /** On success the disk owns `file`; on an error the caller still does. @throws FormatError, UnsupportedError, UnavailableError, UsageError */
  open(file: Disk, context: ReaderContext): NativeDisk;
}

/** Whether a file name has one of these extensions, in small letters or large ones. */
export function hasExtension(fileName: string, extensions: readonly string[]): boolean {
  const extension = /\.([^.]+)$/.exec(fileName)?.[1]?.toLowerCase();
  return extension !== undefined && extensions.includes(extension);
}

/** A parent's path as it may be meant: as it is; with Windows' slashes; and only its last name. */
export function spellingsOf(names: readonly string[]): string[] {
  const spellings = names.flatMap((name) => {
    const posix = name.replaceAll('\\', '/');
    return [name, posix, path.posix.basename(posix)];
  });
  return [...new Set(spellings)];
}

/** A longer chain of parents is taken for a loop. */
const maxChainDepth = 64;

/**
 * Opens the parent that a differencing file names.
 * @throws UnsupportedError when there is nobody to open it
 * @throws FormatError when it is not the parent that the file was made on, or the chain has no end
 */
export function openParentOf(
  structure: string,
  reference: Omit<ParentReference, 'depth'>,
  options: ReaderOptions,
): NativeDisk {
  const name = reference.names[0] ?? reference.identity ?? 'one without a name';
  const depth = (options.depth ?? 0) + 1;
  if (depth > maxChainDepth) {
    throw new FormatError(structure, 'parent', 0, `${name} is parent number ${depth}; do the files name each other?`);
  }
  if (options.openParent === undefined) {
    throw new UnsupportedError(
      `${structure}: holds only changes over its parent (${name}), which cannot be opened here`,
    );
  }
  const parent = options.openParent({ ...reference, depth });
  if (parent.identity !== undefined && reference.identity !== undefined && parent.identity !== reference.identity) {
    parent.close();
    throw new FormatError(
      structure,
      'parent',
      0,
      `${name} is ${parent.identity}, the changes were made on ${reference.identity}; was the parent changed since?`,
    );
  }
  return parent;
}

/** @throws FormatError when [offset, offset + lengthBytes) is not inside the file. */
export function checkInside(file: Disk, structure: string, field: string, offset: number, lengthBytes: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && offset + lengthBytes <= file.sizeBytes) return;
  throw new FormatError(structure, field, offset, `${lengthBytes} bytes do not lie in a file of ${file.sizeBytes}`);
}

/** Reads a structure. @throws FormatError when it is not inside the file. */
export function readInside(
  file: Disk,
  structure: string,
  field: string,
  offset: number,
  lengthBytes: number,
): Uint8Array {
  checkInside(file, structure, field, offset, lengthBytes);
  const bytes = new Uint8Array(lengthBytes);
  file.read(bytes, offset);
  return bytes;
}

/** @throws FormatError naming the field when a rule of the format does not hold. */
export function checkField(
  structure: string,
  field: string,
  offset: number,
  holds: boolean,
  rule: string,
): asserts holds {
  if (!holds) throw new FormatError(structure, field, offset, rule);
}
