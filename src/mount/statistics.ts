/**
 * Counters of what is read through a mount, for each native file: in shared memory, so that every thread counts into them and `status`
 * reads them without asking a busy thread. Each thread has a lane of its own, so that counting needs no atomic operation; a file's
 * counters are the sums over all lanes.
 *
 * A slot is found by its name; slots are taken in order and never given back while the mount lives. When all are taken, further files
 * count into the last one.
 */
import { Buffer } from 'node:buffer';

/** Files that are counted apart. */
const slotCount = 512;
const nameBytes = 512;
/** Latencies: 4 buckets for each doubling of microseconds, from 1 us to over 16 s. */
const bucketsPerOctave = 4;
const bucketCount = 24 * bucketsPerOctave + 1;

const counterNames = [
  'sizeBytes',
  'opens',
  'openNow',
  /** Of these, handles whose reads and writes the kernel does by itself. */
  'directNow',
  'imageOpens',
  'imageOpenNow',
  'reads',
  'readBytes',
  'readMicroseconds',
  'cacheHits',
  'cacheMisses',
  'writes',
  'writtenBytes',
  /** 1 once writes to the file are kept. */
  'replaced',
  'errors',
] as const;
export type CounterName = (typeof counterNames)[number];

const slotCounters = counterNames.length + bucketCount;
const headerWords = 2;
const slotWords = headerWords + nameBytes / 4;

export interface FileStatistics extends Readonly<Record<CounterName, number>> {
  readonly name: string;
  /** Of reads, in microseconds: upper edges of buckets, within 19 %; undefined before the first read. */
  readonly latencyMicroseconds:
    { readonly p50: number; readonly p90: number; readonly p99: number; readonly max: number } | undefined;
}

export class Statistics {
  /** Give it to another thread's `Statistics` to count into the same. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #lanes: readonly Float64Array[];
  readonly #lane: number;

  /** @param lane this thread's own; the main thread has lane 0 */
  constructor(buffer: SharedArrayBuffer = Statistics.allocate(1), lane = 0) {
    this.buffer = buffer;
    this.#lane = lane;
    this.#words = new Int32Array(buffer, 0, wordCount);
    const laneCount = (buffer.byteLength - wordCount * 4) / laneBytes;
    this.#lanes = Array.from(
      { length: laneCount },
      (_, index) => new Float64Array(buffer, wordCount * 4 + index * laneBytes, slotCount * slotCounters),
    );
  }

  static allocate(laneCount: number): SharedArrayBuffer {
    return new SharedArrayBuffer(wordCount * 4 + laneCount * laneBytes);
  }

  /** The counters of the file of this name; taken anew on first use. Safe from any thread. */
  counters(name: string): Counters {
    const encoded = Buffer.from(name).subarray(0, nameBytes);
    this.#lock();
    try {
      let used = Atomics.load(this.#words, 1);
      for (let slot = 0; slot < used; slot++) {
        if (this.#slotName(slot).equals(encoded)) return this.#slot(slot);
      }
      if (used === slotCount) return this.#slot(slotCount - 1);
      this.#words[2 + used * slotWords] = encoded.length;
      Buffer.from(this.buffer, this.#nameOffset(used), nameBytes).set(encoded);
      Atomics.store(this.#words, 1, ++used);
      return this.#slot(used - 1);
    } finally {
      Atomics.store(this.#words, 0, 0);
      Atomics.notify(this.#words, 0);
    }
  }

  /** A thread has died, and with it the images that it had open. */
  forgetImages(lane: number): void {
    const counters = this.#lanes[lane];
    for (let slot = 0; counters !== undefined && slot < slotCount; slot++)
      counters[slot * slotCounters + counterIndex.imageOpenNow] = 0;
  }

  /** What has been counted so far, for every file. */
  snapshot(): FileStatistics[] {
    const used = Atomics.load(this.#words, 1);
    return Array.from({ length: used }, (_, slot) => this.#slot(slot).snapshot(this.#slotName(slot).toString()));
  }

  /** How many reads there were of all files, and how long they took together. */
  load(): { reads: number; microseconds: number } {
    const used = Atomics.load(this.#words, 1);
    let [reads, microseconds] = [0, 0];
    for (const lane of this.#lanes) {
      for (let slot = 0; slot < used; slot++) {
        reads += lane[slot * slotCounters + counterIndex.reads] ?? 0;
        microseconds += lane[slot * slotCounters + counterIndex.readMicroseconds] ?? 0;
      }
    }
    return { reads, microseconds };
  }

  #slot(slot: number): Counters {
    const lanes = this.#lanes.map((lane) => lane.subarray(slot * slotCounters, (slot + 1) * slotCounters));
    return new Counters(lanes, this.#lane);
  }

  #slotName(slot: number): Buffer {
    return Buffer.from(this.buffer, this.#nameOffset(slot), this.#words[2 + slot * slotWords] ?? 0);
  }

  #nameOffset(slot: number): number {
    return (2 + slot * slotWords + headerWords) * 4;
  }

  /** Held for microseconds, and only when a file is opened. */
  #lock(): void {
    while (Atomics.compareExchange(this.#words, 0, 0, 1) !== 0) Atomics.wait(this.#words, 0, 1, 10);
  }
}

export class Counters {
  readonly #lanes: readonly Float64Array[];
  /** This thread's. */
  readonly #own: Float64Array;

  constructor(lanes: readonly Float64Array[], own: number) {
    this.#lanes = lanes;
    this.#own = lanes[own] ?? new Float64Array(slotCounters);
  }

  add(name: CounterName, amount: number): void {
    const index = counterIndex[name];
    this.#own[index] = (this.#own[index] ?? 0) + amount;
  }

  /** Sets a value that is no sum: whoever sets it last is right. */
  set(name: CounterName, value: number): void {
    const first = this.#lanes[0];
    if (first !== undefined) first[counterIndex[name]] = value;
  }

  /** A value that was `set`, or the sum of what all threads have added. */
  get(name: CounterName): number {
    return this.#get(counterIndex[name]);
  }

  addLatency(microseconds: number): void {
    const bucket = Math.min(
      Math.max(0, Math.ceil(Math.log2(Math.max(1, microseconds)) * bucketsPerOctave)),
      bucketCount - 1,
    );
    this.add('readMicroseconds', microseconds);
    const index = counterNames.length + bucket;
    this.#own[index] = (this.#own[index] ?? 0) + 1;
  }

  snapshot(name: string): FileStatistics {
    const values = Object.fromEntries(counterNames.map((counter) => [counter, this.#get(counterIndex[counter])]));
    return { name, latencyMicroseconds: this.#latency(), ...(values as Record<CounterName, number>) };
  }

  #latency(): FileStatistics['latencyMicroseconds'] {
    const buckets = Array.from({ length: bucketCount }, (_, bucket) => this.#get(counterNames.length + bucket));
    const total = buckets.reduce((sum, count) => sum + count, 0);
    if (total === 0) return undefined;
    const edge = (share: number): number => {
      let seen = 0;
      const bucket = buckets.findIndex((count) => (seen += count) >= share * total);
      return Math.round(2 ** (bucket / bucketsPerOctave));
    };
    return { p50: edge(0.5), p90: edge(0.9), p99: edge(0.99), max: edge(1) };
  }

  #get(index: number): number {
    return this.#lanes.reduce((sum, lane) => sum + (lane[index] ?? 0), 0);
  }
}

const counterIndex = Object.fromEntries(counterNames.map((name, index) => [name, index])) as Readonly<
  Record<CounterName, number>
>;
/** [0] lock, [1] slots in use, then a length and a name for each; even, so that the counters behind are aligned. */
const wordCount = 2 + slotCount * slotWords;
const laneBytes = slotCount * slotCounters * 8;
