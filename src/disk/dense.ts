/** A disk of which all counts as data, also what is known to be zeros: room that may be filled later. Owns the disk below it. */
import { checkRange, type Disk, type Extent } from './disk.ts';

export function denseDisk(below: Disk): Disk {
  return {
    sizeBytes: below.sizeBytes,
    read: (target, offset) => below.read(target, offset),
    *extents(offset, length): Generator<Extent> {
      checkRange(below, offset, length);
      if (length > 0) yield { offset, length, kind: 'data' };
    },
    close: () => below.close(),
  };
}
