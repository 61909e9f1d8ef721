/**
 * A look over all files of the mounted folder, for what nobody has asked for yet: disks that `status` shows, and fills that go on. It goes in
 * slices, between which everything else of the main thread is done: a folder of any size is mounted at once.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describeError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Fillable } from '../fill/fillable.ts';
import type { Filter } from './filter.ts';

const sliceMs = 10;

export class Survey {
  images = 0;
  natives = 0;
  readonly #filter: Filter;
  readonly #onDisk: (disk: Fillable) => void;
  readonly #done: Promise<void>;
  #isStopped = false;
  #isDone = false;

  /**
   * @param onDisk called for each disk whose writes are kept
   * @param log where it is told that the folder cannot be looked over; it serves nevertheless
   */
  constructor(filter: Filter, onDisk: (disk: Fillable) => void, log: Log) {
    this.#filter = filter;
    this.#onDisk = onDisk;
    this.#done = this.#look().catch((error: unknown) =>
      log('error', `the folder cannot be looked over: ${describeError(error)}`, {}),
    );
  }

  /** Waits for its end, but no longer than that. @returns whether it has ended */
  async endsWithin(ms: number): Promise<boolean> {
    const timer = new AbortController();
    const late = new Promise<void>((resolve) => {
      const timeout = setTimeout(resolve, ms);
      timer.signal.addEventListener('abort', () => clearTimeout(timeout));
    });
    await Promise.race([this.#done, late]);
    timer.abort();
    return this.#isDone;
  }

  /** Resolves when it looks at nothing any more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#done;
  }

  async #look(): Promise<void> {
    let turnMs = performance.now();
    for (const { kind, disk } of this.#filter.survey()) {
      if (kind === 'image') this.images++;
      if (kind === 'plugin') this.natives++;
      if (disk !== undefined) this.#onDisk(disk);
      if (performance.now() - turnMs < sliceMs) continue;
      await nextTurn();
      turnMs = performance.now();
      if (this.#isStopped) return;
    }
    this.#isDone = true;
  }
}
