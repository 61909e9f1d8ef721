/** A disk that is all zeros, of any size. */
import { checkRange, type Disk, type Extent } from './disk.ts';

export function zeroDisk(sizeBytes: number): Disk {
  const disk: Disk = {
    sizeBytes,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      target.fill(0);
    },
    *extents(offset, length): Generator<Extent> {
      checkRange(disk, offset, length);
      if (length > 0) yield { offset, length, kind: 'zero' };
    },
    close() {},
  };
  return disk;
}
