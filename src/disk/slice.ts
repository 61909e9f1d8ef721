/** A range of another disk as a disk of its own: a partition, for one. Owns the disk below it. */
import { checkRange, type Disk, type Extent } from './disk.ts';

export function sliceDisk(below: Disk, start: number, sizeBytes: number): Disk {
  checkRange(below, start, sizeBytes);
  const disk: Disk = {
    sizeBytes,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      below.read(target, start + offset);
    },
    *extents(offset, length): Generator<Extent> {
      checkRange(disk, offset, length);
      for (const extent of below.extents(start + offset, length)) yield { ...extent, offset: extent.offset - start };
    },
    close() {
      below.close();
    },
  };
  return disk;
}
