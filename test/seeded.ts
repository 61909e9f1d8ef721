/** Random numbers and bytes that a seed makes again. A test that fails prints its seed; VENEER_SEED=… runs it with that one. */
import { createCipheriv, createHash, randomBytes, type Cipheriv } from 'node:crypto';
import { onTestFailed } from 'vitest';

/** Whether the long form of the tests was asked for. */
export const soak = process.env['VENEER_SOAK'] === 'full';

const refillBytes = 4096;

export class Seeded {
  readonly seed: string;
  readonly #stream: Cipheriv;
  #pool = Buffer.alloc(0);
  #used = 0;

  constructor(seed: string) {
    this.seed = seed;
    const key = createHash('sha256').update(seed).digest();
    this.#stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  }

  /** A whole number from 0 to `limit - 1`. */
  below(limit: number): number {
    if (this.#used + 6 > this.#pool.length) {
      this.#pool = this.#stream.update(Buffer.alloc(refillBytes));
      this.#used = 0;
    }
    const value = this.#pool.readUIntLE(this.#used, 6);
    this.#used += 6;
    return value % limit;
  }

  /** A whole number from `first` to `last`, both included. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** True once in `count` calls, on average. */
  oneIn(count: number): boolean {
    return this.below(count) === 0;
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new Error('nothing to pick from');
    return items[this.below(items.length)] as T;
  }

  /** Bytes that do not compress, and have hardly a zero block among them. */
  bytes(length: number): Buffer {
    return this.#stream.update(Buffer.alloc(length));
  }

  /** Bytes that compress to about a quarter, as files do. */
  compressibleBytes(length: number): Buffer {
    const words = this.bytes(64);
    const picks = this.bytes(Math.ceil(length / 4));
    const made = Buffer.alloc(picks.length * 4);
    for (const [index, pick] of picks.entries()) words.copy(made, index * 4, (pick % 16) * 4, (pick % 16) * 4 + 4);
    return made.subarray(0, length);
  }
}

/**
 * Inside a test: a generator that prints its seed when the test fails. The seed is `name` in `npm test`, which so does the same
 * each time, and a new one in a soak.
 */
export function seededTest(name: string): Seeded {
  const seed = process.env['VENEER_SEED'] ?? (soak ? `${name} ${randomBytes(6).toString('hex')}` : name);
  onTestFailed(() => console.error(`seed: VENEER_SEED=${JSON.stringify(seed)}`));
  return new Seeded(seed);
}

/** Processor time of this process so far, which does not depend on what else the machine does. */
export function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
