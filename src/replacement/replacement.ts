/**
 * A replacement disk file: the real file beside a synthesized one. What the guest writes goes here; what it reads comes from here where
 * the map says so, and from the synthesized file otherwise. The image is never written.
 *
 * Works on file offsets, in units of 64 KiB, and so serves every native format alike. Any number of threads may use one replacement, each
 * with an instance of its own over the same shared memory and descriptors.
 *
 * Order of a write to a unit that is not present yet, under that unit's lock:
 * 1. the rest of the unit is read from the synthesized file
 * 2. the whole unit is written to the data file, in one write
 * 3. the bits are set in memory, then in the live map; only then is the write acknowledged
 */
import fs from 'node:fs';
import { CapacityError, UnavailableError } from '../base/errors.ts';
import { readFully, writeFully } from '../base/full-io.ts';
import type { Guid } from '../bytes/guid.ts';
import { mapVersion, replacementStates, unitBytes, type ReplacementState } from './layout.ts';
import { flushMap, writeHeader, writeLiveBits } from './map-file.ts';
import { bothBits, PresenceMap, type SharedPresence } from './presence-map.ts';
import { punchHole } from './punch-hole.ts';

/** The synthesized file below. `read` fills all of target or throws. */
export interface BaseFile {
  readonly sizeBytes: number;
  read(target: Uint8Array, offset: number): void;
}

/** What the threads of one mount share of a replacement: plain values and shared memory. */
export interface SharedReplacement {
  readonly name: string;
  readonly pluginId: Guid;
  readonly bootId: Guid;
  readonly dataFd: number;
  readonly mapFd: number;
  readonly presence: SharedPresence;
  /** Indexes below. */
  readonly numbers: SharedArrayBuffer;
}

/** Indexes into `numbers`: signed 64-bit. */
export const shared = { sizeBytes: 0, visibleBytes: 1, sequence: 2, state: 3, poisoned: 4, count: 5 } as const;

export class Replacement {
  readonly map: PresenceMap;
  readonly #shared: SharedReplacement;
  readonly #numbers: BigInt64Array;
  readonly #base: BaseFile;
  readonly #unit = new Uint8Array(unitBytes);

  constructor(sharedParts: SharedReplacement, base: BaseFile) {
    this.#shared = sharedParts;
    this.#numbers = new BigInt64Array(sharedParts.numbers);
    this.#base = base;
    this.map = new PresenceMap(sharedParts.presence);
  }

  /** The file as the guest sees it: it may have grown or shrunk. */
  get sizeBytes(): number {
    return this.#number(shared.sizeBytes);
  }

  get state(): ReplacementState {
    return replacementStates[this.#number(shared.state)] ?? 'failed';
  }

  /** Fills the front of target with what lies before the end of the file; returns how much. */
  read(target: Uint8Array, offset: number): number {
    const end = Math.min(offset + target.length, this.sizeBytes);
    for (let at = offset; at < end;) {
      const unit = Math.floor(at / unitBytes);
      const runEnd = Math.min(this.map.runEnd(unit, Math.ceil(end / unitBytes)) * unitBytes, end);
      const part = target.subarray(at - offset, runEnd - offset);
      if (this.map.isPresent(unit)) this.#readData(part, at);
      else this.#readBase(part, at);
      at = runEnd;
    }
    return Math.max(0, end - offset);
  }

  /**
   * Writes all of source. Each unit is atomic towards other writers of it; a write across units is not, as on any disk.
   * @throws CapacityError when the disk below is full or the file would grow past its limit
   */
  write(source: Uint8Array, offset: number): number {
    this.#requireSound();
    if (Math.ceil((offset + source.length) / unitBytes) > this.map.unitCount) {
      throw new CapacityError(`${this.#shared.name}: may not grow to ${offset + source.length} bytes`);
    }
    for (let done = 0; done < source.length;) {
      const at = offset + done;
      const length = Math.min(unitBytes - (at % unitBytes), source.length - done);
      this.#writePart(source.subarray(done, done + length), at);
      done += length;
    }
    return source.length;
  }

  /**
   * Sets the size. What is cut off is gone: when the file grows again, it reads as zeros there.
   * Crash order when it shrinks: 1. the visible size in the header, durably; 2. the data file.
   */
  truncate(sizeBytes: number): void {
    this.#requireSound();
    if (Math.ceil(sizeBytes / unitBytes) > this.map.unitCount) {
      throw new CapacityError(`${this.#shared.name}: may not grow to ${sizeBytes} bytes`);
    }
    this.map.locked('flush', 0, () => {
      if (sizeBytes < this.#number(shared.visibleBytes)) {
        Atomics.store(this.#numbers, shared.visibleBytes, BigInt(sizeBytes));
        this.#commitHeader();
      }
      fs.ftruncateSync(this.#shared.dataFd, sizeBytes);
      Atomics.store(this.#numbers, shared.sizeBytes, BigInt(sizeBytes));
    });
  }

  /** Makes a range inside the file read as zeros: whole units become holes. */
  discard(offset: number, lengthBytes: number): void {
    this.#requireSound();
    const end = Math.min(offset + lengthBytes, this.sizeBytes);
    for (let at = offset; at < end;) {
      const unit = Math.floor(at / unitBytes);
      const unitEnd = Math.min((unit + 1) * unitBytes, this.sizeBytes);
      const to = Math.min(unitEnd, end);
      if (at === unit * unitBytes && to === unitEnd) this.#discardUnit(unit);
      else this.#writePart(new Uint8Array(to - at), at);
      at = to;
    }
  }

  /**
   * Everything that was acknowledged is on disk when it returns.
   * @throws UnavailableError; after a failed flush every further one fails: what it covered may be lost, and trying again would hide it
   */
  sync(): void {
    this.#requireSound();
    const { dataFd, mapFd, name } = this.#shared;
    flushMap(mapFd, this.map, () => this.#flushData(dataFd), name);
  }

  /** Writes the header as the shared numbers say, durably. The caller holds the flush lock, or is alone. */
  #commitHeader(): void {
    const { mapFd, name, pluginId, bootId } = this.#shared;
    const sequence = Atomics.add(this.#numbers, shared.sequence, 1n) + 1n;
    const header = {
      version: mapVersion,
      state: this.#number(shared.state),
      unitBytes,
      pluginId,
      bootId,
      sequence,
      baseBytes: BigInt(this.#base.sizeBytes),
      visibleBytes: Atomics.load(this.#numbers, shared.visibleBytes),
      fileName: name,
      crc32c: 0,
    };
    writeHeader(mapFd, header, name);
  }

  #flushData(dataFd: number): void {
    try {
      fs.fdatasyncSync(dataFd);
    } catch (error) {
      Atomics.store(this.#numbers, shared.poisoned, 1n);
      throw new UnavailableError(
        `${this.#shared.name}: a flush failed; what was written since the last one may be lost`,
        { cause: error },
      );
    }
  }

  #writePart(source: Uint8Array, at: number): void {
    const unit = Math.floor(at / unitBytes);
    this.map.locked('unit', unit, () => {
      if (this.map.isPresent(unit)) writeFully(this.#shared.dataFd, source, at, this.#shared.name);
      else this.#writeNewUnit(unit, source, at);
      this.#grow(at + source.length);
      this.#setBits(unit);
    });
  }

  #writeNewUnit(unit: number, source: Uint8Array, at: number): void {
    const start = unit * unitBytes;
    const lengthBytes = Math.min(unitBytes, Math.max(this.sizeBytes, at + source.length) - start);
    if (source.length === lengthBytes) {
      writeFully(this.#shared.dataFd, source, at, this.#shared.name);
      return;
    }
    const whole = this.#unit.subarray(0, lengthBytes);
    this.#readBase(whole, start);
    whole.set(source, at - start);
    writeFully(this.#shared.dataFd, whole, start, this.#shared.name);
  }

  #discardUnit(unit: number): void {
    this.map.locked('unit', unit, () => {
      punchHole(this.#shared.dataFd, unit * unitBytes, unitBytes, this.#shared.name);
      this.#setBits(unit);
    });
  }

  #setBits(unit: number): void {
    if (this.map.set(unit, bothBits)) writeLiveBits(this.#shared.mapFd, this.map, unit, this.#shared.name);
  }

  /** The file is at least this long now. */
  #grow(endBytes: number): void {
    for (let size = Atomics.load(this.#numbers, shared.sizeBytes); size < BigInt(endBytes);) {
      const found = Atomics.compareExchange(this.#numbers, shared.sizeBytes, size, BigInt(endBytes));
      if (found === size) return;
      size = found;
    }
  }

  /** What the synthesized file has below the visible size, and zeros above it. */
  #readBase(target: Uint8Array, at: number): void {
    const visible = Math.min(this.#number(shared.visibleBytes), this.#base.sizeBytes);
    const fromBase = Math.max(0, Math.min(target.length, visible - at));
    if (fromBase > 0) this.#base.read(target.subarray(0, fromBase), at);
    target.fill(0, fromBase);
  }

  #readData(target: Uint8Array, at: number): void {
    readFully(this.#shared.dataFd, target, at, this.#shared.name);
  }

  #requireSound(): void {
    if (Atomics.load(this.#numbers, shared.poisoned) === 0n) return;
    throw new UnavailableError(
      `${this.#shared.name}: an earlier flush failed; unmount, check the disk below, and mount again`,
    );
  }

  #number(index: number): number {
    return Number(Atomics.load(this.#numbers, index));
  }
}
