/** A disk over bytes in memory. */
import { checkRange, type Disk, type Extent } from './disk.ts';

export function memoryDisk(contents: Uint8Array): Disk {
  const disk: Disk = {
    sizeBytes: contents.length,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      target.set(contents.subarray(offset, offset + target.length));
    },
    *extents(offset, length): Generator<Extent> {
      checkRange(disk, offset, length);
      if (length > 0) yield { offset, length, kind: 'data' };
    },
    close() {},
  };
  return disk;
}
