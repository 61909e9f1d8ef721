/**
 * How a worker gets at a replacement: it asks the main thread, which opens each once for all, and waits. Only the first write to a native
 * file, or the first read of one that was written, comes here.
 */
import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import type { ThreadKey } from '../../backup/seal.ts';
import { assert, UnavailableError } from '../../base/errors.ts';
import { fromFailure, toFailure, type Failure } from '../../base/worker-team.ts';
import type { ReplacementPlace } from '../../replacement/open.ts';
import type { SharedReplacement } from '../../replacement/replacement.ts';
import type { Replacements } from '../replacements.ts';

interface Asked {
  readonly key: string;
  readonly place: ReplacementPlace;
  readonly discard: boolean;
  /** Where it is sealed. Within this process only. */
  readonly chainKey: ThreadKey | undefined;
}

type Answer = { readonly parts: SharedReplacement } | Failure;

/** The main thread only controls, and so is never busy for long. */
const answerWithinMs = 30_000;

/** The worker's side. */
export class AskedReplacements implements Replacements {
  readonly #port: MessagePort;
  readonly #answered: Int32Array;

  constructor(port: MessagePort, answered: SharedArrayBuffer) {
    this.#port = port;
    this.#answered = new Int32Array(answered);
  }

  acquire(key: string, place: ReplacementPlace, discard: boolean, sealingKey: () => ThreadKey): SharedReplacement {
    const chainKey = place.isSealed ? sealingKey() : undefined;
    Atomics.store(this.#answered, 0, 0);
    this.#port.postMessage({ key, place, discard, chainKey } satisfies Asked);
    Atomics.wait(this.#answered, 0, 0, answerWithinMs);
    const answer = receiveMessageOnPort(this.#port)?.message as Answer | undefined;
    if (answer === undefined) throw new UnavailableError(`${place.path}: its replacement was not opened in time`);
    if ('failure' in answer) throw fromFailure(answer);
    return answer.parts;
  }
}

/** The main thread's side: answers on `port` until it is closed. */
export function answerReplacements(port: MessagePort, answered: SharedArrayBuffer, replacements: Replacements): void {
  const flag = new Int32Array(answered);
  port.on('message', ({ key, place, discard, chainKey }: Asked) => {
    const given = (): ThreadKey => {
      assert(chainKey !== undefined, 'a sealed replacement was asked for without its key');
      return chainKey;
    };
    let answer: Answer;
    try {
      answer = { parts: replacements.acquire(key, place, discard, given) };
    } catch (error) {
      answer = { failure: toFailure(error) };
    }
    port.postMessage(answer);
    Atomics.store(flag, 0, 1);
    Atomics.notify(flag, 0);
  });
  port.unref();
}
