/**
 * Workers beside those that were asked for. For each worker that is stuck, in a source or not, a further one is started, so that as many as
 * were asked for are there for everybody else; when all go on, those beside end.
 */
import type { SourceWatch } from '../../base/source-watch.ts';
import type { Board, CurrentRequest } from './board.ts';

/** At the most. */
export const maxBeside = 24;
/** A worker that is inside a source for so long counts as stuck; one that is at the same request, and may only lack a processor. */
const stuckAfterMs = 250;
const busyAfterMs = 2000;
/** So long after the last one was stuck, those beside end. */
const calmMs = 5000;

export class Beside {
  readonly #workers: number;
  readonly #board: Board;
  readonly #sources: SourceWatch;
  /** The request that each worker was seen at, and since when. */
  readonly #seen = new Map<number, { request: CurrentRequest | undefined; sinceMs: number }>();
  #lastStuckMs = 0;

  /** @param workers that were asked for; those beside are numbered from there on */
  constructor(workers: number, board: Board, sources: SourceWatch) {
    this.#workers = workers;
    this.#board = board;
    this.#sources = sources;
  }

  /** @param running workers, those that are starting included. @returns who is to be started, and who is not needed any more */
  look(running: ReadonlySet<number>): { start: number[]; dismiss: number[] } {
    const nowMs = performance.now();
    const stuck = [...running].filter((worker) => this.#isStuck(worker, nowMs)).length;
    if (stuck > 0) this.#lastStuckMs = nowMs;
    const missing = this.#workers - (running.size - stuck);
    const beside = Array.from({ length: maxBeside }, (_, index) => this.#workers + index);
    return {
      start: missing <= 0 ? [] : beside.filter((worker) => !running.has(worker)).slice(0, missing),
      dismiss: nowMs - this.#lastStuckMs > calmMs ? beside.filter((worker) => running.has(worker)) : [],
    };
  }

  #isStuck(worker: number, nowMs: number): boolean {
    const request = this.#board.current(worker);
    const before = this.#seen.get(worker);
    const isSame =
      before !== undefined &&
      before.request?.uniqueLow === request?.uniqueLow &&
      before.request?.uniqueHigh === request?.uniqueHigh;
    if (!isSame) this.#seen.set(worker, { request, sinceMs: nowMs });
    const isBusy = isSame && request !== undefined && nowMs - before.sinceMs >= busyAfterMs;
    // What is made ahead, or closed, is no request.
    return isBusy || this.#sources.stuck(worker, stuckAfterMs, nowMs) !== undefined;
  }
}
