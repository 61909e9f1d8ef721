/**
 * Counters of what is read through a mount, for each native file: in shared memory, so that every thread counts into them and `status`
 * reads them without asking a busy thread. Each thread has a lane of its own, so that counting needs no atomic operation; a file's
 * counters are the sums over all lanes.
 *
 * A slot is found by its name; slots are taken in order and never given back while the mount lives. When all are taken, further files
 * count into the last one, which has a name of its own. Nothing is decided by these numbers: they are for people.
 */
import { Buffer } from 'node:buffer';
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { bytesOfName, nameOfBytes } from '../base/names.ts';

/** Files that are counted apart, and all others together. */
const slotCount = 4096;
const furtherSlot = slotCount - 1;
const furtherName = '(further files)';
/** So many are taken for files that were only looked at. */
const maxNoted = slotCount / 2;
const nameBytes = 512;
/** Latencies: 4 buckets for each doubling of microseconds, from 1 us to over 16 s. */
const bucketsPerOctave = 4;
const bucketCount = 24 * bucketsPerOctave + 1;

const counterNames = [
  'sizeBytes',
  'opens',
  'openNow',
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
  /** The number of its image's source; 0 until it was opened. */
  'source',
] as const;
export type CounterName = (typeof counterNames)[number];

const slotCounters = counterNames.length + bucketCount;
const errorBytes = 512;
/** An error that goes on is written down anew so often. */
const errorEverySeconds = 1;
/** Of each file: bytes of its name; then of its last error the bytes, and when it was, in seconds. */
const headerWords = 4;
const slotWords = headerWords + (nameBytes + errorBytes) / 4;

const counterSchemas = Object.fromEntries(counterNames.map((name) => [name, z.number()])) as Record<
  CounterName,
  z.ZodNumber
>;

/** What `status` tells of one file. */
export const fileStatisticsSchema = z.object({
  name: z.string(),
  /** Why the last of them failed that did. Absent from mounts of earlier versions. */
  lastError: z.object({ at: z.string(), message: z.string() }).exactOptional(),
  /** Of reads, in microseconds: upper edges of buckets, within 19 %; undefined before the first read. */
  latencyMicroseconds: z.object({ p50: z.number(), p90: z.number(), p99: z.number(), max: z.number() }).optional(),
  ...counterSchemas,
});
export type FileStatistics = z.infer<typeof fileStatisticsSchema>;

export class Statistics {
  /** Give it to another thread's `Statistics` to count into the same. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #lanes: readonly Float64Array[];
  readonly #lane: number;
  /** Slots by their names, of those that this thread has met or seen. */
  readonly #slots = new Map<string, number>();
  #seen = 0;
  readonly #counters = new Map<number, Counters>();

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
    return this.at(this.#slotOf(name, furtherSlot) ?? furtherSlot);
  }

  /** The same for a file that was only looked at: undefined where it is not counted, and half of the counters are taken. */
  noted(name: string): Counters | undefined {
    const slot = this.#slotOf(name, maxNoted);
    return slot === undefined ? undefined : this.at(slot);
  }

  /** @param slot of counters, in any thread */
  at(slot: number): Counters {
    let counters = this.#counters.get(slot);
    if (counters === undefined) {
      const lanes = this.#lanes.map((lane) => lane.subarray(slot * slotCounters, (slot + 1) * slotCounters));
      counters = new Counters(lanes, this.#lane, slot, {
        write: (message) => this.#writeError(slot, message),
        read: () => this.#readError(slot),
      });
      this.#counters.set(slot, counters);
    }
    return counters;
  }

  /** A thread has died, and with it the images that it had open. */
  forgetImages(lane: number): void {
    const counters = this.#lanes[lane];
    for (let slot = 0; counters !== undefined && slot < slotCount; slot++)
      counters[slot * slotCounters + counterIndex.imageOpenNow] = 0;
  }

  /** What has been counted so far, for every file. */
  snapshot(): FileStatistics[] {
    const used = this.#used;
    const files = Array.from({ length: used }, (_, slot) => this.at(slot).snapshot(nameOfBytes(this.#slotName(slot))));
    return used < furtherSlot ? files : [...files, this.at(furtherSlot).snapshot(furtherName)];
  }

  /** How many reads there were of all files, and how long they took together. */
  load(): { reads: number; microseconds: number } {
    const used = this.#used === furtherSlot ? slotCount : this.#used;
    let [reads, microseconds] = [0, 0];
    for (const lane of this.#lanes) {
      for (let slot = 0; slot < used; slot++) {
        reads += lane[slot * slotCounters + counterIndex.reads] ?? 0;
        microseconds += lane[slot * slotCounters + counterIndex.readMicroseconds] ?? 0;
      }
    }
    return { reads, microseconds };
  }

  /** Slots that have a name. */
  get #used(): number {
    return Atomics.load(this.#words, 1);
  }

  /** @param limit how many slots may be in use after it has taken one. @returns undefined where it has none */
  #slotOf(name: string, limit: number): number | undefined {
    const encoded = slotNameOf(name);
    const key = encoded.toString('latin1');
    if (!this.#slots.has(key)) this.#learn();
    if (!this.#slots.has(key) && this.#used < limit) this.#take(encoded, limit);
    return this.#slots.get(key);
  }

  /** Slots that other threads have taken. */
  #learn(): void {
    for (const used = this.#used; this.#seen < used; this.#seen++)
      this.#slots.set(this.#slotName(this.#seen).toString('latin1'), this.#seen);
  }

  #take(encoded: Buffer, limit: number): void {
    this.#lock();
    try {
      this.#learn();
      const used = this.#used;
      if (this.#slots.has(encoded.toString('latin1')) || used >= limit) return;
      this.#words[2 + used * slotWords] = encoded.length;
      Buffer.from(this.buffer, this.#nameOffset(used), nameBytes).set(encoded);
      Atomics.store(this.#words, 1, used + 1);
      this.#learn();
    } finally {
      this.#unlock();
    }
  }

  #writeError(slot: number, message: string): void {
    const at = 2 + slot * slotWords;
    const now = Math.floor(Date.now() / 1000);
    if (now - (this.#words[at + 2] ?? 0) < errorEverySeconds) return;
    const encoded = Buffer.from(message).subarray(0, errorBytes);
    this.#lock();
    try {
      Buffer.from(this.buffer, this.#nameOffset(slot) + nameBytes, errorBytes).set(encoded);
      this.#words[at + 1] = encoded.length;
      this.#words[at + 2] = now;
    } finally {
      this.#unlock();
    }
  }

  #readError(slot: number): FileStatistics['lastError'] {
    const at = 2 + slot * slotWords;
    this.#lock();
    try {
      const length = this.#words[at + 1] ?? 0;
      if (length === 0) return undefined;
      const message = Buffer.from(this.buffer, this.#nameOffset(slot) + nameBytes, length).toString();
      return { at: new Date((this.#words[at + 2] ?? 0) * 1000).toISOString(), message };
    } finally {
      this.#unlock();
    }
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

  #unlock(): void {
    Atomics.store(this.#words, 0, 0);
    Atomics.notify(this.#words, 0);
  }
}

interface ErrorNote {
  write(message: string): void;
  read(): FileStatistics['lastError'];
}

export class Counters {
  /** By which other threads find the same. */
  readonly slot: number;
  readonly #lanes: readonly Float64Array[];
  readonly #error: ErrorNote;
  /** This thread's. */
  readonly #own: Float64Array;

  constructor(lanes: readonly Float64Array[], own: number, slot: number, error: ErrorNote) {
    this.slot = slot;
    this.#lanes = lanes;
    this.#error = error;
    this.#own = lanes[own] ?? new Float64Array(slotCounters);
  }

  add(name: CounterName, amount: number): void {
    const index = counterIndex[name];
    this.#own[index] = (this.#own[index] ?? 0) + amount;
  }

  /** A read or a write has failed. */
  fail(message: string): void {
    this.add('errors', 1);
    this.#error.write(message);
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
    const lastError = this.#error.read();
    return {
      name,
      ...(lastError === undefined ? {} : { lastError }),
      latencyMicroseconds: this.#latency(),
      ...(values as Record<CounterName, number>),
    };
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

  /** Lanes are read one after the other: what was opened in one and closed in another meanwhile is not less than none. */
  #get(index: number): number {
    return Math.max(
      0,
      this.#lanes.reduce((sum, lane) => sum + (lane[index] ?? 0), 0),
    );
  }
}

/** A longer name is cut, and its hash put in the place of the rest: two names never share a slot. */
function slotNameOf(name: string): Buffer {
  const encoded = Buffer.from(bytesOfName(name));
  if (encoded.length <= nameBytes) return encoded;
  const rest = `~${createHash('sha256').update(encoded).digest('hex').slice(0, 16)}`;
  return Buffer.concat([encoded.subarray(0, nameBytes - rest.length), Buffer.from(rest)]);
}

const counterIndex = Object.fromEntries(counterNames.map((name, index) => [name, index])) as Readonly<
  Record<CounterName, number>
>;
/** [0] lock, [1] slots in use, then a length and a name for each; even, so that the counters behind are aligned. */
const wordCount = 2 + slotCount * slotWords;
const laneBytes = slotCount * slotCounters * 8;
