/** The Disk: the one interface that image chains, partitions, files and patched disks share. */
import { assert, UsageError } from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';

/** A run of a disk. `zero` is known to read as zeros; `data` may be anything. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly kind: 'data' | 'zero';
}

export interface Disk extends Closable {
  readonly sizeBytes: number;
  /** Fills all of target from offset, or throws: never short, never zeros for what could not be read. */
  read(target: Uint8Array, offset: number): void;
  /**
   * The runs of [offset, offset+length), in order, without gaps, neighbours of one kind merged where that is cheap.
   * Never reads data. Lazy: a caller that stops early pays only for what it saw.
   */
  extents(offset: number, length: number): Iterable<Extent>;
}

/** @throws UsageError when [offset, offset+length) is not inside the disk. */
export function checkRange(disk: Disk, offset: number, length: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (!(whole && offset >= 0 && length >= 0 && offset + length <= disk.sizeBytes)) {
    throw new UsageError(`bytes ${offset} to ${offset + length} are not inside a disk of ${disk.sizeBytes} bytes`);
  }
}

/** Joins neighbours of one kind, so that runs come out as long as they are. */
export function* mergeExtents(extents: Iterable<Extent>): Generator<Extent> {
  let pending: Extent | undefined;
  for (const extent of extents) {
    if (extent.length === 0) continue;
    if (pending === undefined) {
      pending = extent;
    } else if (pending.kind === extent.kind) {
      assert(pending.offset + pending.length === extent.offset, 'extents leave a gap');
      pending = { offset: pending.offset, length: pending.length + extent.length, kind: pending.kind };
    } else {
      yield pending;
      pending = extent;
    }
  }
  if (pending !== undefined) yield pending;
}
