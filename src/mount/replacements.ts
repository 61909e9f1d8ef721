/**
 * The replacement disk files that are open in a mount: each opened once, by the main thread, and used by all threads.
 */
import type { ThreadKey } from '../backup/seal.ts';
import { closeAll, type Closable } from '../base/ownership.ts';
import {
  isStillNamed,
  openReplacement,
  removeReplacement,
  unlinkReplacement,
  type OpenReplacement,
  type ReplacementPlace,
} from '../replacement/open.ts';
import { Replacement, type SharedReplacement } from '../replacement/replacement.ts';

export interface Replacements {
  /**
   * The replacement of a native file, opened or made at the first call.
   * @param key the same for one native file whatever its plugin file is called
   * @param sealingKey asked for only where it is sealed
   * @throws as openReplacement does, and as `sealingKey` does
   */
  acquire(key: string, place: ReplacementPlace, discard: boolean, sealingKey: () => ThreadKey): SharedReplacement;
}

/** Keeps them in this thread. */
export class OpenReplacements implements Replacements, Closable {
  readonly #open = new Map<string, { open: OpenReplacement; path: string; discard: boolean }>();
  readonly #removed: OpenReplacement[] = [];

  acquire(key: string, place: ReplacementPlace, discard: boolean, sealingKey: () => ThreadKey): SharedReplacement {
    const known = this.#open.get(key);
    if (known !== undefined && isStillNamed(known.open, known.path)) return known.open.parts;
    // It went with its plugin file. Those who have it open still use its descriptors, until the mount ends.
    if (known !== undefined) this.#removed.push(known.open);
    const chainKey = place.isSealed ? sealingKey() : undefined;
    // What an earlier mount was to discard, and died before it did.
    if (discard) removeReplacement(place.path);
    const open = openReplacement(place, chainKey);
    this.#open.set(key, { open, path: place.path, discard });
    return open.parts;
  }

  /**
   * Flushes all that is kept, and throws away what is not.
   * @param isLast whether no thread uses them any more: else descriptors stay open, lest their numbers come to mean other files
   */
  close(isLast = true): void {
    const entries = [...this.#open.values()];
    this.#open.clear();
    const removed = this.#removed.splice(0);
    closeAll([...(isLast ? removed : []), ...entries.map((entry) => ({ close: () => closeOne(entry, isLast) }))]);
  }
}

function closeOne(
  { open, path, discard }: { open: OpenReplacement; path: string; discard: boolean },
  isLast: boolean,
): void {
  try {
    if (!discard) new Replacement(open.parts, { sizeBytes: 0, read: () => undefined }).sync();
  } finally {
    if (isLast) open.close();
    // Of one that is still open nobody takes the lock.
    if (discard) (isLast ? removeReplacement : unlinkReplacement)(path);
  }
}
