/** Waiting for what may never come: a server that hangs must not take the benchmark with it. */
import { setTimeout as sleep } from 'node:timers/promises';

/** Longer than anything that is measured takes on a busy machine. */
export const patienceMs = 180_000;

/** The promise's outcome, or a rejection after 3 minutes or when aborted, whichever comes first. */
export async function patiently<T>(promise: Promise<T>, what: string, signal: AbortSignal): Promise<T> {
  const answered = new AbortController();
  const waiting = sleep(patienceMs, undefined, { signal: AbortSignal.any([signal, answered.signal]) }).then(
    () => {
      throw new Error(`${what}: no answer within ${patienceMs / 1000} s`);
    },
    () => {
      signal.throwIfAborted();
      throw new Error(`${what}: was answered`);
    },
  );
  try {
    return await Promise.race([promise, waiting]);
  } finally {
    answered.abort();
    waiting.catch(() => undefined);
  }
}
