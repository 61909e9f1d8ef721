/**
 * A replacement disk file: the real file beside a synthesized one. What the guest writes goes here; what it reads comes from here where
 * the map says so, and from the synthesized file otherwise. The image is never written.
 *
 * Works on file offsets, in units of 64 KiB, and so serves every native format alike. Any number of threads may use one replacement, each
 * with an instance of its own over the same shared memory and descriptors.
 *
 * Order of a write to a unit that is not present yet:
 * 1. the rest of the unit is read from the synthesized file, with no lock held: an image that does not answer must keep nobody else waiting
 * 2. under the unit's lock, if nothing that 1 has read is another by now: the whole unit is written to the data file, in one write
 * 3. the bits are set in the live map, then in memory
 * 4. the file is as long as that; only then is the write acknowledged
 * Of one that is present because the fill copied it, the written bit is set before its data changes.
 * Once it serves alone, the data file is the disk (alone.ts).
 *
 * Who excludes whom: writers of one unit each other; a change of size all writers. Reads at first nobody: they notice that somebody wrote, or
 * changed the size, under them, and read again while he is kept out. The system copies bytes one after the other, and a guest may expect of
 * its disk that a sector is as before a write or as after it.
 */
import { flushFile } from '../base/durable.ts';
import { TooLargeError, VeneerError } from '../base/errors.ts';
import type { Extent } from '../disk/disk.ts';
import { AloneFile } from './alone.ts';
import { madeHole, type DataFile } from './data-file.ts';
import { maxFileBytes, presentBit, unitBytes, writtenBit, type ReplacementState } from './layout.ts';
import { recordBits } from './map-file.ts';
import { bothBits, PresenceMap } from './presence-map.ts';
import {
  commitHeader,
  dataFileOf,
  flushAll,
  orPoison,
  readVisible,
  requireSound,
  shared,
  sizeOf,
  type BaseFile,
  type SharedReplacement,
} from './shared.ts';
import { ReplacementReader } from './reader.ts';
import { allowDirectWrites, servesAlone, stateOf } from './states.ts';

export type { BaseFile, SharedReplacement } from './shared.ts';

/** The data file itself, for who goes straight to it. */
export interface DirectFile {
  readonly fd: number;
  /** For the threads of a mount, 0 at first: a number that they agree on, and a lock. */
  readonly backing: Int32Array;
  /** To be called before the first write: from then on the map does not tell what was written. */
  allowWrites(): void;
}

export class Replacement {
  readonly map: PresenceMap;
  readonly #shared: SharedReplacement;
  readonly #numbers: BigInt64Array;
  readonly #base: BaseFile;
  readonly #data: DataFile;
  readonly #alone: AloneFile;
  readonly #reader: ReplacementReader;
  /** Of one unit, what the synthesized file shows, as long as nobody has changed the size since. */
  readonly #unit = new Uint8Array(unitBytes);
  #fetched = { unit: -1, resizes: 0n };

  constructor(sharedParts: SharedReplacement, base: BaseFile) {
    this.#shared = sharedParts;
    this.#numbers = new BigInt64Array(sharedParts.numbers);
    this.#base = base;
    this.map = new PresenceMap(sharedParts.presence);
    this.#data = dataFileOf(sharedParts, this.map);
    this.#alone = new AloneFile(sharedParts, this.map, this.#data);
    this.#reader = new ReplacementReader(sharedParts, this.map, base, this.#data);
  }

  /** The file as the guest sees it: it may have grown or shrunk. */
  get sizeBytes(): number {
    return sizeOf(this.#shared);
  }

  get state(): ReplacementState {
    return stateOf(this.#shared);
  }

  /** Whether nothing of the synthesized file is read any more. */
  get servesAlone(): boolean {
    return servesAlone(this.#shared);
  }

  /** Undefined where it is sealed: what reads it must open the seals. */
  get directFile(): DirectFile | undefined {
    if (this.#shared.seal !== undefined) return undefined;
    return {
      fd: this.#shared.dataFd,
      backing: new Int32Array(this.#shared.backing),
      allowWrites: () => allowDirectWrites(this.#shared, this.map),
    };
  }

  get isWrittenDirectly(): boolean {
    return this.#number(shared.direct) !== 0;
  }

  /** The runs of [offset, offset+length) that the guest has written, and those that are as synthesized. */
  *runs(offset: number, length: number): Generator<{ offset: number; length: number; written: boolean }> {
    const isSuspect = this.#number(shared.suspect) !== 0;
    const mayBeWritten = (bits: number): boolean =>
      (bits & writtenBit) !== 0 || (isSuspect && (bits & presentBit) !== 0);
    const end = offset + length;
    for (let at = offset; at < end;) {
      const unit = Math.floor(at / unitBytes);
      const written = mayBeWritten(this.map.get(unit));
      const to = Math.min(this.map.runEnd(unit, written, Math.ceil(end / unitBytes), mayBeWritten) * unitBytes, end);
      yield { offset: at, length: to - at, written };
      at = to;
    }
  }

  /** The runs of the data file itself, for a replacement that serves alone. */
  dataExtents(offset: number, length: number): Iterable<Extent> {
    return this.#alone.extents(offset, length);
  }

  /** Fills the front of target with what lies before the end of the file; returns how much. Each unit is as before or after any one write. */
  read(target: Uint8Array, offset: number): number {
    for (;;) {
      const resizes = Atomics.load(this.#numbers, shared.resizes);
      const undisturbed = (): boolean => resizes % 2n === 0n && Atomics.load(this.#numbers, shared.resizes) === resizes;
      try {
        const lengthBytes = this.#reader.read(target, offset, this.sizeBytes);
        if (undisturbed()) return lengthBytes;
      } catch (error) {
        if (undisturbed()) throw error;
      }
      // Once who changes the size has let it go.
      this.map.locked('flush', 0, () => undefined);
    }
  }

  /**
   * Writes all of source. Each unit is atomic towards other writers of it; a write across units is not, as on any disk. One that fails does
   * not make the file longer than the units that it did write.
   * @throws CapacityError when the disk below is full; TooLargeError when the file would grow past its limit
   */
  write(source: Uint8Array, offset: number): number {
    requireSound(this.#shared);
    this.#requireRoom(offset + source.length);
    try {
      for (let done = 0; done < source.length;) {
        const at = offset + done;
        const length = Math.min(unitBytes - (at % unitBytes), source.length - done);
        this.#writePart(source.subarray(done, done + length), at);
        done += length;
      }
    } catch (error) {
      if (offset + source.length > this.sizeBytes) this.#cutUnacknowledged();
      throw error;
    }
    return source.length;
  }

  /**
   * Sets the size. What is cut off is gone: when the file grows again, it reads as zeros there.
   * Crash order where less of the synthesized file is to show, and of every cut of a sealed file:
   * 1. the header says how much, and that a cut is under way
   * 2. the data file is cut, and flushed
   * 3. the header says that the cut is done
   * After a crash between 1 and 3 the next open finishes it. A plain file that serves alone is cut by the system: only what the map claims
   * of it is taken back first.
   */
  truncate(sizeBytes: number): void {
    this.#requireRoom(sizeBytes);
    this.#resizing(() => {
      requireSound(this.#shared);
      const isSealed = this.#shared.seal !== undefined;
      if (this.servesAlone && !isSealed) this.#alone.unclaim(sizeBytes);
      const showsLess = sizeBytes < this.#number(shared.visibleBytes) && !this.servesAlone;
      if (showsLess || (isSealed && sizeBytes < this.sizeBytes)) this.#cut(sizeBytes);
      else this.#resize(sizeBytes);
    });
  }

  /** Makes the file at least so long. */
  growTo(sizeBytes: number): void {
    if (sizeBytes <= this.sizeBytes) return;
    this.#requireRoom(sizeBytes);
    this.#resizing(() => {
      requireSound(this.#shared);
      // Asked again: another may have made it longer meanwhile.
      if (sizeBytes > this.sizeBytes) this.#resize(sizeBytes);
    });
  }

  /** Makes a range read as zeros, as far as it is inside the file: whole units become holes where the file system can. */
  discard(offset: number, lengthBytes: number): void {
    requireSound(this.#shared);
    const end = Math.min(offset + lengthBytes, this.sizeBytes);
    for (let at = offset; at < end;) {
      const unit = Math.floor(at / unitBytes);
      const to = Math.min((unit + 1) * unitBytes, end);
      this.#discardPart(unit, at, to);
      at = to;
    }
  }

  /**
   * Everything that was acknowledged is on disk when it returns.
   * @throws UnavailableError; after a failed flush every further one fails: what it covered may be lost, and trying again would hide it
   */
  sync(): void {
    // One at a time: a second flush must not return before the first has made durable what it took, nor hide that the first failed.
    this.map.locked('flush', 0, () => flushAll(this.#shared, this.map));
  }

  #requireRoom(endBytes: number): void {
    const mostBytes = this.servesAlone ? maxFileBytes : this.map.unitCount * unitBytes;
    if (endBytes > mostBytes)
      throw new TooLargeError(`${this.#shared.name}: may grow to ${mostBytes} bytes, not to ${endBytes}`);
  }

  /** Runs `action` while nobody writes, flushes or changes the size. */
  #resizing(action: () => void): void {
    this.map.locked('flush', 0, () =>
      this.map.allUnitsLocked(() => {
        Atomics.add(this.#numbers, shared.resizes, 1n);
        try {
          action();
        } finally {
          Atomics.add(this.#numbers, shared.resizes, 1n);
        }
      }),
    );
  }

  #cut(sizeBytes: number): void {
    const before = { visibleBytes: this.#number(shared.visibleBytes), cutting: 0 } as const;
    const visibleBytes = Math.min(sizeBytes, before.visibleBytes);
    const during = { visibleBytes, cutting: 1, cutBytes: sizeBytes } as const;
    orPoison(this.#shared, before, () => commitHeader(this.#shared, during));
    try {
      this.#resize(sizeBytes);
    } catch (error) {
      // Half a cut is one that the next open finishes.
      if (this.#data.sizeBytes < this.sizeBytes) orPoison(this.#shared, during, () => rethrow(error));
      orPoison(this.#shared, before, () => commitHeader(this.#shared, before));
      throw error;
    }
    Atomics.store(this.#numbers, shared.visibleBytes, BigInt(visibleBytes));
    orPoison(this.#shared, during, () => {
      flushFile(this.#shared.dataFd, this.#shared.name);
      commitHeader(this.#shared, { visibleBytes, cutting: 0 });
    });
  }

  #resize(sizeBytes: number): void {
    this.#data.resize(sizeBytes);
    Atomics.store(this.#numbers, shared.sizeBytes, BigInt(sizeBytes));
  }

  /** After a write past the end that failed: takes away what it left there, which would show once the file grows. */
  #cutUnacknowledged(): void {
    try {
      this.#resizing(() => this.#cutBack());
    } catch (error) {
      // The write's own failure is what its caller hears of.
      if (!(error instanceof VeneerError)) throw error;
    }
  }

  #cutBack(): void {
    // What lies there may be the kernel's by now.
    if (this.isWrittenDirectly) return;
    if (this.#shared.seal === undefined) {
      this.#data.resize(this.sizeBytes);
      return;
    }
    // Done by half, it would leave behind the end what the next growth shows.
    const header = { visibleBytes: this.#number(shared.visibleBytes), cutting: 0 } as const;
    orPoison(this.#shared, header, () => this.#data.resize(this.sizeBytes));
  }

  #writePart(source: Uint8Array, at: number): void {
    const unit = Math.floor(at / unitBytes);
    this.#changing(unit, () => this.#writeLocked(unit, source, at));
  }

  /** @param change is called under the unit's lock; false where it has done nothing, for want of what is to be read first */
  #changing(unit: number, change: () => boolean): void {
    while (!this.map.locked('unit', unit, change)) this.#fetch(unit);
  }

  #fetch(unit: number): void {
    this.#fetched.unit = -1;
    const resizes = Atomics.load(this.#numbers, shared.resizes);
    readVisible(this.#numbers, this.#base, this.#unit, unit * unitBytes);
    this.#fetched = { unit, resizes };
  }

  #writeLocked(unit: number, source: Uint8Array, at: number): boolean {
    // Asked again: from the moment on that all units were locked, nothing may change.
    if (this.#shared.seal !== undefined) requireSound(this.#shared);
    if (this.servesAlone) {
      this.#alone.write(unit, source, at);
    } else if (this.map.isPresent(unit)) {
      // Before the data: a unit that does not count as written is taken from whichever source is faster.
      this.#setBits(unit);
      this.#data.write(source, at);
    } else {
      if (!this.#writeNewUnit(unit, source, at)) return false;
      this.#setBits(unit);
    }
    this.#grow(at + source.length);
    return true;
  }

  #writeNewUnit(unit: number, source: Uint8Array, at: number): boolean {
    const start = unit * unitBytes;
    const lengthBytes = Math.min(unitBytes, Math.max(this.sizeBytes, at + source.length) - start);
    if (source.length === lengthBytes) {
      this.#data.write(source, at);
      return true;
    }
    const { unit: fetched, resizes } = this.#fetched;
    if (fetched !== unit || Atomics.load(this.#numbers, shared.resizes) !== resizes) return false;
    this.#fetched.unit = -1;
    const whole = this.#unit.subarray(0, lengthBytes);
    whole.set(source, at - start);
    this.#data.write(whole, start);
    return true;
  }

  #discardPart(unit: number, from: number, to: number): void {
    this.#changing(unit, () => {
      requireSound(this.#shared);
      // Others may have changed the size since it was asked for: what they wrote behind the old end stays, what they cut off stays away.
      const inside = Math.min((unit + 1) * unitBytes, this.sizeBytes);
      const end = Math.min(to, inside);
      if (end <= from) return true;
      if (this.servesAlone) {
        this.#alone.zero(unit, from, end - from);
        return true;
      }
      const whole = from === unit * unitBytes && end === inside;
      if (whole && this.map.isPresent(unit)) this.#setBits(unit);
      if (!whole || !madeHole(this.#data, unit * unitBytes, unitBytes))
        return this.#writeLocked(unit, new Uint8Array(end - from), from);
      this.#setBits(unit);
      return true;
    });
  }

  #setBits(unit: number): void {
    recordBits(this.#shared.mapFd, this.map, unit, bothBits, this.#shared.name);
  }

  /** The file is at least this long now. */
  #grow(endBytes: number): void {
    for (let size = Atomics.load(this.#numbers, shared.sizeBytes); size < BigInt(endBytes);) {
      const found = Atomics.compareExchange(this.#numbers, shared.sizeBytes, size, BigInt(endBytes));
      if (found === size) return;
      size = found;
    }
  }

  #number(index: number): number {
    return Number(Atomics.load(this.#numbers, index));
  }
}

function rethrow(error: unknown): never {
  throw error;
}
