/**
 * Which of two sources a read is given to, where both have what it asks for: the one that was measured faster under the load of late.
 *
 * The slower one is asked now and then too, for loads change; what that costs is at most a thirty-second part of the time spent on reads. Kept
 * apart for small, middle and large reads, since what limits a source differs: its delay, or its throughput. Shared by all threads without
 * locks: an update that another thread overwrites costs a sample, no more.
 */
import { KiB } from '../base/units.ts';

export const sources = ['data', 'base'] as const;
/** The replacement's data file, or the synthesized file over the image. */
export type Source = (typeof sources)[number];

/** Largest reads of the first classes. */
const classLimits = [16 * KiB, 128 * KiB] as const;
const classCount = classLimits.length + 1;
/** Weight of a new sample. */
const newWeight = 1 / 8;
/** The part of all reading time that may be spent on asking the slower source. */
const probeShare = 1 / 32;
/** Where each lies: milliseconds a read took, for each source and class; then, for each class, the time that may be spent on the slower source. */
const creditAt = sources.length * classCount;

export class Balance {
  readonly #values: Float64Array;

  constructor(buffer: SharedArrayBuffer) {
    this.#values = new Float64Array(buffer);
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer((creditAt + classCount) * 8);
  }

  /** The source for a read of so many bytes. A source that was never measured is tried first. */
  choose(lengthBytes: number): Source {
    const kind = classOf(lengthBytes);
    const data = this.#at(kind);
    const base = this.#at(classCount + kind);
    if (data === 0) return 'data';
    if (base === 0) return 'base';
    const [faster, slower, slowerMs]: [Source, Source, number] =
      data <= base ? ['data', 'base', base] : ['base', 'data', data];
    if (this.#at(creditAt + kind) < slowerMs) return faster;
    this.#values[creditAt + kind] = this.#at(creditAt + kind) - slowerMs;
    return slower;
  }

  record(source: Source, lengthBytes: number, tookMs: number): void {
    const kind = classOf(lengthBytes);
    const at = sources.indexOf(source) * classCount + kind;
    const before = this.#at(at);
    this.#values[at] = before === 0 ? tookMs : before + (tookMs - before) * newWeight;
    this.#values[creditAt + kind] = Math.min(this.#at(creditAt + kind) + tookMs * probeShare, maxCreditMs);
  }

  /** How many of `count` equal pieces of a large read the base should get for both to be done at once; 0 while either is unmeasured. */
  shareOfBase(count: number): number {
    const data = this.#at(classCount - 1);
    const base = this.#at(2 * classCount - 1);
    return data === 0 || base === 0 ? 0 : Math.floor((count * data) / (data + base));
  }

  #at(index: number): number {
    return this.#values[index] ?? 0;
  }
}

/** What was saved up over a long quiet time must not be spent in one go. */
const maxCreditMs = 1000;

function classOf(lengthBytes: number): number {
  const found = classLimits.findIndex((limit) => lengthBytes <= limit);
  return found === -1 ? classCount - 1 : found;
}
