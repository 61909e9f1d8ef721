/**
 * The reading half of a replacement: takes each run of units from the source that has it, and where both have it, from the faster one.
 *
 *   not present            the synthesized file
 *   present, written       the data file
 *   present, not written   either: they hold the same; when one fails, the other is asked
 *
 * Once the replacement serves alone, only the data file is read, and the map is not asked: it does not know what was written past it.
 */
import { Balance, type Source } from './balance.ts';
import type { DataFile } from './data-file.ts';
import { willNeed } from '../base/file-advice.ts';
import { HotUnits } from './hot-units.ts';
import { presentBit, unitBytes, writtenBit } from './layout.ts';
import type { PresenceMap } from './presence-map.ts';
import { readVisible, shared, type BaseFile, type SharedReplacement } from './shared.ts';
import { servesAlone, stateOf } from './states.ts';

type Holder = Source | 'either';

interface Run {
  readonly at: number;
  readonly part: Uint8Array;
  readonly holder: Holder;
}

/** Reads of at least so much use both sources at once, where both have something to read. */
const largeBytes = 4 * unitBytes;
/** One large read in so many is not divided, so that what both sources are measured by stays true. */
const undividedEvery = 8;
/** A source that fails counts as one that takes so long: it is asked again rarely. */
const failedAsSlowAsMs = 10_000;

export class ReplacementReader {
  readonly #shared: SharedReplacement;
  readonly #map: PresenceMap;
  readonly #base: BaseFile;
  readonly #data: DataFile;
  readonly #numbers: BigInt64Array;
  readonly #balance: Balance;
  readonly #hot: HotUnits;
  #divided = 0;

  constructor(parts: SharedReplacement, map: PresenceMap, base: BaseFile, data: DataFile) {
    this.#shared = parts;
    this.#map = map;
    this.#base = base;
    this.#data = data;
    this.#numbers = new BigInt64Array(parts.numbers);
    this.#balance = new Balance(parts.speeds);
    this.#hot = new HotUnits(parts.hot);
  }

  /**
   * Fills the front of target with what lies before `endOfFile`; returns how much. A change of size, or units taken away meanwhile, make the
   * result worthless: the caller looks for that.
   */
  read(target: Uint8Array, offset: number, endOfFile: number): number {
    const end = Math.min(offset + target.length, endOfFile);
    if (end <= offset) return 0;
    const runs = [...this.#runs(target, offset, end)];
    if (runs.length > 1 && end - offset >= largeBytes) {
      // The system fetches the data file's part while we wait for the other.
      for (const { holder, at, part } of runs) if (holder !== 'base') willNeed(this.#shared.dataFd, at, part.length);
      runs.sort((a, b) => Number(a.holder !== 'base') - Number(b.holder !== 'base'));
    }
    for (const run of runs) {
      if (run.holder === 'data') this.#readData(run.part, run.at);
      else if (run.holder === 'base') this.#readBase(run.part, run.at);
      else this.#readEither(run.part, run.at);
    }
    return end - offset;
  }

  *#runs(target: Uint8Array, offset: number, end: number): Generator<Run> {
    if (servesAlone(this.#shared)) {
      yield { at: offset, part: target.subarray(0, end - offset), holder: 'data' };
      return;
    }
    const isSuspect = Atomics.load(this.#numbers, shared.suspect) !== 0n;
    for (let at = offset; at < end;) {
      let unit = Math.floor(at / unitBytes);
      const holder = this.#holderOf(unit, isSuspect);
      do unit++;
      while (unit * unitBytes < end && this.#holderOf(unit, isSuspect) === holder);
      const to = Math.min(unit * unitBytes, end);
      yield { at, part: target.subarray(at - offset, to - offset), holder };
      at = to;
    }
  }

  /** @param isSuspect whether only the data file is believed where it has something */
  #holderOf(unit: number, isSuspect: boolean): Holder {
    const bits = this.#map.get(unit);
    if ((bits & presentBit) === 0) return 'base';
    return isSuspect || (bits & writtenBit) !== 0 ? 'data' : 'either';
  }

  #readBase(part: Uint8Array, at: number): void {
    readVisible(this.#numbers, this.#base, part, at);
    if (stateOf(this.#shared) !== 'filling') return;
    for (let unit = Math.floor(at / unitBytes); unit * unitBytes < at + part.length; unit++) this.#hot.push(unit);
  }

  #readEither(part: Uint8Array, at: number): void {
    if (part.length >= largeBytes && ++this.#divided % undividedEvery !== 0) {
      const units = Math.floor(part.length / unitBytes);
      const fromBase = this.#balance.shareOfBase(units);
      if (fromBase > 0 && fromBase < units) {
        const cut = (units - fromBase) * unitBytes - (at % unitBytes);
        willNeed(this.#shared.dataFd, at, cut);
        this.#readOr('base', part.subarray(cut), at + cut);
        this.#readOr('data', part.subarray(0, cut), at);
        return;
      }
    }
    const source = this.#balance.choose(part.length);
    const startMs = performance.now();
    this.#readOr(source, part, at);
    this.#balance.record(source, part.length, performance.now() - startMs);
  }

  /** From a source, or from the other one when it fails. @throws what the first one threw, when both fail */
  #readOr(source: Source, part: Uint8Array, at: number): void {
    try {
      this.#readFrom(source, part, at);
    } catch (error) {
      this.#balance.record(source, part.length, failedAsSlowAsMs);
      try {
        this.#readFrom(source === 'data' ? 'base' : 'data', part, at);
      } catch {
        throw error;
      }
    }
  }

  #readFrom(source: Source, part: Uint8Array, at: number): void {
    if (source === 'data') this.#readData(part, at);
    else readVisible(this.#numbers, this.#base, part, at);
  }

  /** Each unit is as before or after any one write: the system copies bytes one after the other, and a write may come between. */
  #readData(target: Uint8Array, at: number): void {
    const [first, end] = [Math.floor(at / unitBytes), Math.ceil((at + target.length) / unitBytes)];
    const turn = this.#map.turnOf(first, end);
    if (turn !== undefined) {
      this.#data.read(target, at);
      if (this.#map.turnOf(first, end) === turn) return;
    }
    for (let unit = first; unit < end; unit++) {
      const from = Math.max(0, unit * unitBytes - at);
      const part = target.subarray(from, (unit + 1) * unitBytes - at);
      this.#map.locked('unit', unit, () => this.#data.read(part, at + from));
    }
  }
}
