/** Who of several fills may work: so many at once, and the others in the order in which they came. */

export const defaultFillJobs = 2;

export class FillTurns {
  readonly #limit: number;
  #taken = 0;
  readonly #queue: (() => void)[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  get limit(): number {
    return this.#limit;
  }

  /** Whether who comes now is let through at once. */
  get isFree(): boolean {
    return this.#taken < this.#limit;
  }

  /** Resolves when it is the caller's turn, which `give` ends. @returns false where the signal came first: there is none then */
  async take(signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return false;
    if (this.isFree) {
      this.#taken++;
      return true;
    }
    return await new Promise((resolve) => {
      const called = (): void => {
        signal.removeEventListener('abort', left);
        resolve(true);
      };
      const left = (): void => {
        this.#queue.splice(this.#queue.indexOf(called), 1);
        resolve(false);
      };
      this.#queue.push(called);
      signal.addEventListener('abort', left, { once: true });
    });
  }

  /** The next one's turn. */
  give(): void {
    const next = this.#queue.shift();
    if (next === undefined) this.#taken--;
    else next();
  }
}
