/**
 * What keeps the log of a mount small whatever guests and folders do: of each kind of line one a minute is written, and those left out are
 * counted. Kinds are counted in memory that all threads of the mount share; a minute has room for so many, and what is beyond is one kind.
 */
const kinds = 256;
/** A kind is looked for in so many slots, from the one that its hash names. */
const probes = 8;
const periodSeconds = 60;
const textBytes = 240;

/** Of each kind: hash, when its last line was written, lines left out since, bytes of the text that names it. */
const field = { hash: 0, writtenAt: 1, leftOut: 2, textBytes: 3 } as const;
const slotWords = 4;
/** The last slot is that of all kinds beyond. */
const beyond = kinds;
const wordBytes = (kinds + 1) * slotWords * 4;

/** Lines of a kind that were left out. */
export interface LeftOut {
  readonly text: string;
  readonly count: number;
}

export class LogLimit {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #texts: Uint8Array;

  /** @param buffer of another thread's, to count into the same */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(wordBytes + (kinds + 1) * textBytes)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, wordBytes / 4);
    this.#texts = new Uint8Array(buffer, wordBytes);
  }

  /**
   * @param kind the same for lines that say the same
   * @param text what names the kind, should lines of it be left out
   * @returns whether the line may be written; else it is counted
   */
  admits(kind: string, text: string, nowSeconds: number): boolean {
    const hash = hashOf(kind);
    const slot = this.#slotOf(hash, nowSeconds);
    if (this.#claim(slot, nowSeconds)) {
      this.#setText(slot, slot === beyond ? 'lines of further kinds' : text);
      return true;
    }
    Atomics.add(this.#words, slot * slotWords + field.leftOut, 1);
    return false;
  }

  /**
   * Kinds of which lines were left out and whose minute is over: telling of them is their line of the next.
   * @param isEnd whether no more will come: all of them then
   */
  *leftOut(nowSeconds: number, isEnd = false): Generator<LeftOut> {
    for (let slot = 0; slot <= kinds; slot++) {
      if (Atomics.load(this.#words, slot * slotWords + field.leftOut) === 0) continue;
      if (!isEnd && !this.#claim(slot, nowSeconds)) continue;
      const count = Atomics.exchange(this.#words, slot * slotWords + field.leftOut, 0);
      if (count > 0) yield { text: this.#text(slot), count };
    }
  }

  /** The slot of a kind; one that is free or over is given to it. What it had left out is told of before (`leftOut`), or goes with it. */
  #slotOf(hash: number, nowSeconds: number): number {
    const slots = Array.from({ length: probes }, (_, probe) => ((hash >>> 0) + probe) % kinds);
    const known = slots.find((slot) => Atomics.load(this.#words, slot * slotWords + field.hash) === hash);
    if (known !== undefined) return known;
    for (const slot of slots) {
      const before = Atomics.load(this.#words, slot * slotWords + field.hash);
      const isFree = before === 0 || (this.#isOver(slot, nowSeconds) && this.#hasToldAll(slot));
      if (isFree && Atomics.compareExchange(this.#words, slot * slotWords + field.hash, before, hash) === before)
        return slot;
    }
    return beyond;
  }

  #isOver(slot: number, nowSeconds: number): boolean {
    return nowSeconds - Atomics.load(this.#words, slot * slotWords + field.writtenAt) >= periodSeconds;
  }

  #hasToldAll(slot: number): boolean {
    return Atomics.load(this.#words, slot * slotWords + field.leftOut) === 0;
  }

  /** One thread alone may write the line of a minute. */
  #claim(slot: number, nowSeconds: number): boolean {
    const at = slot * slotWords + field.writtenAt;
    const before = Atomics.load(this.#words, at);
    if (nowSeconds - before < periodSeconds) return false;
    return Atomics.compareExchange(this.#words, at, before, nowSeconds) === before;
  }

  #setText(slot: number, text: string): void {
    const encoded = Buffer.from(text).subarray(0, textBytes);
    this.#texts.set(encoded, slot * textBytes);
    Atomics.store(this.#words, slot * slotWords + field.textBytes, encoded.length);
  }

  #text(slot: number): string {
    const length = Atomics.load(this.#words, slot * slotWords + field.textBytes);
    return Buffer.from(this.#texts.slice(slot * textBytes, slot * textBytes + length)).toString();
  }
}

/** FNV-1a, 32 bits; never 0, which is a free slot. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5 | 0;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash === 0 ? 1 : hash;
}
