/** Which units of a native file have been written, read from its map without disturbing a mount that has it open. */
import * as fs from '../base/fs.ts';
import { currentBootId, loadPages, readHeader } from './map-file.ts';
import { presentBit, unitBytes, writtenBit } from './layout.ts';
import { hasReplacement, mapPathOf, unitCountOf, type ReplacementPlace } from './open.ts';
import { newPresence, PresenceMap } from './presence-map.ts';
import { FormatError } from '../base/errors.ts';

/** Whether any byte of [offset, offset + lengthBytes) lies in a unit that was written. */
export type IsWritten = (offset: number, lengthBytes: number) => boolean;

/**
 * The writes that were acknowledged until now.
 * @returns undefined when nothing has been written
 * @throws FormatError when the map is damaged or belongs to another plugin file
 */
export function readWrittenUnits(place: ReplacementPlace): IsWritten | undefined {
  if (!hasReplacement(place.path)) return undefined;
  const mapPath = mapPathOf(place.path);
  const fd = fs.openSync(mapPath, 'r');
  try {
    const { header } = readHeader(fd, mapPath);
    if (header.pluginId !== place.pluginId || header.baseBytes !== BigInt(place.baseBytes)) {
      throw new FormatError(mapPath, 'plugin file', 16, 'holds writes of another plugin file');
    }
    const map = new PresenceMap(newPresence(unitCountOf(place.baseBytes)));
    const sameBoot = header.bootId === currentBootId();
    loadPages(fd, map, sameBoot, mapPath);
    if (header.direct !== 0) return () => true;
    // After a power loss a unit may hold writes that its bits do not tell of.
    const counts = sameBoot && header.suspect === 0 ? writtenBit : presentBit | writtenBit;
    return (offset, lengthBytes) => {
      const end = Math.min(Math.ceil((offset + lengthBytes) / unitBytes), map.unitCount);
      for (let unit = Math.floor(offset / unitBytes); unit < end; unit++) {
        if ((map.get(unit) & counts) !== 0) return true;
      }
      return false;
    };
  } finally {
    fs.closeSync(fd);
  }
}
