/**
 * Room for a fill on the disk below. Guests write to the same disk: what a fill may take ends where it could keep one of them from writing.
 */
import * as fs from '../base/fs.ts';
import { CapacityError } from '../base/errors.ts';
import { formatBytes, GiB, MiB } from '../base/units.ts';
import type { SharedReplacement } from '../replacement/shared.ts';

/** Time to notice and to make room: at 100 MB/s of new writes, ten seconds. A small disk has less to give. */
const maxReserveBytes = GiB;
/** More than the chunks that all threads copy at a time: each looks before its own, and does not know of the others'. */
const minReserveBytes = 4 * MiB;
const reserveShare = 0.01;

/**
 * @param neededBytes what is to be copied now
 * @throws CapacityError where less than that is free beside the reserve
 */
export function requireRoom({ name, dataFd }: SharedReplacement, neededBytes: number): void {
  const { bavail, blocks, bsize } = fs.statfsSync(`/proc/self/fd/${dataFd}`);
  const reserveBytes = Math.max(minReserveBytes, Math.min(maxReserveBytes, blocks * bsize * reserveShare));
  const freeBytes = bavail * bsize;
  if (freeBytes >= neededBytes + reserveBytes) return;
  const needed = neededBytes === 0 ? '' : `needs ${formatBytes(neededBytes)} more and `;
  throw new CapacityError(
    `${name}: the fill ${needed}leaves ${formatBytes(reserveBytes)} to guests, and its disk has ${formatBytes(freeBytes)}; make room, then go on with: veneer fill resume`,
  );
}
