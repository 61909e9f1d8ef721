/** What an edit of a disk or of a file in it comes to: bytes that are replaced by as many others, and what is told of each. */
import { FormatError, IntegrityError, UnsupportedError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';

/** Bytes of a disk that are replaced by as many others. */
export interface Patch {
  readonly offsetBytes: number;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

/** One thing that is done, as people read it. */
export interface Change {
  readonly what: string;
  /** A path in the guest, with the place in it: `/etc/fstab line 3`, `SYSTEM: ControlSet001\Services\storahci`. */
  readonly where: string;
  readonly old: string;
  readonly new: string;
  readonly why: string;
}

/** More than any plan needs: hives are the largest thing that is patched. */
export const maxPatchedBytes = 128 * MiB;
export const maxPatches = 65_536;
/** What a patch replaces is held against the disk in pieces. */
const comparedBytes = MiB;

/** Where bytes of a disk are replaced, and what was there when the plan was made. */
export interface PatchPlace {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Fills all of target with what was there, from the patch's byte `from` on. */
  readBefore(target: Uint8Array, from: number): void;
}

/**
 * The patches in the order of the disk, having been held against it.
 * @throws FormatError, IntegrityError when one lies outside the disk, overlaps another, or the disk holds something else than `before`
 * @throws UnsupportedError when there are more than the limits
 */
export function checkPatches(patches: readonly Patch[], disk: Disk): readonly Patch[] {
  const places = patches.map((patch) => {
    const { offsetBytes, before, after } = patch;
    if (before.length !== after.length)
      throw new FormatError('patch', 'length', offsetBytes, `${after.length} bytes for ${before.length}`);
    const readBefore = (target: Uint8Array, from: number): void =>
      target.set(before.subarray(from, from + target.length));
    return { offsetBytes, lengthBytes: after.length, readBefore, patch };
  });
  return checkPlaces(places, disk).map(({ patch }) => patch);
}

/** The same of places. */
export function checkPlaces<P extends PatchPlace>(places: readonly P[], disk: Disk): readonly P[] {
  const sorted = [...places].sort((a, b) => a.offsetBytes - b.offsetBytes);
  if (sorted.length > maxPatches)
    throw new UnsupportedError(`${sorted.length} patches; at most ${maxPatches} are kept`);
  let end = 0;
  let patchedBytes = 0;
  for (const place of sorted) {
    const { offsetBytes, lengthBytes } = place;
    const wrong = (field: string, detail: string): FormatError => new FormatError('patch', field, offsetBytes, detail);
    if (lengthBytes === 0) throw wrong('length', 'has no bytes');
    if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || offsetBytes + lengthBytes > disk.sizeBytes)
      throw wrong('offset', `is not inside a disk of ${disk.sizeBytes} bytes`);
    if (offsetBytes < end) throw wrong('offset', 'overlaps the patch before it');
    end = offsetBytes + lengthBytes;
    patchedBytes += lengthBytes;
    if (patchedBytes > maxPatchedBytes)
      throw new UnsupportedError(`more than ${maxPatchedBytes} bytes would be patched`);
    compare(place, disk);
  }
  return sorted;
}

function compare(place: PatchPlace, disk: Disk): void {
  const { offsetBytes, lengthBytes } = place;
  const found = Buffer.alloc(Math.min(comparedBytes, lengthBytes));
  const before = Buffer.alloc(found.length);
  for (let from = 0; from < lengthBytes; from += found.length) {
    const length = Math.min(found.length, lengthBytes - from);
    disk.read(found.subarray(0, length), offsetBytes + from);
    place.readBefore(before.subarray(0, length), from);
    if (found.compare(before, 0, length, 0, length) === 0) continue;
    throw new IntegrityError(
      `the disk at byte ${offsetBytes}, which a patch replaces`,
      'what the plan was made of',
      'other bytes',
    );
  }
}
