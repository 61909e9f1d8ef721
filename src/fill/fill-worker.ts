/** A thread of fills: does what it is told, one task after the other. */
import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../base/errors.ts';
import { GateMemory, SourceGate, useSourceGate } from '../base/source-gate.ts';
import { toFailure, type Failure } from '../base/worker-team.ts';
import { BlockCache } from '../backup/read/block-cache.ts';
import { runFillTask, type FillTask, type KeyTask } from './thread.ts';
import type { FillThreadData, FillThreadMessage } from './threads.ts';

const port = parentPort;
assert(port !== null, 'the module of a fill was loaded outside a worker');
const { gate: memory, thread, blockBytes, indexBytes } = workerData as FillThreadData;
const gate = new SourceGate(new GateMemory(memory), thread);
useSourceGate(gate);
const cache = BlockCache.ofOneThread(blockBytes, indexBytes);
const say = (said: FillThreadMessage): void => port.postMessage(said);

port.on('message', (task: FillTask | KeyTask) => {
  let done: Failure | undefined;
  gate.begin();
  try {
    runFillTask(task, cache, (message) => say({ message }));
  } catch (error) {
    done = { failure: toFailure(error) };
  }
  say({ done });
});
say('ready');
