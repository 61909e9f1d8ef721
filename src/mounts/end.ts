/** Ends a mount from another process: unmounts, tells the process that serves it, and waits until that is gone. */
import { setTimeout as sleep } from 'node:timers/promises';
import { UsageError } from '../base/errors.ts';
import { askMount } from './control.ts';
import { findRecord, isAlive, mountFiles, removeRecord } from './mount-record.ts';
import { mountedPath } from './mounted-path.ts';
import { isDeadMount, isMountpoint, unmount } from './mountpoint.ts';

const endsWithinMs = 10_000;
const lookEveryMs = 20;

/**
 * Nothing of the mount is asked for what it has mounted: it may be stuck.
 * @param mountpoint absolute
 * @throws UsageError when nothing is mounted there, or it is busy
 */
export async function endMount(mountpoint: string, lazily: boolean): Promise<void> {
  const real = mountedPath(mountpoint);
  const record = findRecord(real);
  const dead = isDeadMount(real);
  if (!dead && !isMountpoint(real)) throw new UsageError(`${mountpoint}: is not mounted`);
  if (!dead && record === undefined) throw new UsageError(`${mountpoint}: was not mounted by veneer; use umount`);
  await unmount(real, lazily || dead);
  if (record === undefined) {
    removeRecord(real);
    return;
  }
  // It would notice by itself; this is quicker.
  await askMount(mountFiles(real).socket, 'stop', {}).catch(() => undefined);
  for (let waitedMs = 0; isAlive(record.pid) && waitedMs < endsWithinMs; waitedMs += lookEveryMs)
    await sleep(lookEveryMs);
  removeRecord(real);
}
