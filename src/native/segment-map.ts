/**
 * A native disk file as ordered segments over a guest's disk.
 *
 * A synthesizer is a pure function from geometry to a SegmentMap: no file and no image is needed to make one. The disk is asked
 * for only when a `disk` segment is read, so that metadata reads never open an image.
 */
import { firstIndex } from '../base/search.ts';
import { assert, UsageError } from '../base/errors.ts';
import { mergeExtents, type Disk, type Extent } from '../disk/disk.ts';

export type Segment =
  /** Constant bytes: headers. */
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'zeros'; readonly lengthBytes: number }
  /** Tables made only when they are read: `fill` writes bytes [offset, offset + target.length) of the segment. */
  | {
      readonly kind: 'computed';
      readonly lengthBytes: number;
      readonly fill: (target: Uint8Array, offset: number) => void;
    }
  /** A range of the guest's disk. */
  | { readonly kind: 'disk'; readonly lengthBytes: number; readonly diskOffset: number };

/** The guest's disk, opened when it is first needed. */
export type DiskSource = () => Disk;

export class SegmentMap {
  readonly sizeBytes: number;
  readonly #segments: readonly Segment[];
  /** File offset of each segment. */
  readonly #starts: Float64Array;

  constructor(segments: readonly Segment[]) {
    this.#segments = segments.filter((segment) => segmentLength(segment) > 0);
    this.#starts = new Float64Array(this.#segments.length);
    let end = 0;
    for (const [index, segment] of this.#segments.entries()) {
      this.#starts[index] = end;
      end += segmentLength(segment);
    }
    assert(Number.isSafeInteger(end), 'a native disk file is larger than 2^53 bytes');
    this.sizeBytes = end;
  }

  /**
   * Fills all of target from file offset `offset`, or throws.
   * @throws UsageError past the end of the file; whatever the disk throws
   */
  read(target: Uint8Array, offset: number, disk: DiskSource): void {
    let done = 0;
    for (const piece of this.#pieces(offset, target.length)) {
      readPiece(target.subarray(done, done + piece.lengthBytes), piece.segment, piece.within, disk);
      done += piece.lengthBytes;
    }
    assert(done === target.length, 'segments left a gap');
  }

  /** The runs of file bytes; only ranges of the disk ask the disk. */
  extents(offset: number, length: number, disk: DiskSource): Iterable<Extent> {
    return mergeExtents(this.#extents(offset, length, disk));
  }

  /** Whether reading [offset, offset+length) needs the disk. */
  needsDisk(offset: number, length: number): boolean {
    for (const piece of this.#pieces(offset, length)) {
      if (piece.segment.kind === 'disk') return true;
    }
    return false;
  }

  /** Where the disk's bytes lie in the file, in file order: for tables, checks and copies. */
  *diskRanges(): Generator<{ fileOffset: number; diskOffset: number; lengthBytes: number }> {
    for (const [index, segment] of this.#segments.entries()) {
      if (segment.kind !== 'disk') continue;
      yield { fileOffset: this.#starts[index] ?? 0, diskOffset: segment.diskOffset, lengthBytes: segment.lengthBytes };
    }
  }

  *#extents(offset: number, length: number, disk: DiskSource): Generator<Extent> {
    let at = offset;
    for (const { segment, within, lengthBytes } of this.#pieces(offset, length)) {
      if (segment.kind === 'disk') {
        const shift = at - (segment.diskOffset + within);
        for (const extent of disk().extents(segment.diskOffset + within, lengthBytes)) {
          yield { ...extent, offset: extent.offset + shift };
        }
      } else {
        yield { offset: at, length: lengthBytes, kind: segment.kind === 'zeros' ? 'zero' : 'data' };
      }
      at += lengthBytes;
    }
  }

  *#pieces(offset: number, length: number): Generator<{ segment: Segment; within: number; lengthBytes: number }> {
    if (!(Number.isSafeInteger(offset) && offset >= 0 && length >= 0 && offset + length <= this.sizeBytes)) {
      throw new UsageError(`bytes ${offset} to ${offset + length} are not inside a file of ${this.sizeBytes} bytes`);
    }
    const end = offset + length;
    let at = offset;
    for (let index = this.#indexAt(offset); at < end; index++) {
      const segment = this.#segments[index];
      assert(segment !== undefined, 'segments end before the file does');
      const within = at - (this.#starts[index] ?? 0);
      const lengthBytes = Math.min(segmentLength(segment) - within, end - at);
      yield { segment, within, lengthBytes };
      at += lengthBytes;
    }
  }

  /** Index of the last segment that starts at or before `offset`. */
  #indexAt(offset: number): number {
    const starts = this.#starts;
    return Math.max(0, firstIndex(starts.length, (index) => (starts[index] ?? 0) > offset) - 1);
  }
}

/** The bytes of a native file over an open disk as a disk themselves. Does not own the disk. */
export function segmentDisk(map: SegmentMap, disk: Disk): Disk {
  return {
    sizeBytes: map.sizeBytes,
    read: (target, offset) => map.read(target, offset, () => disk),
    extents: (offset, length) => map.extents(offset, length, () => disk),
    close() {},
  };
}

function segmentLength(segment: Segment): number {
  return segment.kind === 'bytes' ? segment.bytes.length : segment.lengthBytes;
}

function readPiece(target: Uint8Array, segment: Segment, within: number, disk: DiskSource): void {
  switch (segment.kind) {
    case 'bytes':
      target.set(segment.bytes.subarray(within, within + target.length));
      return;
    case 'zeros':
      target.fill(0);
      return;
    case 'computed':
      segment.fill(target, within);
      return;
    case 'disk':
      disk().read(target, segment.diskOffset + within);
  }
}
