/**
 * What a crash of `finalize` has left in a folder: it is never shown, and cleared away when somebody looks at it; in the mounted folder itself
 * at mount.
 */
import * as fs from '../base/fs.ts';
import { LRUCache } from 'lru-cache';
import { describeError } from '../base/errors.ts';
import { mapPathOf } from '../plugin/beside.ts';
import { removeLeftover, removeLeftovers } from '../replacement/leftovers.ts';
import type { Log } from '../base/log.ts';
import type { Place } from './place.ts';

/** Maps that have been looked at; of more, some are looked at again. */
const maxSeen = 4096;

export class SeenLeftovers {
  readonly #log: Log;
  /** By the state of the map: whether it is such a one, and cannot be removed. */
  readonly #seen = new LRUCache<string, boolean>({ max: maxSeen });

  constructor(log: Log) {
    this.#log = log;
  }

  /** @param stem that data and map in the folder have */
  isOne(folder: Place, stem: string): boolean {
    const map = fs.lstatSync(mapPathOf(`${folder.at}/${stem}`), { bigint: true, throwIfNoEntry: false });
    if (map === undefined) return false;
    const key = `${map.dev}:${map.ino}:${map.ctimeNs}`;
    const known = this.#seen.get(key);
    if (known !== undefined) return known;
    try {
      const found = removeLeftover(folder.at, stem);
      if (!found) this.#seen.set(key, false);
      return found;
    } catch (error) {
      tellFailure(error, this.#log);
      this.#seen.set(key, true);
      return true;
    }
  }
}

/** It is in nobody's way: nothing fails by it. */
export function clearLeftovers(folder: string, log: Log): void {
  try {
    for (const file of removeLeftovers(folder))
      log('info', `${file}: is in its place; what an interrupted finalize had left beside it was removed`, {});
  } catch (error) {
    tellFailure(error, log);
  }
}

function tellFailure(error: unknown, log: Log): void {
  log('warn', `what an interrupted finalize has left stays: ${describeError(error)}`, {});
}
