/** A file with ranges written over in memory, perhaps made longer: what a log leaves when it is replayed. */
import { firstIndex } from '../../base/search.ts';
import { assert } from '../../base/errors.ts';
import { checkRange, mergeExtents, type Disk, type Extent } from '../../disk/disk.ts';

/** A range and what is written there: bytes of that length, or zeros of any length. */
export interface Overlay {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly bytes?: Uint8Array;
}

/**
 * The file below with the writes done in their order. Owns the file below.
 * @param sizeBytes at least the size of the file below; what lies behind that is zeros
 * @param writes inside sizeBytes; a later one wins where they overlap
 */
export function overlaidDisk(below: Disk, sizeBytes: number, writes: readonly Overlay[]): Disk {
  assert(sizeBytes >= below.sizeBytes, 'an overlay cannot shorten a file');
  const layers = flatten(writes);

  /** The pieces of [offset, offset+length): an overlay, or undefined for what is below. */
  function* pieces(
    offset: number,
    length: number,
  ): Generator<{ at: number; length: number; over: Overlay | undefined }> {
    const end = offset + length;
    let at = offset;
    for (let index = firstEndingAfter(layers, offset); at < end; index++) {
      const over = layers[index];
      const start = Math.min(over?.offset ?? end, end);
      if (start > at) yield { at, length: start - at, over: undefined };
      if (over === undefined || start === end) return;
      const from = Math.max(start, at);
      const to = Math.min(over.offset + over.lengthBytes, end);
      yield { at: from, length: to - from, over };
      at = to;
    }
  }

  function* unmerged(offset: number, length: number): Generator<Extent> {
    for (const piece of pieces(offset, length)) {
      if (piece.over !== undefined) {
        yield { offset: piece.at, length: piece.length, kind: piece.over.bytes === undefined ? 'zero' : 'data' };
        continue;
      }
      const inside = Math.max(0, Math.min(piece.length, below.sizeBytes - piece.at));
      if (inside > 0) yield* below.extents(piece.at, inside);
      if (inside < piece.length) yield { offset: piece.at + inside, length: piece.length - inside, kind: 'zero' };
    }
  }

  const disk: Disk = {
    sizeBytes,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      for (const piece of pieces(offset, target.length)) {
        const part = target.subarray(piece.at - offset, piece.at - offset + piece.length);
        if (piece.over === undefined) readBelow(below, part, piece.at);
        else if (piece.over.bytes === undefined) part.fill(0);
        else
          part.set(
            piece.over.bytes.subarray(piece.at - piece.over.offset, piece.at - piece.over.offset + piece.length),
          );
      }
    },
    extents(offset, length) {
      checkRange(disk, offset, length);
      return mergeExtents(unmerged(offset, length));
    },
    close() {
      below.close();
    },
  };
  return disk;
}

function readBelow(below: Disk, target: Uint8Array, offset: number): void {
  const inside = Math.max(0, Math.min(target.length, below.sizeBytes - offset));
  if (inside > 0) below.read(target.subarray(0, inside), offset);
  target.fill(0, inside);
}

/**
 * Writes that no longer overlap, in ascending order: between two neighbouring edges the latest write that covers them. The latest is
 * painted first, and what is painted is skipped ever after, so that this stays cheap however the writes lie.
 */
function flatten(writes: readonly Overlay[]): Overlay[] {
  const edges = [...new Set(writes.flatMap((write) => [write.offset, write.offset + write.lengthBytes]))].sort(
    (a, b) => a - b,
  );
  const indexOf = new Map(edges.map((edge, index) => [edge, index]));
  const painted = new Array<Overlay | undefined>(edges.length);
  /** For a painted piece somewhere ahead, for a free one itself. */
  const ahead = Uint32Array.from({ length: edges.length + 1 }, (_, index) => index);
  const nextFree = (from: number): number => {
    let index = from;
    for (let step = ahead[index] ?? index; step !== index; step = ahead[index] ?? index) {
      ahead[index] = ahead[step] ?? step;
      index = step;
    }
    return index;
  };
  for (const write of writes.toReversed()) {
    const end = indexOf.get(write.offset + write.lengthBytes) ?? 0;
    for (let index = nextFree(indexOf.get(write.offset) ?? end); index < end; index = nextFree(index)) {
      painted[index] = write;
      ahead[index] = index + 1;
    }
  }
  const flat: Overlay[] = [];
  for (const [index, write] of painted.entries()) {
    const offset = edges[index] ?? 0;
    const end = edges[index + 1];
    if (write === undefined || end === undefined) continue;
    const piece = { offset, lengthBytes: end - offset };
    const from = offset - write.offset;
    flat.push(
      write.bytes === undefined ? piece : { ...piece, bytes: write.bytes.subarray(from, from + piece.lengthBytes) },
    );
  }
  return flat;
}

function firstEndingAfter(layers: readonly Overlay[], offset: number): number {
  return firstIndex(layers.length, (index) => {
    const layer = layers[index];
    assert(layer !== undefined, 'binary search left its list');
    return layer.offset + layer.lengthBytes > offset;
  });
}
