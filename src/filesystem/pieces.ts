/** A file whose bytes lie in pieces, with holes between them, as a disk. */
import { firstIndex } from '../base/search.ts';
import { checkRange, mergeExtents, type Disk, type Extent } from '../disk/disk.ts';

/** A run of a file's bytes. */
export interface PlacedPiece {
  readonly fileOffset: number;
  readonly lengthBytes: number;
}

/** A run of a file's bytes and where it lies on the file system's own disk (the volume). */
export interface FilePiece extends PlacedPiece {
  readonly volumeOffset: number;
}

/** @param pieces as those of `placedDisk`, all inside the volume, which stays the caller's */
export function piecesDisk(volume: Disk, sizeBytes: number, pieces: readonly FilePiece[]): Disk {
  return placedDisk(sizeBytes, pieces, ({ volumeOffset }, target, within) =>
    volume.read(target, volumeOffset + within),
  );
}

/**
 * @param pieces in the order of the file; what lies between them reads as zeros, and what lies behind the file's end is not read
 * @param readPiece fills the target from byte `within` of the piece
 */
export function placedDisk<Piece extends PlacedPiece>(
  sizeBytes: number,
  pieces: readonly Piece[],
  readPiece: (piece: Piece, target: Uint8Array, within: number) => void,
): Disk {
  /** What of each piece lies in [offset, offset + length), from byte `from` of the file to byte `to`. */
  function* overlapping(offset: number, length: number): Generator<{ piece: Piece; from: number; to: number }> {
    const end = offset + length;
    let index = firstIndex(pieces.length, (at) => endOf(pieces[at]) > offset);
    for (let piece = pieces[index]; piece !== undefined && piece.fileOffset < end; piece = pieces[++index])
      yield { piece, from: Math.max(offset, piece.fileOffset), to: Math.min(end, endOf(piece)) };
  }

  function* unmerged(offset: number, length: number): Generator<Extent> {
    let done = offset;
    for (const { from, to } of overlapping(offset, length)) {
      yield { offset: done, length: from - done, kind: 'zero' };
      yield { offset: from, length: to - from, kind: 'data' };
      done = to;
    }
    yield { offset: done, length: offset + length - done, kind: 'zero' };
  }

  const disk: Disk = {
    sizeBytes,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      let done = offset;
      for (const { piece, from, to } of overlapping(offset, target.length)) {
        target.fill(0, done - offset, from - offset);
        readPiece(piece, target.subarray(from - offset, to - offset), from - piece.fileOffset);
        done = to;
      }
      target.fill(0, done - offset);
    },
    extents(offset, length) {
      checkRange(disk, offset, length);
      return mergeExtents(unmerged(offset, length));
    },
    close: () => undefined,
  };
  return disk;
}

function endOf(piece: PlacedPiece | undefined): number {
  return piece === undefined ? Infinity : piece.fileOffset + piece.lengthBytes;
}
