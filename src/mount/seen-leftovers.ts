/**
 * What a crash of `finalize` has left in a folder, cleared away when the folder is looked at: in the mounted folder itself at mount, in others
 * when they are listed.
 */
import path from 'node:path';
import { LRUCache } from 'lru-cache';
import { describeError } from '../base/errors.ts';
import { removeLeftovers } from '../replacement/leftovers.ts';
import { isMapName } from '../replacement/open.ts';
import type { Log } from './native-file-state.ts';
import type { Place } from './place.ts';

/** Maps that have been looked at; a folder with more is looked at again now and then. */
const maxSeen = 4096;

export class SeenLeftovers {
  readonly #log: Log;
  readonly #seen = new LRUCache<string, true>({ max: maxSeen });

  constructor(log: Log) {
    this.#log = log;
  }

  /** @param name in the folder, of what is not shown: each map is looked at once */
  look(folder: Place, name: string): void {
    if (!isMapName(name)) return;
    const absolute = path.join(folder.path, name);
    if (this.#seen.has(absolute)) return;
    this.#seen.set(absolute, true);
    clearLeftovers(folder.at, this.#log, name);
  }
}

/** It is in nobody's way: nothing fails by it. @param mapName of the one to look at; of all, when absent */
export function clearLeftovers(folder: string, log: Log, mapName?: string): void {
  try {
    for (const file of removeLeftovers(folder, mapName))
      log('info', `${file}: is in its place; what an interrupted finalize had left beside it was removed`, {});
  } catch (error) {
    log('warn', `what an interrupted finalize has left stays: ${describeError(error)}`, {});
  }
}
