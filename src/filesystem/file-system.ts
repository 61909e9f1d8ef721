/**
 * A file system of somebody else's disk, read in TypeScript: a foreign file system is never given to the kernel. Nothing here knows of plans or
 * edits (edit/editable.ts), nor of paths (by-path.ts).
 *
 * The disk below is not trusted. Every structure is checked, every walk is bounded, and what cannot be read is an error, never zeros.
 */
import type { Disk } from '../disk/disk.ts';

/** A file, folder, link or device, whatever names it has; for as long as the file system is open. */
export type NodeId = bigint;

export type NodeType = 'file' | 'folder' | 'link' | 'pipe' | 'socket' | 'character device' | 'block device' | 'other';

/** What a file system does not keep is undefined. Times are nanoseconds since 1970. */
export interface NodeStat {
  readonly type: NodeType;
  readonly sizeBytes: number;
  /** Names that it has. */
  readonly links: number;
  /** The twelve bits of chmod(2). */
  readonly permissions: number | undefined;
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
  readonly modifiedNs: bigint | undefined;
  /** Of what is known of it: owner, names, size. */
  readonly changedNs: bigint | undefined;
  readonly accessedNs: bigint | undefined;
  readonly bornNs: bigint | undefined;
  /** Of a device. */
  readonly device: { readonly major: number; readonly minor: number } | undefined;
}

export interface FolderEntry {
  /** As base/names.ts has names: bytes that are no UTF-8 are kept. */
  readonly name: string;
  readonly node: NodeId;
}

/** All throw FormatError and IntegrityError for what is broken, UnsupportedError for what is not read, with what it is. */
export interface FileSystem {
  /** `ext4`, `xfs`, `btrfs`, `ntfs`, ... */
  readonly kind: string;
  /** Whose names and links: Windows' lead along backslashes to letters, and do not tell capitals from small letters. */
  readonly paths: 'unix' | 'windows';
  /** As the guest writes it in `UUID=`; empty where it has none. */
  readonly uuid: string;
  readonly label: string;
  /** What a reader of this volume must know: a journal that was not replayed. One line each. */
  readonly warnings: readonly string[];
  readonly root: NodeId;
  stat(node: NodeId): NodeStat;
  /** As the file system compares names. */
  lookup(folder: NodeId, name: string): NodeId | undefined;
  /** In the order of the disk, without `.` and `..`. */
  entries(folder: NodeId): Iterable<FolderEntry>;
  /** The bytes of a file, holes as zeros; valid while the volume is, whose it stays. */
  open(node: NodeId): Disk;
  /** Where a link leads. */
  readLink(node: NodeId): string;
  /** Further roots on the volume, where its kind has such. */
  subvolumes?(): readonly { readonly name: string; readonly root: NodeId }[];
}

/** The upper four bits of a mode, as Unix file systems keep it. */
const types: Readonly<Record<number, NodeType>> = {
  0x1: 'pipe',
  0x2: 'character device',
  0x4: 'folder',
  0x6: 'block device',
  0x8: 'file',
  0xa: 'link',
  0xc: 'socket',
};

export function typeOfMode(mode: number): NodeType {
  return types[Math.floor(mode / 0x1000) % 0x10] ?? 'other';
}

export function permissionsOfMode(mode: number): number {
  return mode % 0x1000;
}
