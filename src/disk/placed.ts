/** Disks at given offsets of a larger one, with zeros between them: partitions on a disk, for one. Owns the disks below it. */
import { UsageError } from '../base/errors.ts';
import { concatDisks } from './concat.ts';
import type { Disk } from './disk.ts';
import { zeroDisk } from './zero.ts';

export interface PlacedDisk {
  readonly offset: number;
  readonly disk: Disk;
}

/**
 * @param placed in any order
 * @throws UsageError when two overlap or one lies outside
 */
export function placeDisks(sizeBytes: number, placed: readonly PlacedDisk[]): Disk {
  const parts: Disk[] = [];
  let end = 0;
  for (const { offset, disk } of placed.toSorted((a, b) => a.offset - b.offset)) {
    if (offset < end || offset + disk.sizeBytes > sizeBytes) {
      throw new UsageError(
        `what is placed at byte ${offset} overlaps with something else, or ends behind a disk of ${sizeBytes} bytes`,
      );
    }
    if (offset > end) parts.push(zeroDisk(offset - end));
    parts.push(disk);
    end = offset + disk.sizeBytes;
  }
  if (sizeBytes > end) parts.push(zeroDisk(sizeBytes - end));
  return concatDisks(parts);
}
