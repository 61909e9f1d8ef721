/**
 * A place: what a name under the mount stands for. Most places are a file or folder behind the mount; some names exist only under it (an
 * image shown as a disk, the extent file of a VMDK) and stand for a part of the file behind.
 */

export interface Place {
  /** Path behind the mount. */
  readonly path: string;
  /** '' for the file itself; otherwise the name of the native file that is made from it. */
  readonly part: string;
}

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
}

export interface FolderEntry {
  readonly name: string;
  /** The file type bits of a mode (S_IFMT). */
  readonly type: number;
  readonly inode: bigint;
}
