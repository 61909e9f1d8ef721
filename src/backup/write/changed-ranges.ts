/** The ranges of a disk that changed since the parent, as whatever tracks changes reports them. */
import { FormatError, UsageError } from '../../base/errors.ts';
import { closeAll } from '../../base/ownership.ts';
import { firstEndingAfter, mergeRanges, type ByteRange } from '../../disk/byte-ranges.ts';
import { checkRange, mergeExtents, type Disk, type Extent } from '../../disk/disk.ts';

/** Entries in one list: 64 MiB of text or so. */
const maxRanges = 1_000_000;

/**
 * Reads a JSON array of objects with `offset` and `length` in bytes; other keys are left alone. The result is sorted and merged.
 * @throws FormatError, UsageError naming the entry that is wrong
 */
export function parseChangedRanges(text: string, name: string): ByteRange[] {
  const list = parseArray(text, name);
  if (list.length > maxRanges)
    throw new UsageError(`${name}: has ${list.length} ranges, more than the limit of ${maxRanges}`);
  return mergeRanges(list.map((entry, index) => parseRange(entry, index, name)));
}

/** The first byte at or after `from` inside a range; Infinity when none follows. `ranges` as `mergeRanges` returns them. */
export function nextChange(ranges: readonly ByteRange[], from: number): number {
  const range = ranges[firstEndingAfter(ranges, from)];
  return range === undefined ? Number.POSITIVE_INFINITY : Math.max(range.offset, from);
}

/**
 * The disk with only `ranges` read from `current` and all the rest from `before`, whose end reads as zeros. Owns both.
 * @param ranges as `mergeRanges` returns them
 */
export function overlayRanges(before: Disk, current: Disk, ranges: readonly ByteRange[]): Disk {
  const sizeBytes = current.sizeBytes;

  /** The pieces of [offset, offset+length), each all changed or all unchanged. */
  function* pieces(offset: number, length: number): Generator<Extent & { changed: boolean }> {
    const end = offset + length;
    let index = firstEndingAfter(ranges, offset);
    for (let at = offset; at < end;) {
      const range = ranges[index];
      const from = range === undefined ? end : Math.min(Math.max(range.offset, at), end);
      const to = range === undefined ? end : Math.min(range.offset + range.length, end);
      if (from > at) yield { offset: at, length: from - at, kind: 'data', changed: false };
      if (to > from) yield { offset: from, length: to - from, kind: 'data', changed: true };
      at = Math.max(to, from);
      index++;
    }
  }

  function* unmerged(offset: number, length: number): Generator<Extent> {
    for (const piece of pieces(offset, length)) {
      if (piece.changed) {
        yield* current.extents(piece.offset, piece.length);
        continue;
      }
      const inBefore = Math.max(0, Math.min(piece.length, before.sizeBytes - piece.offset));
      if (inBefore > 0) yield* before.extents(piece.offset, inBefore);
      if (inBefore < piece.length)
        yield { offset: piece.offset + inBefore, length: piece.length - inBefore, kind: 'zero' };
    }
  }

  const disk: Disk = {
    sizeBytes,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      for (const piece of pieces(offset, target.length)) {
        const part = target.subarray(piece.offset - offset, piece.offset - offset + piece.length);
        if (piece.changed) {
          current.read(part, piece.offset);
          continue;
        }
        const inBefore = Math.max(0, Math.min(piece.length, before.sizeBytes - piece.offset));
        if (inBefore > 0) before.read(part.subarray(0, inBefore), piece.offset);
        part.fill(0, inBefore);
      }
    },
    extents(offset, length) {
      checkRange(disk, offset, length);
      return mergeExtents(unmerged(offset, length));
    },
    close() {
      closeAll([before, current]);
    },
  };
  return disk;
}

function parseArray(text: string, name: string): unknown[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FormatError(name, 'JSON', 0, 'cannot be parsed', { cause: error });
  }
  if (!Array.isArray(value)) {
    throw new FormatError(name, 'JSON', 0, 'is not an array of {"offset": bytes, "length": bytes}');
  }
  return value;
}

function parseRange(entry: unknown, index: number, name: string): ByteRange {
  if (typeof entry === 'object' && entry !== null && 'offset' in entry && 'length' in entry) {
    const { offset, length } = entry;
    if (isSize(offset) && isSize(length) && Number.isSafeInteger(offset + length)) return { offset, length };
  }
  throw new FormatError(
    name,
    `entry ${index}`,
    0,
    'is not {"offset": bytes, "length": bytes} with whole numbers of bytes',
  );
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
