/**
 * How a worker gets at a replacement: it asks the main thread, which opens each once for all, and waits. Only the first write to a native
 * file, or the first read of one that was written, comes here.
 *
 * Each request has a number, and only the answer with that number is its answer. The worker waits for as long as the main thread may still
 * answer: a request that was given up would leave an answer behind. One that fits no request that is open is dropped; what it tells of stays
 * the main thread's, which closes it when the mount ends.
 */
import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import type { ThreadKey } from '../../backup/crypto/seal.ts';
import { assert, UnavailableError } from '../../base/errors.ts';
import { fromFailure, toFailure, type Failure } from '../../base/worker-team.ts';
import type { SharedReplacement } from '../../replacement/replacement.ts';
import type { DiskSignals } from '../../replacement/disk-signals.ts';
import type { AskedReplacement, Replacements } from '../../replacement/replacements.ts';

interface Question {
  readonly number: number;
  readonly asked: AskedReplacement;
  /** Where it is sealed. Within this process only. */
  readonly chainKey: ThreadKey | undefined;
}

interface Answer {
  readonly number: number;
  readonly said: { readonly parts: SharedReplacement | undefined } | Failure;
}

/** Shared words of one worker: how many answers were sent, and whether no more will come. */
const word = { answers: 0, isOver: 1, count: 2 } as const;
/** Longest sleep between two looks whether the other side is there still. */
const sliceMs = 1000;

/** What a worker and the main thread share for this. */
export function newAnswerWords(): SharedArrayBuffer {
  return new SharedArrayBuffer(word.count * 4);
}

/** The worker's side. */
export class AskedReplacements implements Replacements {
  readonly signals: DiskSignals;
  readonly #port: MessagePort;
  readonly #words: Int32Array;
  #lastNumber = 0;

  constructor(port: MessagePort, words: SharedArrayBuffer, signals: DiskSignals) {
    this.signals = signals;
    this.#port = port;
    this.#words = new Int32Array(words);
  }

  acquire(asked: AskedReplacement, sealingKey: () => ThreadKey): SharedReplacement | undefined {
    const chainKey = asked.place.isSealed ? sealingKey() : undefined;
    const number = ++this.#lastNumber;
    this.#port.postMessage({ number, asked, chainKey } satisfies Question);
    const said = this.#answerTo(number, asked.place.path);
    if ('failure' in said) throw fromFailure(said);
    return said.parts;
  }

  #answerTo(number: number, name: string): Answer['said'] {
    for (;;) {
      const answers = Atomics.load(this.#words, word.answers);
      const isOver = Atomics.load(this.#words, word.isOver) === 1;
      for (let next = receiveMessageOnPort(this.#port); next !== undefined; next = receiveMessageOnPort(this.#port)) {
        const answer = next.message as Answer;
        if (answer.number === number) return answer.said;
      }
      if (isOver) throw new UnavailableError(`${name}: the mount has ended`);
      Atomics.wait(this.#words, word.answers, answers, sliceMs);
    }
  }
}

/** The main thread's side: answers on `port` until it is closed. */
export function answerReplacements(port: MessagePort, words: SharedArrayBuffer, replacements: Replacements): void {
  const shared = new Int32Array(words);
  const tell = (): void => {
    Atomics.add(shared, word.answers, 1);
    Atomics.notify(shared, word.answers);
  };
  port.on('message', ({ number, asked, chainKey }: Question) => {
    const given = (): ThreadKey => {
      assert(chainKey !== undefined, 'a sealed replacement was asked for without its key');
      return chainKey;
    };
    let said: Answer['said'];
    try {
      said = { parts: replacements.acquire(asked, given) };
    } catch (error) {
      said = { failure: toFailure(error) };
    }
    port.postMessage({ number, said } satisfies Answer);
    tell();
  });
  port.on('close', () => {
    Atomics.store(shared, word.isOver, 1);
    tell();
  });
  port.unref();
}
