/**
 * Units that a guest has read before the fill had them: the fill takes these first, for what is read once is mostly read again, and a guest
 * that boots reads what it needs in order. A ring in shared memory: where readers are faster than the fill, the oldest are overwritten, and
 * the fill meets them in their turn.
 */
const slots = 4096;
const word = { written: 0, taken: 1, first: 2 } as const;

export class HotUnits {
  readonly #words: Int32Array;

  constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer);
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer((word.first + slots) * 4);
  }

  push(unit: number): void {
    const at = Atomics.add(this.#words, word.written, 1) >>> 0;
    Atomics.store(this.#words, word.first + (at % slots), unit | 0);
  }

  /** The next one; undefined when there is none. Any number of threads may take. */
  take(): number | undefined {
    for (;;) {
      const taken = Atomics.load(this.#words, word.taken);
      const written = Atomics.load(this.#words, word.written);
      const behind = (written - taken) | 0;
      if (behind <= 0) return undefined;
      // Overwritten ones are skipped.
      const from = behind > slots ? (written - slots) | 0 : taken;
      if (Atomics.compareExchange(this.#words, word.taken, taken, (from + 1) | 0) !== taken) continue;
      return Atomics.load(this.#words, word.first + ((from >>> 0) % slots)) >>> 0;
    }
  }
}
