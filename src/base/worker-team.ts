/**
 * A team of worker threads that do one job together: started, heard, and ended as one. The first failure ends all of them.
 *
 * A worker answers with messages of the caller's own type and ends by itself; what it throws reaches the caller as the error it was.
 */
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { inSources } from './source-stack.ts';
import { AssertionError, VeneerError, type ErrorCode } from './errors.ts';

/** An error on its way between threads. */
export interface Failure {
  readonly failure: { readonly code: ErrorCode | undefined; readonly message: string };
}

/**
 * Runs `count` workers of the module at `url` until all have ended.
 * @param data the same for each: shared memory and plain values
 * @param onMessage called for each message, on this thread
 * @throws the first worker's error
 */
export async function runTeam<M>(
  url: URL,
  count: number,
  data: unknown,
  onMessage: (message: M) => void,
): Promise<void> {
  const workers = Array.from({ length: count }, () => new Worker(url, { workerData: data }));
  // A thread that is ended while it loads a native module takes the whole process with it.
  const loaded = workers.map((worker) => hasLoaded(worker));
  try {
    await Promise.all(workers.map((worker) => ended(worker, onMessage)));
  } finally {
    await Promise.all(loaded);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

/** In a worker: does the job with the data of its team, posting messages, and reports what it throws. */
export function teamMember<D, M>(job: (data: D, post: (message: M) => void) => void): void {
  const port = parentPort;
  if (port === null) throw new AssertionError('a worker module was loaded outside a worker');
  port.postMessage(loadedMessage);
  try {
    job(workerData as D, (message) => port.postMessage(message));
  } catch (error) {
    port.postMessage({ failure: toFailure(error) } satisfies Failure);
  }
}

/** The first message of each worker: its modules are there. */
const loadedMessage = 'veneer: loaded';

function hasLoaded(worker: Worker): Promise<void> {
  return new Promise((resolve) => {
    worker.once('message', () => resolve());
    worker.once('exit', () => resolve());
  });
}

function ended<M>(worker: Worker, onMessage: (message: M) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.on('message', (message: M | Failure | typeof loadedMessage) => {
      if (message === loadedMessage) return;
      if (isFailure(message)) {
        reject(fromFailure(message));
        return;
      }
      try {
        onMessage(message);
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
    worker.on('error', reject);
    worker.on('exit', (code) =>
      code === 0 ? resolve() : reject(new AssertionError(`a worker ended with code ${code}`)),
    );
  });
}

function isFailure(message: unknown): message is Failure {
  return typeof message === 'object' && message !== null && 'failure' in message;
}

export function toFailure(error: unknown): Failure['failure'] {
  if (error instanceof VeneerError) {
    const cause = error.cause instanceof Error ? `: ${error.cause.message}` : '';
    return { code: error.code, message: error.message + cause };
  }
  return { code: undefined, message: error instanceof Error ? inSources(error.stack ?? error.message) : String(error) };
}

export function fromFailure({ failure }: Failure): Error {
  return failure.code === undefined ? new Error(failure.message) : new VeneerError(failure.code, failure.message);
}
