/**
 * What each worker is doing, in shared memory: the main thread reads it without asking a thread that may be busy, blocked or dead.
 */

/** The first words: whether workers are to end. */
const stopping = 0;
/** Whether somebody has told the main thread that the table of nodes is crowded. */
const crowded = 1;
const headerWords = 8;
const field = {
  isAlive: 0,
  activity: 1,
  uniqueLow: 2,
  uniqueHigh: 3,
  requests: 4,
  wakeAtMs: 6,
  channel: 8,
  isDismissed: 9,
} as const;
const workerWords = 10;
/** Of a worker: waiting for a request, answering one, or making what the next ones are likely to ask for. */
const activity = { idle: 0, answering: 1, preparing: 2 } as const;

/** Names a request in its reply. */
export interface CurrentRequest {
  readonly uniqueLow: number;
  readonly uniqueHigh: number;
  /** That it came on, and its reply must go to. */
  readonly channel: number;
}

export class Board {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  /** The same memory: requests and times are whole numbers beyond 32 bits. */
  readonly #numbers: Float64Array;

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#numbers = new Float64Array(buffer);
  }

  static allocate(workers: number): Board {
    return new Board(new SharedArrayBuffer((headerWords + workers * workerWords) * 4));
  }

  get isStopping(): boolean {
    return this.#words[stopping] === 1;
  }

  /** Every worker is to end after the next request that it gets. */
  stop(): void {
    Atomics.store(this.#words, stopping, 1);
  }

  /** @returns whether nobody has told the main thread yet */
  claimCrowded(): boolean {
    return Atomics.load(this.#words, crowded) === 0 && Atomics.compareExchange(this.#words, crowded, 0, 1) === 0;
  }

  clearCrowded(): void {
    Atomics.store(this.#words, crowded, 0);
  }

  /** A request has been read: whoever sees this worker die can answer for it. */
  begin(worker: number, uniqueLow: number, uniqueHigh: number, channel: number): void {
    const at = headerWords + worker * workerWords;
    this.#words[at + field.channel] = channel;
    this.#words[at + field.uniqueLow] = uniqueLow;
    this.#words[at + field.uniqueHigh] = uniqueHigh;
    this.#words[at + field.activity] = activity.answering;
  }

  end(worker: number): void {
    const at = headerWords + worker * workerWords;
    this.#words[at + field.activity] = activity.idle;
    const requests = (at + field.requests) / 2;
    this.#numbers[requests] = (this.#numbers[requests] ?? 0) + 1;
  }

  beginPreparing(worker: number): void {
    this.#words[headerWords + worker * workerWords + field.activity] = activity.preparing;
  }

  endPreparing(worker: number): void {
    this.#words[headerWords + worker * workerWords + field.activity] = activity.idle;
  }

  /** How many workers other than this one wait for a request. */
  idleBeside(worker: number): number {
    let idle = 0;
    for (let other = 0, at = headerWords; at < this.#words.length; other++, at += workerWords) {
      if (other === worker || this.#words[at + field.isAlive] !== 1) continue;
      if (this.#words[at + field.activity] === activity.idle) idle++;
    }
    return idle;
  }

  /** The request that a worker was at, if it was at one. */
  current(worker: number): CurrentRequest | undefined {
    const at = headerWords + worker * workerWords;
    if (this.#words[at + field.activity] !== activity.answering) return undefined;
    return {
      uniqueLow: this.#words[at + field.uniqueLow] ?? 0,
      uniqueHigh: this.#words[at + field.uniqueHigh] ?? 0,
      channel: this.#words[at + field.channel] ?? -1,
    };
  }

  /** Answered by all workers that there ever were. */
  get allRequests(): number {
    let sum = 0;
    for (let at = headerWords; at < this.#words.length; at += workerWords)
      sum += this.#numbers[(at + field.requests) / 2] ?? 0;
    return sum;
  }

  isAlive(worker: number): boolean {
    return Atomics.load(this.#words, headerWords + worker * workerWords + field.isAlive) === 1;
  }

  /** Said by the worker itself, before its first request. */
  setAlive(worker: number): void {
    this.setWakeAt(worker, undefined);
    this.#words[headerWords + worker * workerWords + field.isDismissed] = 0;
    Atomics.store(this.#words, headerWords + worker * workerWords + field.isAlive, 1);
  }

  /** A worker that is not needed any more ends after the next request that it gets. */
  dismiss(worker: number): void {
    Atomics.store(this.#words, headerWords + worker * workerWords + field.isDismissed, 1);
  }

  isDismissed(worker: number): boolean {
    return this.#words[headerWords + worker * workerWords + field.isDismissed] === 1;
  }

  /** Said of a worker that has ended. */
  setDead(worker: number): void {
    Atomics.store(this.#words, headerWords + worker * workerWords + field.isAlive, 0);
    this.#words[headerWords + worker * workerWords + field.activity] = activity.idle;
  }

  /** When this worker wants to be woken if no request does, to close what is idle. Unix time. */
  setWakeAt(worker: number, unixMs: number | undefined): void {
    this.#numbers[(headerWords + worker * workerWords + field.wakeAtMs) / 2] = unixMs ?? Number.POSITIVE_INFINITY;
  }

  wantsToWake(worker: number, nowUnixMs: number): boolean {
    return (
      this.isAlive(worker) &&
      nowUnixMs >= (this.#numbers[(headerWords + worker * workerWords + field.wakeAtMs) / 2] ?? 0)
    );
  }
}
