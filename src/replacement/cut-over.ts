/**
 * The moment from which a data file is the disk: what the guest sees and what the file holds must be the same, to the last byte, before the
 * map is not asked any more. They may differ where a thread died, or failed, in the middle of a write that it never acknowledged: the file is
 * longer then, or holds something in a unit that counts as not there, and so reads as zeros.
 *
 * Crash order, while nobody writes, flushes or changes the size:
 * 1. the file gets the length that the guest sees
 * 2. units that are not there are made zero: all below the visible size are there by now
 * 3. the file is flushed, if anything of it changed; then `commit`
 * A crash before the end of 3 leaves a replacement that is being filled, and reads as before.
 */
import { flushFile } from '../base/durable.ts';
import type { DataFile } from './data-file.ts';
import { unitBytes } from './layout.ts';
import type { PresenceMap } from './presence-map.ts';
import { dataFileOf, shared, type SharedReplacement } from './shared.ts';

/**
 * The caller holds the flush lock.
 * @param commit writes the header that says so, and tells the threads
 * @throws CapacityError, UnavailableError; nothing is cut over then
 */
export function cutOver(parts: SharedReplacement, map: PresenceMap, commit: () => void): void {
  const numbers = new BigInt64Array(parts.numbers);
  map.allUnitsLocked(() => {
    // Readers, who hold no lock, read again.
    Atomics.add(numbers, shared.resizes, 1n);
    try {
      const file = dataFileOf(parts, map);
      const sizeBytes = Number(Atomics.load(numbers, shared.sizeBytes));
      const isCut = file.sizeBytes !== sizeBytes;
      if (isCut) file.resize(sizeBytes);
      const visibleUnits = Math.ceil(Number(Atomics.load(numbers, shared.visibleBytes)) / unitBytes);
      if (emptyUnits(file, map, visibleUnits, sizeBytes) || isCut) flushFile(parts.dataFd, parts.name);
      commit();
    } finally {
      Atomics.add(numbers, shared.resizes, 1n);
    }
  });
}

/** Makes zero what is there of units, from `first` on, that the map does not have. @returns whether there was anything */
function emptyUnits(file: DataFile, map: PresenceMap, first: number, sizeBytes: number): boolean {
  let isAny = false;
  for (let at = file.nextData(first * unitBytes); at !== undefined && at < sizeBytes;) {
    const unit = Math.floor(at / unitBytes);
    const end = Math.min((unit + 1) * unitBytes, sizeBytes);
    if (!map.isPresent(unit)) {
      file.zero(unit * unitBytes, end - unit * unitBytes);
      isAny = true;
    }
    at = file.nextData(end);
  }
  return isAny;
}
