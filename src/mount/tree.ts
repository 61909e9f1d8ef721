/**
 * A tree: what a mount shows. The folder behind the mount is one (folder-tree.ts), the filter another, made of that one; transports answer the
 * kernel out of a tree and know nothing of what it is made of.
 *
 * `Node` is how a tree tells its files apart. A node may turn out to be nothing when it is asked about: ENOENT then.
 */
import type { StatsFs } from '../base/fs.ts';
import type { Closable } from '../base/ownership.ts';
import type { TimeChange } from '../base/system-calls.ts';
import type { OpenFile } from './open-file.ts';

/** Attributes as FUSE wants them. Times in nanoseconds since 1970. */
export interface Attributes {
  readonly inode: bigint;
  /** File type and permissions. */
  readonly mode: number;
  readonly links: number;
  readonly uid: number;
  readonly gid: number;
  readonly device: number;
  readonly sizeBytes: number;
  /** In units of 512 bytes. A native file never looks sparse: some hypervisors refuse files that do. */
  readonly blocks512: number;
  readonly accessedNs: bigint;
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
  /** Of a native file, whose attributes change only when its plugin file does. */
  readonly isNative: boolean;
}

export interface TreeEntry {
  readonly name: string;
  /** The file type bits of a mode (S_IFMT). */
  readonly type: number;
  readonly inode: bigint;
}

/** All throw system errors, which transports turn into errno. */
export interface Tree<Node> extends Closable {
  readonly root: Node;
  /** @throws ENOENT where nothing can have that name */
  child(folder: Node, name: string): Node;
  /** Without `.` and `..`. */
  list(folder: Node): Iterable<TreeEntry>;
  attributes(node: Node): Attributes;
  readLink(node: Node): string;
  /** @param flags of open(2) */
  open(node: Node, flags: number): OpenFile;
  /** As readAttribute of extended-attributes.ts. */
  readAttribute(node: Node, name: string, value: Uint8Array): number;
  listAttributes(node: Node): Uint8Array;
  /** For statfs. */
  space(node: Node): StatsFs;
}

/** @param umask of the caller, where the kernel has not applied it */
export interface ChangeableTree<Node> extends Tree<Node> {
  create(node: Node, mode: number, umask?: number): OpenFile;
  makeFolder(node: Node, mode: number, umask?: number): void;
  makeSymlink(node: Node, target: string): void;
  /** A pipe, a socket, an empty file or a device. @param mode with the type */
  makeNode(node: Node, mode: number, device: number, umask?: number): void;
  makeLink(from: Node, to: Node): void;
  removeFile(node: Node): void;
  removeFolder(node: Node): void;
  /** @param flags of renameat2(2) */
  rename(from: Node, to: Node, flags?: number): void;
  truncate(node: Node, sizeBytes: number): void;
  changeMode(node: Node, mode: number): void;
  changeOwner(node: Node, uid: number, gid: number): void;
  changeTimes(node: Node, accessed: TimeChange, modified: TimeChange): void;
  writeAttribute(node: Node, name: string, value: Uint8Array, flags: number): void;
  removeAttribute(node: Node, name: string): void;
}
