/**
 * What one owner has locked of one file of the mount. It is taken for real: on each file behind that carries the file (the file itself; of a
 * native file its plugin file, and its replacement's data file once there is one), with a description of its own, so that owners stand in each
 * other's way, and in that of programs that have the files behind open. All of it ends with the descriptions: with this process at the latest.
 */
import * as fs from '../../../base/fs.ts';
import { systemErrorCode } from '../../../base/errors.ts';
import { conflictWith, setLock, type LockedRange } from './description-locks.ts';
import { HeldRanges } from './held-ranges.ts';

/** A path that opens a file which carries another. */
export type Carrier = string;

export class OwnerLocks {
  readonly ranges = new HeldRanges();
  /** Handles that it has locked through: when each was flushed last, since it locked; 0: not since. */
  readonly handles = new Map<string, number>();
  /** Of the process that has locked last. */
  pid = 0;
  readonly #descriptions = new Map<Carrier, number>();

  /** @throws the system's error: nothing is open then */
  constructor(carriers: Iterable<Carrier>) {
    try {
      for (const carrier of carriers) this.#descriptions.set(carrier, openCarrier(carrier));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Locks or unlocks on all carriers, or on none.
   * @returns false where somebody else's lock stands in its way
   */
  set(range: LockedRange): boolean {
    const done: number[] = [];
    for (const fd of this.#descriptions.values()) {
      let isHeld = false;
      try {
        isHeld = setLock(fd, range);
      } finally {
        // What it had before it can have again: nobody else could get that meanwhile.
        if (!isHeld) for (const other of done) this.#restore(other, range);
      }
      if (!isHeld) return false;
      done.push(fd);
    }
    this.ranges.set(range);
    return true;
  }

  conflict(range: LockedRange): ReturnType<typeof conflictWith> {
    for (const fd of this.#descriptions.values()) {
      const found = conflictWith(fd, range);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** What it has locked, it has locked on this carrier, too. @returns false where somebody else's lock stands in its way */
  carry(carrier: Carrier): boolean {
    const fd = openCarrier(carrier);
    const all = [...this.ranges].every((range) => setLock(fd, range));
    if (all) this.#descriptions.set(carrier, fd);
    else fs.closeSync(fd);
    return all;
  }

  /** Whether it is carried by this one. */
  isOn(carrier: Carrier): boolean {
    return this.#descriptions.has(carrier);
  }

  /** Of all carriers but one. */
  leaveFor(carrier: Carrier): void {
    for (const [other, fd] of this.#descriptions) {
      if (other === carrier) continue;
      this.#descriptions.delete(other);
      fs.closeSync(fd);
    }
  }

  close(): void {
    for (const fd of this.#descriptions.values()) fs.closeSync(fd);
    this.#descriptions.clear();
  }

  #restore(fd: number, range: LockedRange): void {
    for (const piece of this.ranges.within(range)) setLock(fd, piece);
  }
}

/** For writing where that is possible: only then it can be locked for writing. */
function openCarrier(carrier: Carrier): number {
  const { O_RDWR, O_RDONLY, O_NONBLOCK } = fs.constants;
  try {
    return fs.openSync(carrier, O_RDWR | O_NONBLOCK);
  } catch (error) {
    if (!['EACCES', 'EPERM', 'EROFS', 'ETXTBSY'].includes(systemErrorCode(error) ?? '')) throw error;
    return fs.openSync(carrier, O_RDONLY | O_NONBLOCK);
  }
}
