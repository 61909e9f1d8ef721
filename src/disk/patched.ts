/** A disk with some of its bytes replaced: what a reconfigured guest reads. Owns the disk below it. */
import { firstIndex } from '../base/search.ts';
import { assert, UsageError } from '../base/errors.ts';
import { checkRange, mergeExtents, type Disk, type Extent } from './disk.ts';

export interface Patch {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** A patch whose bytes lie elsewhere, and are read when they are asked for. */
export interface StoredPatch {
  readonly offset: number;
  readonly lengthBytes: number;
  /** Fills all of target from the patch's byte `from` on. */
  read(target: Uint8Array, from: number): void;
}

class HeldPatch implements StoredPatch {
  readonly offset: number;
  readonly #bytes: Uint8Array;

  constructor({ offset, bytes }: Patch) {
    this.offset = offset;
    this.#bytes = bytes;
  }

  get lengthBytes(): number {
    return this.#bytes.length;
  }

  read(target: Uint8Array, from: number): void {
    target.set(this.#bytes.subarray(from, from + target.length));
  }
}

/**
 * @param patches in any order, not overlapping, inside the disk
 * @throws UsageError when two overlap or one lies outside
 */
export function patchedDisk(below: Disk, patches: readonly (Patch | StoredPatch)[]): Disk {
  const sorted = patches
    .map((patch) => ('bytes' in patch ? new HeldPatch(patch) : patch))
    .filter((patch) => patch.lengthBytes > 0)
    .sort((a, b) => a.offset - b.offset);
  let end = 0;
  for (const patch of sorted) {
    checkRange(below, patch.offset, patch.lengthBytes);
    if (patch.offset < end) throw new UsageError(`two patches overlap at byte ${patch.offset}`);
    end = patch.offset + patch.lengthBytes;
  }

  /** The patches that touch [offset, offset+length), found by binary search. */
  function* touching(offset: number, length: number): Generator<StoredPatch> {
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
      const to = Math.min(patch.offset + patch.lengthBytes, offset + length);
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
        const to = Math.min(patch.offset + patch.lengthBytes, offset + target.length);
        patch.read(target.subarray(from - offset, to - offset), from - patch.offset);
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

function firstEndingAfter(patches: readonly StoredPatch[], offset: number): number {
  return firstIndex(patches.length, (index) => {
    const patch = patches[index];
    assert(patch !== undefined, 'binary search left its list');
    return patch.offset + patch.lengthBytes > offset;
  });
}
