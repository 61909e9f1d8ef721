/**
 * What a plan may ask of a guest's file system. Read-only, in TypeScript: a foreign file system is never given to the kernel.
 *
 * The disk below is not trusted. Every structure is checked, every walk is bounded, and what cannot be read is an error, never zeros.
 */
import { UnsupportedError } from '../base/errors.ts';
import type { Disk } from '../disk/disk.ts';
import type { Patch } from './edit/patch.ts';

export interface FileStat {
  readonly type: 'file' | 'folder' | 'other';
  readonly sizeBytes: number;
}

/** A run of a file's bytes and where it lies on the file system's own disk (the volume). */
export interface FilePiece {
  readonly fileOffset: number;
  readonly volumeOffset: number;
  readonly lengthBytes: number;
}

/** Bytes of a file that are replaced by as many others. */
export interface FileEdit {
  readonly path: string;
  readonly fileOffset: number;
  readonly after: Uint8Array;
}

/** Paths are absolute with forward slashes. Symbolic links are followed inside the file system, a limited number of times. */
export interface GuestFileSystem {
  /** `ext4`, `xfs`, `btrfs`, `ntfs`, ... */
  readonly kind: string;
  /** As the guest writes it in `UUID=`; empty where it has none. */
  readonly uuid: string;
  readonly label: string;
  /** What a reader of this volume must know: a journal that was not replayed. One line each. */
  readonly warnings: readonly string[];
  /** Undefined where nothing has that path. */
  stat(path: string): FileStat | undefined;
  /** Names in a folder, sorted. @throws UsageError where the path is no folder */
  list(path: string): string[];
  /** The whole file. @throws UsageError where it is no file, UnsupportedError where it has more bytes than `limitBytes` */
  readFile(path: string, limitBytes: number): Uint8Array;
  /** Where the file's bytes lie, for patching in place. @throws UnsupportedError for compressed, inline, encrypted or shared data */
  locate(path: string): readonly FilePiece[];
  /**
   * The patches of the volume that make all these edits at once, with all that belongs to them (checksums of data).
   * @throws UnsupportedError as `locate` does
   */
  replace(edits: readonly FileEdit[]): Patch[];
  /** Other roots on the same volume, where its kind has such. */
  readonly subvolumes?: () => readonly { readonly name: string; readonly fileSystem: GuestFileSystem }[];
}

/** `replace` for a file system that keeps no checksums of data. */
export function replaceInPlace(
  fileSystem: Pick<GuestFileSystem, 'locate'>,
  volume: Disk,
  edits: readonly FileEdit[],
): Patch[] {
  return edits.flatMap((edit) => {
    const pieces = fileSystem.locate(edit.path);
    const end = edit.fileOffset + edit.after.length;
    const patches: Patch[] = [];
    let done = edit.fileOffset;
    for (const { fileOffset, volumeOffset, lengthBytes } of pieces) {
      if (done >= end || fileOffset > done) break;
      const to = Math.min(end, fileOffset + lengthBytes);
      if (to <= done) continue;
      const offsetBytes = volumeOffset + (done - fileOffset);
      const before = new Uint8Array(to - done);
      volume.read(before, offsetBytes);
      const after = edit.after.subarray(done - edit.fileOffset, to - edit.fileOffset);
      patches.push({ offsetBytes, before, after });
      done = to;
    }
    if (done < end)
      throw new UnsupportedError(
        `${edit.path}: bytes ${done} to ${end} are not on the disk (a hole); cannot be patched in place`,
      );
    return patches;
  });
}
