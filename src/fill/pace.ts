/**
 * How fast a fill goes: a rate that all fills of a mount share in equal parts, and politeness, which yields to the guest.
 *
 * Politeness watches what a guest feels: how long its reads take while the fill copies, against how long they take while it rests. Where
 * copying makes them slower than it may, the fill rests longer after each chunk; where it does not, less. While no guest reads, it goes
 * at full speed.
 */

/** What the guests of a mount have read so far. */
export interface GuestLoad {
  readonly reads: number;
  readonly microseconds: number;
}

/** Reads may take so many times as long while the fill copies: a little below what is promised for the slowest of a hundred. */
const mayTakeTimes = 1.2;
/** A guest that has not read for this long is not there. */
const presentForMs = 500;
const firstRestMs = 2;
const maxRestMs = 250;
/** With no rest after chunks there would be nothing to compare with: a short one after so many, while a guest is there. */
const chunksPerProbe = 16;
const probeMs = 4;
const newWeight = 1 / 4;

export class Politeness {
  readonly #load: () => GuestLoad;
  #last: GuestLoad;
  #lastSeenMs = -Infinity;
  /** Mean microseconds of a guest's read; 0 before the first sample. */
  #whileCopying = 0;
  #whileResting = 0;
  #restMs = 0;
  #chunks = 0;

  constructor(load: () => GuestLoad) {
    this.#load = load;
    this.#last = load();
  }

  /** Whether a guest is reading these days. */
  get isGuestThere(): boolean {
    return performance.now() - this.#lastSeenMs < presentForMs;
  }

  /** To be called after each chunk that was copied. @returns how long to rest */
  afterChunk(): number {
    const copying = this.#sample();
    if (copying !== undefined) this.#whileCopying = blend(this.#whileCopying, copying);
    if (!this.isGuestThere) {
      this.#restMs = 0;
      return 0;
    }
    if (this.#whileCopying > this.#whileResting * mayTakeTimes && this.#whileResting > 0)
      this.#restMs = Math.min(maxRestMs, Math.max(firstRestMs, this.#restMs * 1.5));
    else this.#restMs = this.#restMs < firstRestMs ? 0 : this.#restMs * 0.8;
    if (this.#restMs > 0) return this.#restMs;
    return ++this.#chunks % chunksPerProbe === 0 || this.#whileResting === 0 ? probeMs : 0;
  }

  /** To be called after the rest. */
  afterRest(): void {
    const resting = this.#sample();
    if (resting !== undefined) this.#whileResting = blend(this.#whileResting, resting);
  }

  /** Mean time of the reads since the last call; undefined when there were none. */
  #sample(): number | undefined {
    const now = this.#load();
    const reads = now.reads - this.#last.reads;
    const microseconds = now.microseconds - this.#last.microseconds;
    this.#last = now;
    if (reads <= 0) return undefined;
    this.#lastSeenMs = performance.now();
    return microseconds / reads;
  }
}

function blend(before: number, sample: number): number {
  return before === 0 ? sample : before + (sample - before) * newWeight;
}

/** The rate that all fills of a mount share: in shared memory. */
export class SharedRate {
  readonly buffer: SharedArrayBuffer;
  readonly #bytesPerSecond: Float64Array;
  readonly #threads: Int32Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(16)) {
    this.buffer = buffer;
    this.#bytesPerSecond = new Float64Array(buffer, 0, 1);
    this.#threads = new Int32Array(buffer, 8, 1);
  }

  /** 0: as fast as it goes. */
  get bytesPerSecond(): number {
    return this.#bytesPerSecond[0] ?? 0;
  }

  set bytesPerSecond(rate: number) {
    this.#bytesPerSecond[0] = rate;
  }

  /** A thread that copies has come, or gone. */
  join(): void {
    Atomics.add(this.#threads, 0, 1);
  }

  leave(): void {
    Atomics.sub(this.#threads, 0, 1);
  }

  /** How long a thread should have taken for so many bytes, in its equal part of the rate. */
  shouldTakeMs(bytes: number): number {
    const rate = this.bytesPerSecond;
    return rate === 0 ? 0 : (bytes * 1000 * Math.max(1, Atomics.load(this.#threads, 0))) / rate;
  }
}
