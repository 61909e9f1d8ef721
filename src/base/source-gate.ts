/**
 * The gate that a thread passes on its way into a source of images: a folder, or a mounted file system, that may lie on a server that has
 * died. In shared memory it says which thread is inside which source, so that whoever watches (source-watch.ts) can tell, without
 * asking a thread that may be blocked, and can give it up.
 *
 * Who decides: while a thread is inside, the watcher may give it up, by one atomic change of the thread's word; leaving takes the word back by
 * another. One of the two happens, never both. A thread that was given up acts no more: `leave` throws, and so does every `enter` after it,
 * until `begin`; what it was asked for has been answered by whoever gave it up.
 *
 * Nobody holds a lock while it is inside, so that a thread that is stuck keeps nobody else from anything.
 */
import { UnavailableError } from './errors.ts';
import { bytesOfName, nameOfBytes } from './names.ts';

/** Those beyond share the last one. */
const maxSources = 64;
const maxNameBytes = 1024;
const sourceField = { state: 0, nameBytes: 1, isFull: 2 } as const;
const sourceWords = 4;
const sourceState = { free: 0, named: 2, beingNamed: 1 } as const;
const cellField = { word: 0, source: 1 } as const;
const cellWords = 2;
/** The lowest bits of a thread's word. Above them a number that is another at each entry. */
const position = { outside: 0, inside: 1, givenUp: 2 } as const;
const positionMask = 3;
const nextEntry = 4;

/** What has become of what a thread was asked for. `turned away`: a source was full, and it is to be tried again later. */
export type Passage = 'passed' | 'turned away' | 'given up';

/** Words that a watcher looks at. */
export class GateMemory {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly #names: Uint8Array;

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.words = new Int32Array(buffer, maxSources * maxNameBytes);
    this.#names = new Uint8Array(buffer, 0, maxSources * maxNameBytes);
  }

  /** @param threads that may pass; each has a cell, from 0 on */
  static allocate(threads: number): GateMemory {
    const words = maxSources * sourceWords + threads * cellWords;
    return new GateMemory(new SharedArrayBuffer(maxSources * maxNameBytes + words * 4));
  }

  get threads(): number {
    return (this.words.length - maxSources * sourceWords) / cellWords;
  }

  /** The number of a source, from 1 on. Safe from any thread. */
  sourceOf(name: string): number {
    const bytes = bytesOfName(name).subarray(0, maxNameBytes);
    for (let source = 1; source < maxSources; source++) {
      const state = sourceAt(source) + sourceField.state;
      if (Atomics.compareExchange(this.words, state, sourceState.free, sourceState.beingNamed) === sourceState.free) {
        this.#names.set(bytes, (source - 1) * maxNameBytes);
        this.words[sourceAt(source) + sourceField.nameBytes] = bytes.length;
        Atomics.store(this.words, state, sourceState.named);
        return source;
      }
      if (Atomics.load(this.words, state) === sourceState.named && this.#nameBytes(source).equals(bytes)) return source;
    }
    return maxSources;
  }

  /** How many sources have a number. */
  get sources(): number {
    let count = 0;
    while (count < maxSources && this.words[sourceAt(count + 1) + sourceField.state] !== sourceState.free) count++;
    return count;
  }

  nameOf(source: number): string {
    return source === maxSources ? 'further sources' : nameOfBytes(this.#nameBytes(source));
  }

  isFull(source: number): boolean {
    return source !== 0 && this.words[sourceAt(source) + sourceField.isFull] !== 0;
  }

  setFull(source: number, isFull: boolean): void {
    this.words[sourceAt(source) + sourceField.isFull] = isFull ? 1 : 0;
  }

  /** Where a thread is: its word is another at each entry; undefined while it is in no source. */
  inside(thread: number): { word: number; source: number; isGivenUp: boolean } | undefined {
    const word = Atomics.load(this.words, cellAt(thread) + cellField.word);
    const at = word & positionMask;
    if (at === position.outside) return undefined;
    return {
      word,
      source: this.words[cellAt(thread) + cellField.source] ?? 0,
      isGivenUp: at === position.givenUp,
    };
  }

  /** @param word as `inside` gave it. @returns false where the thread has left meanwhile: it goes on then */
  giveUp(thread: number, word: number): boolean {
    const givenUp = (word & ~positionMask) | position.givenUp;
    return Atomics.compareExchange(this.words, cellAt(thread) + cellField.word, word, givenUp) === word;
  }

  /** A thread has ended. */
  clear(thread: number): void {
    Atomics.store(this.words, cellAt(thread) + cellField.word, position.outside);
  }

  #nameBytes(source: number): Buffer {
    const at = (source - 1) * maxNameBytes;
    const length = this.words[sourceAt(source) + sourceField.nameBytes] ?? 0;
    return Buffer.from(this.#names.subarray(at, at + length));
  }
}

/** One thread's side. Without memory everybody passes, and nobody watches. */
export class SourceGate {
  readonly #memory: GateMemory | undefined;
  readonly #words: Int32Array;
  readonly #cell: number;
  #depth = 0;
  #current = 0;
  #passage: Passage = 'passed';
  #turnedAwayFrom = 0;

  constructor(memory?: GateMemory, thread = 0) {
    this.#memory = memory;
    this.#words = memory?.words ?? new Int32Array(0);
    this.#cell = cellAt(thread);
  }

  /** The source that the thread is inside; 0 outside of all. */
  get current(): number {
    return this.#current;
  }

  /** See GateMemory.sourceOf; 0 where nobody watches. */
  sourceOf(name: () => string): number {
    return this.#memory === undefined ? 0 : this.#memory.sourceOf(name());
  }

  /** From now on something else is asked for. */
  begin(): void {
    this.#passage = 'passed';
  }

  /** Since `begin`. */
  get passage(): Passage {
    return this.#passage;
  }

  /** The source that was full. */
  get turnedAwayFrom(): number {
    return this.#turnedAwayFrom;
  }

  /** @throws UnavailableError when the source is full, or the thread was given up */
  enter(source: number): void {
    this.require(source);
    if (this.#memory !== undefined && source !== 0) this.#goIn(source);
  }

  /** As `enter`, for who is about to wait for one that is inside. */
  require(source: number): void {
    const memory = this.#memory;
    if (memory === undefined || source === 0) return;
    if (this.#passage === 'given up') throw givenUpError();
    if (this.#depth > 0 || !memory.isFull(source)) return;
    this.#passage = 'turned away';
    this.#turnedAwayFrom = source;
    throw new UnavailableError(`${memory.nameOf(source)}: does not answer`, { retryable: true });
  }

  /** @throws UnavailableError when the thread was given up meanwhile */
  leave(source: number): void {
    if (!this.#goOut(source)) throw givenUpError();
  }

  /** Runs `action` inside. @param undo of what it returned, which nobody wants any more. @throws as `enter` and `leave`, and as `action` */
  through<T>(source: number, action: () => T, undo?: (made: T) => void): T {
    this.enter(source);
    let made: T;
    try {
      made = action();
    } catch (error) {
      this.leave(source);
      throw error;
    }
    if (this.#goOut(source)) return made;
    undo?.(made);
    throw givenUpError();
  }

  /** Runs what must be done and only gives back: nobody is turned away, and being given up ends nothing but what was asked for. */
  closing(source: number, action: () => void): void {
    if (this.#memory === undefined || source === 0) {
      action();
      return;
    }
    this.#goIn(source);
    try {
      action();
    } finally {
      this.#goOut(source);
    }
  }

  #goIn(source: number): void {
    if (this.#depth++ > 0) return;
    this.#current = source;
    this.#words[this.#cell + cellField.source] = source;
    const word = this.#words[this.#cell + cellField.word] ?? 0;
    Atomics.store(this.#words, this.#cell + cellField.word, ((word + nextEntry) & ~positionMask) | position.inside);
  }

  /** An inner entry that has ended is a sign of life. @returns false when the thread was given up */
  #goOut(source: number): boolean {
    if (this.#memory === undefined || source === 0) return true;
    const at = this.#cell + cellField.word;
    const word = this.#words[at] ?? 0;
    const isOutermost = --this.#depth === 0;
    const after = isOutermost ? (word & ~positionMask) | position.outside : (word + nextEntry) | 0;
    const isInside = (word & positionMask) === position.inside;
    if (isOutermost) {
      this.#current = 0;
      // Who has come out makes room for another.
      if (this.#memory.isFull(source)) this.#memory.setFull(source, false);
    }
    if (isInside && Atomics.compareExchange(this.#words, at, word, after) === word) return true;
    this.#passage = 'given up';
    if (isOutermost) Atomics.store(this.#words, at, (word & ~positionMask) | position.outside);
    return false;
  }
}

function givenUpError(): UnavailableError {
  return new UnavailableError('its source did not answer in time', { retryable: true });
}

function sourceAt(source: number): number {
  return (source - 1) * sourceWords;
}

function cellAt(thread: number): number {
  return maxSources * sourceWords + thread * cellWords;
}

/** One for each thread: what it reads of images goes through it. */
let gate = new SourceGate();

export function sourceGate(): SourceGate {
  return gate;
}

/** For a thread that is watched, before it reads anything. */
export function useSourceGate(own: SourceGate): void {
  gate = own;
}
