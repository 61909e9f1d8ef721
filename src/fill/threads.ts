/**
 * The threads that all fills of a mount share: each does one task after the other, and ends when there has been none for a while.
 *
 * A thread that is stuck in a source (source-watch.ts) is given up: its task counts as failed by the source, and it ends when it comes back.
 */
import { Worker } from 'node:worker_threads';
import { AssertionError } from '../base/errors.ts';
import { workerUrl } from '../base/worker-url.ts';
import { fromFailure, type Failure } from '../base/worker-team.ts';
import { exitNow } from '../base/system-calls.ts';
import type { SourceStatus, SourceWatch } from '../base/source-watch.ts';
import type { FillMessage, FillTask, KeyTask } from './thread.ts';

/** Threads that work, or were given up and are not back. */
export const maxFillThreads = 64;
const idleForMs = 2000;
const askEveryMs = 100;

/** What a thread is started with. */
export interface FillThreadData {
  /** See SourceGate. */
  readonly gate: SharedArrayBuffer;
  readonly thread: number;
  /** Of inflated blocks, and of indexes. */
  readonly blockBytes: number;
  readonly indexBytes: number;
}

/** What a thread says: that it is there, how its task goes, and that it has ended. */
export type FillThreadMessage = 'ready' | { readonly message: FillMessage } | { readonly done: Failure | undefined };

export interface FillThreadsOptions {
  readonly sources: SourceWatch;
  /** The first cell of the threads' gates. */
  readonly firstCell: number;
  readonly blockBytes: number;
  readonly indexBytes: number;
}

interface FillThread {
  readonly worker: Worker;
  readonly cell: number;
  /** Priority, once lowered, stays so. */
  readonly isPolite: boolean;
  /** `starting`: one that is ended while it loads a native module takes the whole process with it. `lost`: given up, and not back yet. */
  state: 'starting' | 'ready' | 'lost' | 'ending';
  work: Work | undefined;
  idleSinceMs: number;
}

interface Work {
  readonly owner: object;
  onMessage(message: FillMessage): void;
  /** The first call counts. */
  settle(failure: Error | undefined): void;
}

export class FillThreads {
  readonly #options: FillThreadsOptions;
  readonly #threads = new Set<FillThread>();

  constructor(options: FillThreadsOptions) {
    this.#options = options;
    options.sources.watch({
      firstThread: options.firstCell,
      endThread: options.firstCell + maxFillThreads,
      giveUp: (cell, source, commit) => {
        const thread = [...this.#threads].find((one) => one.cell === cell);
        if (commit() && thread !== undefined) lose(thread, `source ${source}: does not answer`);
      },
    });
  }

  /**
   * Has a task done by `count` threads at once.
   * @param owner whose threads `stuck` asks for
   * @param signal when it aborts, threads that are inside a source are given up, and others waited for: they hear of it themselves
   * @param onFailure tells the others that one has failed
   * @throws the first thread's error, when all have ended
   */
  async run(
    task: FillTask | KeyTask,
    count: number,
    owner: object,
    signal: AbortSignal,
    onMessage: (message: FillMessage) => void,
    onFailure: () => void = () => undefined,
  ): Promise<void> {
    const asking = setInterval(() => {
      if (signal.aborted) this.#abandon(owner);
    }, askEveryMs);
    const runOne = async (): Promise<void> => {
      try {
        await this.#runOne(task, owner, onMessage);
      } catch (error) {
        onFailure();
        throw error;
      }
    };
    try {
      const ended = await Promise.allSettled(Array.from({ length: count }, runOne));
      const failed = ended.find((one) => one.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
    } finally {
      clearInterval(asking);
    }
  }

  /** The source that a thread of this owner has waited for, where it has for long. */
  stuck(owner: object): SourceStatus | undefined {
    for (const { work, cell } of this.#threads) {
      const stuck =
        work?.owner === owner ? this.#options.sources.stuck(cell, this.#options.sources.toldAfterMs) : undefined;
      if (stuck !== undefined) return stuck;
    }
    return undefined;
  }

  /** Ends those that have had nothing to do for a while. To be called now and then. */
  look(): void {
    const now = performance.now();
    for (const thread of this.#threads) if (isIdle(thread) && now - thread.idleSinceMs > idleForMs) void end(thread);
  }

  /** @returns whether all have ended; those that have not end with the process */
  async close(): Promise<boolean> {
    const lost = [...this.#threads].filter(({ cell }) => this.#options.sources.giveUpNow(cell));
    if (lost.length > 0) process.on('exit', exitNow);
    const others = [...this.#threads].filter((thread) => !lost.includes(thread));
    await Promise.all(others.map(end));
    return lost.length === 0;
  }

  async #runOne(task: FillTask | KeyTask, owner: object, onMessage: (message: FillMessage) => void): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const thread = this.#free(task.isPolite);
      const settle = (failure: Error | undefined): void => (failure === undefined ? resolve() : reject(failure));
      thread.work = { owner, onMessage, settle };
      thread.worker.postMessage(task);
    });
  }

  /** @throws AssertionError where there are too many: most of them are stuck */
  #free(isPolite: boolean): FillThread {
    const idle = [...this.#threads].filter(isIdle);
    const fitting = idle.find((thread) => thread.isPolite === isPolite);
    if (fitting !== undefined) return fitting;
    for (const thread of idle) void end(thread);
    return this.#start(isPolite);
  }

  #start(isPolite: boolean): FillThread {
    const { firstCell, sources, blockBytes, indexBytes } = this.#options;
    const taken = new Set([...this.#threads].map(({ cell }) => cell));
    const cell = Array.from({ length: maxFillThreads }, (_, index) => firstCell + index).find((one) => !taken.has(one));
    if (cell === undefined) throw new AssertionError(`${maxFillThreads} threads of fills are stuck`);
    const data: FillThreadData = { gate: sources.memory.buffer, thread: cell, blockBytes, indexBytes };
    const worker = new Worker(workerUrl(import.meta.url, './fill-worker'), { workerData: data });
    const thread: FillThread = { worker, cell, isPolite, state: 'starting', work: undefined, idleSinceMs: 0 };
    this.#threads.add(thread);
    worker.on('message', (said: FillThreadMessage) => this.#hear(thread, said));
    worker.on('error', (error: unknown) => finish(thread, error instanceof Error ? error : new Error(String(error))));
    worker.on('exit', (code) => {
      this.#threads.delete(thread);
      sources.memory.clear(cell);
      finish(thread, new AssertionError(`a thread of a fill ended with code ${code}`));
    });
    return thread;
  }

  #hear(thread: FillThread, said: FillThreadMessage): void {
    if (thread.state === 'starting') thread.state = 'ready';
    if (said === 'ready') return;
    if ('message' in said) {
      thread.work?.onMessage(said.message);
      return;
    }
    if (thread.state === 'lost') void end(thread);
    else finish(thread, said.done === undefined ? undefined : fromFailure(said.done));
  }

  #abandon(owner: object): void {
    for (const thread of this.#threads)
      if (thread.work?.owner === owner && this.#options.sources.giveUpNow(thread.cell))
        lose(thread, 'was told to stop');
  }
}

function isIdle({ state, work }: FillThread): boolean {
  return state === 'ready' && work === undefined;
}

async function end(thread: FillThread): Promise<void> {
  thread.state = 'ending';
  await thread.worker.terminate();
}

function finish(thread: FillThread, failure: Error | undefined): void {
  const { work } = thread;
  thread.work = undefined;
  thread.idleSinceMs = performance.now();
  work?.settle(failure);
}

/** Of a thread that was given up: its task is over for whoever waits for it. */
function lose(thread: FillThread, message: string): void {
  thread.state = 'lost';
  thread.work?.onMessage({ kind: 'source failed', message });
  finish(thread, undefined);
}
