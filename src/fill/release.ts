/**
 * Gives back the room of what the fill has copied, when it is cancelled: units that the guest did not write are taken from the synthesized
 * file again.
 *
 * Crash order, for each page of the map, while nobody writes, flushes or changes the size:
 * 1. the bits of these units are cleared in the live and in the durable page, and the map is flushed
 * 2. in memory
 * 3. their data becomes holes
 * After a crash before 1 is done, they are present or not, and right either way; before 3, their room is taken until they are written again.
 */
import { UnavailableError } from '../base/errors.ts';
import { flushFile } from '../base/durable.ts';
import { presentBit, unitBytes, unitsPerPage, writtenBit } from '../replacement/layout.ts';
import { clearPage } from '../replacement/map-file.ts';
import { PresenceMap } from '../replacement/presence-map.ts';
import { dataFileOf, requireSound, shared, type SharedReplacement } from '../replacement/shared.ts';

/** Its bits of two kinds, one above the other: `present` and `written` of every unit of a byte. */
const presentBits = 0b01010101;

/**
 * After a power loss nothing is given back: such a unit may hold a write that the guest has seen since.
 * @throws UnavailableError, CapacityError: what was not given back by then stays as it is, and is right
 */
export function releaseCopies(parts: SharedReplacement): void {
  const map = new PresenceMap(parts.presence);
  const numbers = new BigInt64Array(parts.numbers);
  requireSound(parts);
  if (Atomics.load(numbers, shared.suspect) !== 0n) return;
  for (let page = 0; page < map.pageCount; page++) {
    if (!hasCopies(map.page(page))) continue;
    map.locked('flush', 0, () =>
      map.allUnitsLocked(() => {
        requireSound(parts);
        // Readers that hold no lock read again.
        Atomics.add(numbers, shared.resizes, 1n);
        try {
          releasePage(parts, map, page);
        } finally {
          Atomics.add(numbers, shared.resizes, 1n);
        }
      }),
    );
  }
}

function hasCopies(page: Uint8Array): boolean {
  return page.some((byte) => (byte & presentBits & ~(byte >>> 1)) !== 0);
}

function releasePage(parts: SharedReplacement, map: PresenceMap, page: number): void {
  const units: number[] = [];
  for (let unit = page * unitsPerPage; unit < (page + 1) * unitsPerPage; unit++)
    if ((map.get(unit) & (presentBit | writtenBit)) === presentBit) units.push(unit);
  clearPage(parts.mapFd, map, page, units, parts.name, () => flushFile(parts.mapFd, parts.name));
  const file = dataFileOf(parts, map);
  for (const unit of units) {
    try {
      file.makeHole(unit * unitBytes, unitBytes);
    } catch (error) {
      // A file system without holes keeps the room; the data is not looked at any more.
      if (!(error instanceof UnavailableError)) throw error;
    }
  }
}
