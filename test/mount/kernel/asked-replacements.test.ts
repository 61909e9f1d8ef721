/** Questions and answers between a worker and the main thread: an answer is only ever taken by the question that it answers. */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { Worker } from 'node:worker_threads';
import { expect, it, onTestFinished } from 'vitest';
import { UnavailableError } from '../../../src/base/errors.ts';
import { DiskSignals } from '../../../src/replacement/disk-signals.ts';
import { answerReplacements, AskedReplacements, newAnswerWords } from '../../../src/mount/kernel/asked-replacements.ts';
import type { AskedReplacement } from '../../../src/replacement/replacements.ts';
import type { SharedReplacement } from '../../../src/replacement/replacement.ts';

const noKey = (): never => {
  throw new Error('nothing here is sealed');
};

function asked(name: string): AskedReplacement {
  const place = { path: `/${name}`, pluginId: name, baseBytes: 1, isSealed: false };
  const pluginName = name;
  return { place, pluginName, fileName: name, index: 0, holdsName: false, discard: false, pluginFd: 0, makes: true };
}

/** What is answered about a name, for what is told apart by it. */
function partsOf(name: string): SharedReplacement {
  return { name } as SharedReplacement;
}

function answer(port: MessagePort, words: SharedArrayBuffer, number: number, name: string): void {
  port.postMessage({ number, said: { parts: partsOf(name) } });
  Atomics.add(new Int32Array(words), 0, 1);
}

it('an answer that is left of another question is dropped, and the right one taken', () => {
  const { port1, port2 } = new MessageChannel();
  onTestFinished(() => port1.close());
  const words = newAnswerWords();
  const worker = new AskedReplacements(port2, words, new DiskSignals());
  for (const [number, name] of [
    [0, 'late'],
    [7, 'never asked'],
    [1, 'a'],
    [1, 'a twice'],
  ] as const)
    answer(port1, words, number, name);
  expect(worker.acquire(asked('a'), noKey)?.name).toBe('a');
  answer(port1, words, 2, 'b');
  expect(worker.acquire(asked('b'), noKey)?.name).toBe('b');
});

it('a question waits for as long as its answer takes, and no longer than the other side is there', async () => {
  // The asker is the one that blocks: it runs in a thread of its own.
  const { port1, port2 } = new MessageChannel();
  const words = newAnswerWords();
  const signals = new DiskSignals();
  let slowMs = 2500;
  answerReplacements(port1, words, {
    signals,
    acquire({ place }) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, slowMs);
      slowMs = 0;
      return partsOf(place.path);
    },
  });
  const module = new URL('../../../src/mount/kernel/asked-replacements.ts', import.meta.url).href;
  const signalsModule = new URL('../../../src/replacement/disk-signals.ts', import.meta.url).href;
  const script = `
    const { parentPort, workerData } = require('node:worker_threads');
    Promise.all([import(${JSON.stringify(module)}), import(${JSON.stringify(signalsModule)})]).then(([m, s]) => {
      const asker = new m.AskedReplacements(workerData.port, workerData.words, new s.DiskSignals(workerData.signals, 1));
      for (const asked of workerData.questions) {
        try { parentPort.postMessage(asker.acquire(asked, () => undefined).name); }
        catch (error) { parentPort.postMessage(error.constructor.name); }
      }
    });`;
  const questions = ['slow', 'quick', 'quick too', 'nobody'].map((name) => asked(name));
  const thread = new Worker(script, {
    eval: true,
    workerData: { port: port2, words, signals: signals.buffer, questions },
    transferList: [port2],
  });
  const said: string[] = [];
  await new Promise<void>((resolve, reject) => {
    thread.on('error', reject);
    thread.on('exit', () => resolve());
    thread.on('message', (name: string) => {
      said.push(name);
      if (said.length === 3) port1.close();
    });
  });
  expect(said.slice(0, 3)).toEqual(['/slow', '/quick', '/quick too']);
  // It may have been asked just before the end.
  expect(['/nobody', UnavailableError.name]).toContain(said[3]);
});
