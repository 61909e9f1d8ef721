/** A lock in shared memory, held for microseconds at a time by threads that must not deadlock when one of them dies. */

const waitMs = 10;

export class SharedLock {
  readonly #words: Int32Array;
  readonly #index: number;
  readonly #owner: number;

  /** @param owner this thread's number, from 1 on: the word holds it while the lock is held */
  constructor(words: Int32Array, index: number, owner: number) {
    this.#words = words;
    this.#index = index;
    this.#owner = owner;
  }

  /** Runs `action` alone. It must not take the lock again. */
  hold<T>(action: () => T): T {
    for (;;) {
      const holder = Atomics.compareExchange(this.#words, this.#index, 0, this.#owner);
      if (holder === 0) break;
      Atomics.wait(this.#words, this.#index, holder, waitMs);
    }
    try {
      return action();
    } finally {
      this.#release(this.#owner);
    }
  }

  /** After the death of a thread: releases the lock if that thread held it. */
  breakFor(owner: number): void {
    this.#release(owner);
  }

  #release(owner: number): void {
    if (Atomics.compareExchange(this.#words, this.#index, owner, 0) === owner) Atomics.notify(this.#words, this.#index);
  }
}
