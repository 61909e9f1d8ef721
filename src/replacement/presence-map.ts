/**
 * The presence map in memory, shared by all threads: two bits for each unit, locks for units, and which pages have changed since the last
 * flush. Sparse: memory that was never written to stays the system's zero page.
 */
import { UnavailableError } from '../base/errors.ts';
import { mapPageBytes, presentBit, unitsPerPage, writtenBit } from './layout.ts';

const unitsPerWord = 16;
/**
 * Locks of units, then of pages, then the one of flushes and the one of the data file's end. Taken in the order flush, unit, then page or end:
 * at most one of a kind, or all units.
 */
const locksPerKind = 1024;
const lockKinds = { unit: 0, page: locksPerKind, flush: 2 * locksPerKind, end: 2 * locksPerKind + 1 } as const;
const lockCount = 2 * locksPerKind + 2;
/** Behind the locks: for each lock of units, how often it was taken and given back; odd while it is held. */
const firstTurn = lockCount;
/**
 * More than a copy-up or a flush to a slow disk takes; then the thread that holds the lock has died. Seconds that were waited, not that have
 * passed: a process that was stopped, or a machine that slept, has not waited. Whoever gives up has done nothing yet, and takes nothing.
 */
const maxWaits = 300;
const waitMs = 1000;

/** What threads hand to each other. */
export interface SharedPresence {
  readonly bits: SharedArrayBuffer;
  readonly locks: SharedArrayBuffer;
  readonly dirtyPages: SharedArrayBuffer;
}

export function newPresence(unitCount: number): SharedPresence {
  const pages = Math.ceil(unitCount / unitsPerPage);
  return {
    bits: new SharedArrayBuffer(pages * mapPageBytes),
    locks: new SharedArrayBuffer((lockCount + locksPerKind) * 4),
    dirtyPages: new SharedArrayBuffer(pages),
  };
}

export class PresenceMap {
  readonly unitCount: number;
  readonly pageCount: number;
  readonly #words: Int32Array;
  readonly #locks: Int32Array;
  readonly #dirtyPages: Uint8Array;

  constructor(shared: SharedPresence) {
    this.#words = new Int32Array(shared.bits);
    this.#locks = new Int32Array(shared.locks);
    this.#dirtyPages = new Uint8Array(shared.dirtyPages);
    this.pageCount = this.#dirtyPages.length;
    this.unitCount = this.pageCount * unitsPerPage;
  }

  /** presentBit and writtenBit of a unit. */
  get(unit: number): number {
    return (Atomics.load(this.#words, Math.floor(unit / unitsPerWord)) >>> ((unit % unitsPerWord) * 2)) & 3;
  }

  isPresent(unit: number): boolean {
    return (this.get(unit) & presentBit) !== 0;
  }

  /** Sets bits of a unit and marks its page. Returns whether any of them was new. */
  set(unit: number, bits: number): boolean {
    const mask = (bits * 4 ** (unit % unitsPerWord)) | 0;
    const before = Atomics.or(this.#words, Math.floor(unit / unitsPerWord), mask);
    if ((before & mask) === mask) return false;
    Atomics.store(this.#dirtyPages, pageOf(unit), 1);
    return true;
  }

  /** Takes both bits of a unit away. The caller keeps everybody else away from it. */
  clear(unit: number): void {
    Atomics.and(this.#words, Math.floor(unit / unitsPerWord), ~(bothBits * 4 ** (unit % unitsPerWord)));
  }

  /**
   * First unit after `from`, before `end`, whose bits are not judged as `wanted`: what the caller has found those of `from` to be. (Asked
   * again here, they may have changed, and units that are not present would be taken for present ones.)
   */
  runEnd(from: number, wanted: boolean, end: number, judge: (bits: number) => boolean = arePresent): number {
    let unit = from + 1;
    while (unit < end) {
      const word = Atomics.load(this.#words, Math.floor(unit / unitsPerWord));
      const bits = (word >>> ((unit % unitsPerWord) * 2)) & 3;
      if (judge(bits) !== wanted) return unit;
      // Most words are of one kind of unit.
      unit += unit % unitsPerWord === 0 && word === ((bits * 0x5555_5555) | 0) ? unitsPerWord : 1;
    }
    return Math.max(from + 1, Math.min(unit, end));
  }

  /** The 4 KiB of a page: a view, changing under the caller. */
  page(page: number): Uint8Array {
    return new Uint8Array(this.#words.buffer, page * mapPageBytes, mapPageBytes);
  }

  /** The pages that changed since they were last taken; they count as unchanged from now on. */
  takeDirtyPages(): number[] {
    const pages: number[] = [];
    for (let page = 0; page < this.pageCount; page++) {
      if (Atomics.exchange(this.#dirtyPages, page, 0) !== 0) pages.push(page);
    }
    return pages;
  }

  /** Gives pages back that could not be written. */
  markDirty(pages: readonly number[]): void {
    for (const page of pages) Atomics.store(this.#dirtyPages, page, 1);
  }

  /**
   * Runs `action` while no other thread runs one of the same kind and key.
   * @throws UnavailableError when the lock cannot be had in five minutes
   */
  locked<T>(kind: keyof typeof lockKinds, key: number, action: () => T): T {
    const lock = lockKinds[kind] + (kind === 'unit' || kind === 'page' ? key % locksPerKind : 0);
    this.#acquire(lock);
    try {
      return action();
    } finally {
      this.#release(lock);
    }
  }

  /** Runs `action` while no thread holds the lock of any unit. */
  allUnitsLocked<T>(action: () => T): T {
    let held = 0;
    try {
      for (; held < locksPerKind; held++) this.#acquire(lockKinds.unit + held);
      return action();
    } finally {
      while (held > 0) this.#release(lockKinds.unit + --held);
    }
  }

  /**
   * A number that stays the same while nobody takes the locks of these units: who reads them without a lock knows by it that nobody wrote
   * there meanwhile. Undefined while one of the locks is held.
   */
  turnOf(firstUnit: number, endUnit: number): number | undefined {
    let sum = 0;
    for (let unit = firstUnit; unit < endUnit; unit++) {
      const turn = Atomics.load(this.#locks, firstTurn + (unit % locksPerKind)) >>> 0;
      if (turn % 2 === 1) return undefined;
      sum += turn;
    }
    return sum;
  }

  /** How many units have these bits. Scans the map. */
  count(bits: number): number {
    let count = 0;
    for (let word = 0; word < this.#words.length; word++) {
      const value = Atomics.load(this.#words, word);
      if (value === 0) continue;
      for (let unit = 0; unit < unitsPerWord; unit++) {
        if (((value >>> (unit * 2)) & bits) === bits) count++;
      }
    }
    return count;
  }

  #release(lock: number): void {
    if (lock < locksPerKind) Atomics.add(this.#locks, firstTurn + lock, 1);
    Atomics.store(this.#locks, lock, 0);
    Atomics.notify(this.#locks, lock, 1);
  }

  #acquire(lock: number): void {
    let waits = 0;
    while (Atomics.compareExchange(this.#locks, lock, 0, 1) !== 0) {
      if (Atomics.wait(this.#locks, lock, 1, waitMs) !== 'timed-out') continue;
      if (++waits > maxWaits)
        throw new UnavailableError(`a lock of the replacement map was not released in ${(maxWaits * waitMs) / 1000} s`);
    }
    if (lock < locksPerKind) Atomics.add(this.#locks, firstTurn + lock, 1);
  }
}

export function pageOf(unit: number): number {
  return Math.floor(unit / unitsPerPage);
}

function arePresent(bits: number): boolean {
  return (bits & presentBit) !== 0;
}

export const bothBits = presentBit | writtenBit;
