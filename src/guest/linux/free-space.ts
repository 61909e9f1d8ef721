/**
 * Room on a disk that belongs to nothing: between the partition table with its boot loader and the first partition. Sectors there that hold
 * zeros, behind the last that does not, are free.
 */
import { alignUp } from '../../base/ranges.ts';
import { KiB, MiB } from '../../base/units.ts';
import type { GuestDisk } from '../../volume/open-disk.ts';

export interface FreeSpace {
  readonly offset: number;
  readonly lengthBytes: number;
}

const sectorBytes = 512;
/** Boot loaders lie in front; what else hides in the first MiB (RAID, licences of programs) is not zero. */
const searchedBytes = 4 * MiB;
/** Left free behind what is used: a boot loader that is updated may grow. */
const marginBytes = 32 * KiB;
const gptTableEnd = 34 * sectorBytes;

/** @returns undefined where there is no partition table or no room */
export function freeSpaceBeforePartitions(guest: GuestDisk): FreeSpace | undefined {
  const { table, disk } = guest;
  if (table === undefined || table.partitions.length === 0) return undefined;
  const firstPartition = Math.min(...table.partitions.map(({ startBytes }) => startBytes));
  const end = Math.min(firstPartition, searchedBytes, disk.sizeBytes);
  const start = table.style === 'gpt' ? gptTableEnd : sectorBytes;
  if (end <= start) return undefined;
  const bytes = new Uint8Array(end - start);
  disk.read(bytes, start);
  const used = bytes.findLastIndex((byte) => byte !== 0) + 1;
  const offset = start + (used === 0 ? 0 : alignUp(used + marginBytes, sectorBytes));
  return offset < end ? { offset, lengthBytes: end - offset } : undefined;
}
