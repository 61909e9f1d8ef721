/**
 * Which units of a native file may differ from the synthesized one, read from its map without disturbing a mount that has it open. What the
 * map does not know of counts as written: who asks may so read too much, and never too little.
 */
import * as fs from '../base/fs.ts';
import { VeneerError } from '../base/errors.ts';
import { openRegular } from '../base/regular-file.ts';
import { hasReplacement, mapPathOf } from '../plugin/beside.ts';
import type { ReplacementPlace } from './beside.ts';
import { currentBootId, loadPages, readHeader } from './map-file.ts';
import { presentBit, unitBytes, writtenBit } from './layout.ts';
import { unitCountOf } from './open.ts';
import { newPresence, PresenceMap } from './presence-map.ts';

/** Whether any byte of [offset, offset + lengthBytes) may be another than it was synthesized. */
export type IsWritten = (offset: number, lengthBytes: number) => boolean;

const allWritten: IsWritten = () => true;

/**
 * The writes that were acknowledged until now.
 * @returns undefined when nothing has been written
 */
export function readWrittenUnits(place: ReplacementPlace): IsWritten | undefined {
  if (!hasReplacement(place.path)) return undefined;
  try {
    return readMap(place);
  } catch (error) {
    // Damaged, or gone since: it says nothing.
    if (error instanceof VeneerError || (error instanceof Error && 'syscall' in error)) return allWritten;
    throw error;
  }
}

function readMap(place: ReplacementPlace): IsWritten {
  const mapPath = mapPathOf(place.path);
  const fd = openRegular(mapPath, fs.constants.O_RDONLY);
  try {
    const map = new PresenceMap(newPresence(unitCountOf(place.baseBytes)));
    const { bootId } = readHeader(fd, mapPath).header;
    const sameBoot = bootId === currentBootId();
    loadPages(fd, map, sameBoot, mapPath);
    // After the pages: what they do not tell of, it tells of by now.
    const { header } = readHeader(fd, mapPath);
    const isForeign = header.pluginId !== place.pluginId || header.baseBytes !== BigInt(place.baseBytes);
    if (isForeign || header.direct !== 0 || header.bootId !== bootId) return allWritten;
    // After a power loss a unit may hold writes that its bits do not tell of.
    const counts = sameBoot && header.suspect === 0 ? writtenBit : presentBit | writtenBit;
    // Behind this it is not as synthesized, though nobody wrote there: it was cut, or has grown.
    const visibleBytes = Number(header.visibleBytes);
    return (offset, lengthBytes) => {
      if (lengthBytes > 0 && offset + lengthBytes > visibleBytes) return true;
      const end = Math.ceil((offset + lengthBytes) / unitBytes);
      for (let unit = Math.floor(offset / unitBytes); unit < end; unit++) {
        if (unit >= map.unitCount || (map.get(unit) & counts) !== 0) return true;
      }
      return false;
    };
  } finally {
    fs.closeSync(fd);
  }
}
