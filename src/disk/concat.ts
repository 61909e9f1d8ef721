/** Disks one behind the other as one disk: boot sectors and a volume, for one. Owns the disks below it. */
import { firstIndex } from '../base/search.ts';
import { assert } from '../base/errors.ts';
import { closeAll } from '../base/ownership.ts';
import { checkRange, mergeExtents, type Disk, type Extent } from './disk.ts';

interface Part {
  readonly disk: Disk;
  readonly start: number;
}

export function concatDisks(disks: readonly Disk[]): Disk {
  const parts: Part[] = [];
  let sizeBytes = 0;
  for (const disk of disks) {
    parts.push({ disk, start: sizeBytes });
    sizeBytes += disk.sizeBytes;
  }

  /** The pieces of [offset, offset+length), each inside one part. */
  function* pieces(offset: number, length: number): Generator<{ part: Part; offset: number; length: number }> {
    const end = offset + length;
    for (let index = indexAt(parts, offset); index < parts.length; index++) {
      const part = parts[index];
      if (part === undefined || part.start >= end) return;
      const from = Math.max(offset, part.start);
      const to = Math.min(end, part.start + part.disk.sizeBytes);
      if (from < to) yield { part, offset: from, length: to - from };
    }
  }

  function* unmerged(offset: number, length: number): Generator<Extent> {
    for (const piece of pieces(offset, length)) {
      for (const extent of piece.part.disk.extents(piece.offset - piece.part.start, piece.length)) {
        yield { ...extent, offset: extent.offset + piece.part.start };
      }
    }
  }

  const concat: Disk = {
    sizeBytes,
    read(target, offset) {
      checkRange(concat, offset, target.length);
      let done = 0;
      for (const piece of pieces(offset, target.length)) {
        piece.part.disk.read(target.subarray(done, done + piece.length), piece.offset - piece.part.start);
        done += piece.length;
      }
      assert(done === target.length, 'concatenated disks left a gap');
    },
    extents(offset, length) {
      checkRange(concat, offset, length);
      return mergeExtents(unmerged(offset, length));
    },
    close() {
      closeAll(disks);
    },
  };
  return concat;
}

/** Index of the last part that starts at or before `offset`. */
function indexAt(parts: readonly Part[], offset: number): number {
  return Math.max(0, firstIndex(parts.length, (index) => (parts[index]?.start ?? 0) > offset) - 1);
}
