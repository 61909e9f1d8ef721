/** What a plan for other hardware asks of a file system beyond reading it: where file data lie, and the patches that change them in place. */
import { UnsupportedError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import type { FileSystem, NodeId } from '../file-system.ts';
import type { FilePiece } from '../pieces.ts';
import type { Patch } from './patch.ts';

/** Bytes of a file that are replaced by as many others. */
export interface NodeEdit {
  readonly node: NodeId;
  /** For errors. */
  readonly path: string;
  readonly fileOffset: number;
  readonly after: Uint8Array;
}

export interface EditableFileSystem extends FileSystem {
  /**
   * Where the file's bytes lie, for patching in place.
   * @param path for errors
   * @throws UnsupportedError for compressed, inline, encrypted or shared data
   */
  locate(node: NodeId, path: string): readonly FilePiece[];
  /** How long `replace` can make a file, in the room that it has: at least its size. */
  roomOf(node: NodeId, path: string): number;
  /**
   * The patches of the volume that make all these edits at once, with all that belongs to them (checksums of data).
   * @throws UnsupportedError as `locate` does
   */
  replace(edits: readonly NodeEdit[]): Patch[];
}

/** `replace` for a file system that keeps no checksums of data. */
export function replaceInPlace(
  fileSystem: Pick<EditableFileSystem, 'locate'>,
  volume: Disk,
  edits: readonly NodeEdit[],
): Patch[] {
  return edits.flatMap((edit) => {
    const pieces = fileSystem.locate(edit.node, edit.path);
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
