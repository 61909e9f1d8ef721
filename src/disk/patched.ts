/** A disk with some of its bytes replaced: what a reconfigured guest reads. Owns the disk below it. */
import { assert, UsageError } from '../base/errors.ts';
import { checkRange, mergeExtents, type Disk, type Extent } from './disk.ts';

export interface Patch {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/**
 * @param patches in any order, not overlapping, inside the disk
 * @throws UsageError when two overlap or one lies outside
 */
export function patchedDisk(below: Disk, patches: readonly Patch[]): Disk {
  const sorted = [...patches].filter((patch) => patch.bytes.length > 0).sort((a, b) => a.offset - b.offset);
  let end = 0;
  for (const patch of sorted) {
    checkRange(below, patch.offset, patch.bytes.length);
    if (patch.offset < end) throw new UsageError(`two patches overlap at byte ${patch.offset}`);
    end = patch.offset + patch.bytes.length;
  }

  /** The patches that touch [offset, offset+length), found by binary search. */
  function* touching(offset: number, length: number): Generator<Patch> {
    for (let index = firstEndingAfter(sorted, offset); index < sorted.length; index++) {
      const patch = sorted[index];
      if (patch === undefined || patch.offset >= offset + length) return;
      yield patch;
    }
  }

  function* unmerged(offset: number, length: number): Generator<Extent> {
    let at = offset;
    for (const patch of touching(offset, length)) {
      const from = Math.max(patch.offset, offset);
      const to = Math.min(patch.offset + patch.bytes.length, offset + length);
      if (from > at) yield* below.extents(at, from - at);
      yield { offset: from, length: to - from, kind: 'data' };
      at = to;
    }
    if (at < offset + length) yield* below.extents(at, offset + length - at);
  }

  const disk: Disk = {
    sizeBytes: below.sizeBytes,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      below.read(target, offset);
      for (const patch of touching(offset, target.length)) {
        const from = Math.max(patch.offset, offset);
        const to = Math.min(patch.offset + patch.bytes.length, offset + target.length);
        target.set(patch.bytes.subarray(from - patch.offset, to - patch.offset), from - offset);
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

function firstEndingAfter(patches: readonly Patch[], offset: number): number {
  let low = 0;
  let high = patches.length;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const patch = patches[middle];
    assert(patch !== undefined, 'binary search left its list');
    if (patch.offset + patch.bytes.length > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}
