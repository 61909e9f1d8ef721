/** What the threads of one fill and the main thread tell each other, in shared memory: what is wished, what is done, how far it is. */

const words = [
  /** 1 once it is to stop. */
  'stop',
  /** The next region that nobody has taken. */
  'region',
  'dataUnits',
  /** Copied since the guest asked for them, and in their turn. */
  'hotUnits',
  'coldUnits',
  'verifiedUnits',
  'repairedUnits',
  'adoptedUnits',
  'decryptedUnits',
  /** 1 while the last rest was for the guest's sake. */
  'yielding',
] as const;
export type FillWord = (typeof words)[number];

export class FillBoard {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(words.length * 4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  get(word: FillWord): number {
    return Atomics.load(this.#words, words.indexOf(word));
  }

  set(word: FillWord, value: number): void {
    Atomics.store(this.#words, words.indexOf(word), value);
  }

  add(word: FillWord, amount: number): number {
    return Atomics.add(this.#words, words.indexOf(word), amount);
  }

  shouldStop(): boolean {
    return this.get('stop') !== 0;
  }

  /** Ends all rests, too. */
  stop(): void {
    this.set('stop', 1);
    Atomics.notify(this.#words, words.indexOf('stop'));
  }

  /** Waits, unless or until it is to stop. */
  rest(ms: number): void {
    if (ms > 0) Atomics.wait(this.#words, words.indexOf('stop'), 0, ms);
  }
}
