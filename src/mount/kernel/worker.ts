/**
 * A worker thread: reads a request from its own channel, answers it, writes the reply, and never waits for anything else. It ends when the
 * mount does.
 */
import * as fs from '../../base/fs.ts';
import { constants } from 'node:os';
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { assert, describeError, systemErrorCode } from '../../base/errors.ts';
import { keepWithinLimits } from '../../base/identity.ts';
import { BlockCache, type CacheMemory } from '../../backup/read/block-cache.ts';
import { GateMemory, SourceGate, useSourceGate } from '../../base/source-gate.ts';
import { DiskSignals } from '../../replacement/disk-signals.ts';
import type { Log } from '../../base/log.ts';
import { Statistics } from '../../fill/statistics.ts';
import { errnoOf, isExpected } from '../errno.ts';
import { Filter, type FilterOptions } from '../filter.ts';
import { MountLog } from '../log.ts';
import { LogLimit } from '../log-limit.ts';
import { AskedReplacements } from './asked-replacements.ts';
import { attributeOperations } from './attribute-operations.ts';
import { Backings } from './backings.ts';
import { Board } from './board.ts';
import { CallerRights } from './caller.ts';
import { Crowd } from './crowd.ts';
import { lockOperations, type LockMessage } from './locks/lock-operations.ts';
import { fileOperations, readHandler } from './file-operations.ts';
import { folderOperations } from './folder-operations.ts';
import type { Agreed } from './negotiate.ts';
import { nameOperations } from './name-operations.ts';
import { NodeTable } from './node-table.ts';
import { OpenFiles } from './open-files.ts';
import { OpenTable } from './open-table.ts';
import { operation } from './protocol.ts';
import { noReply, Reply, Request, type Handler } from './request.ts';
import { ReadAhead } from './read-ahead.ts';
import { Session } from './session.ts';
import { WaitingRoom } from './waiting-room.ts';

/** What a worker tells the main thread: that it serves, that the table of nodes is crowded, what the kernel asks of locks. */
export type WorkerMessage = 'serving' | 'crowded' | { readonly lock: LockMessage };

export interface WorkerData extends Agreed {
  /** From 0 on; the thread's lane of the statistics, and its number in locks, is one more. */
  readonly worker: number;
  /** Descriptor of its channel. */
  readonly channel: number;
  readonly filter: FilterOptions;
  readonly mountpoint: string;
  readonly logFd: number;
  /** See LogLimit. */
  readonly logLimit: SharedArrayBuffer;
  readonly cache: CacheMemory;
  readonly idleMs: number;
  readonly statistics: SharedArrayBuffer;
  readonly nodes: SharedArrayBuffer;
  readonly files: SharedArrayBuffer;
  readonly board: SharedArrayBuffer;
  /** See ReadAhead. */
  readonly streams: SharedArrayBuffer;
  /** See SourceGate; this worker's cell is its number. */
  readonly gate: SharedArrayBuffer;
  readonly waiting: SharedArrayBuffer;
  /** Where it asks for replacements, what says that it was answered, and DiskSignals. */
  readonly replacements: MessagePort;
  readonly answers: SharedArrayBuffer;
  readonly signals: SharedArrayBuffer;
}

const { errno } = constants;
/** A busy worker looks after idle images once in so many requests. */
const lookEvery = 4096;
/** Too little notice would have the main thread wake workers all the time. */
const minWakeMs = 250;

class ChannelWorker {
  readonly #data: WorkerData;
  readonly #request = new Request();
  readonly #reply = new Reply();
  readonly #session: Session;
  readonly #board: Board;
  readonly #ahead: ReadAhead;
  readonly #read: Handler;
  readonly #handlers: ReadonlyMap<number, Handler>;
  readonly #gate: SourceGate;
  readonly #room: WaitingRoom;
  readonly #isFull: (source: number) => boolean;
  #lookDue = false;
  #untilLook = lookEvery;

  constructor(data: WorkerData, log: Log) {
    this.#data = data;
    const memory = new GateMemory(data.gate);
    this.#gate = new SourceGate(memory, data.worker);
    useSourceGate(this.#gate);
    this.#isFull = (source) => memory.isFull(source);
    this.#room = new WaitingRoom(data.waiting);
    const lane = data.worker + 1;
    const rights = new CallerRights(this.#request);
    const filter = new Filter(data.filter, {
      statistics: new Statistics(data.statistics, lane),
      cache: new BlockCache(data.cache, lane),
      log,
      replacements: new AskedReplacements(data.replacements, data.answers, new DiskSignals(data.signals, lane)),
      onImageOpened: () => (this.#lookDue = true),
      rights,
    });
    const table = new OpenTable(data.files, lane);
    this.#board = new Board(data.board);
    this.#session = new Session(
      filter,
      new NodeTable(data.nodes, lane),
      new OpenFiles(table, filter),
      table,
      log,
      new Backings(data.passthrough ? data.channel : undefined, table, lane, log),
      rights,
    );
    this.#ahead = new ReadAhead(data.streams, this.#board, data.worker);
    this.#read = readHandler(this.#session, this.#ahead);
    const handOver = (lock: LockMessage): void => parentPort?.postMessage({ lock } satisfies WorkerMessage);
    this.#handlers = new Map([
      ...nameOperations(this.#session),
      ...fileOperations(this.#session, handOver),
      ...lockOperations(this.#session, handOver),
      ...folderOperations(this.#session),
      ...(data.hasAttributes ? attributeOperations(this.#session) : []),
      [operation.destroy, () => 0],
      [operation.notifyReply, () => noReply],
    ]);
  }

  /** Returns when the mount is gone. */
  run(): void {
    const { worker, channel } = this.#data;
    const request = this.#request;
    const board = this.#board;
    for (;;) {
      let lengthBytes: number;
      try {
        lengthBytes = fs.readSync(channel, request.bytes);
      } catch (error) {
        if (isEnd(error)) break;
        continue;
      }
      request.lengthBytes = lengthBytes;
      if (!request.isSound) {
        if (lengthBytes === 0) break;
        continue;
      }
      request.sinceUnixMs = undefined;
      this.#serve(channel);
      if (request.operation === operation.read) this.#makeNext();
      if (request.operation === operation.lookup && Crowd.isCrowded(this.#session.nodes)) {
        if (board.claimCrowded()) parentPort?.postMessage('crowded' satisfies WorkerMessage);
        Crowd.pauseWhereFull(this.#session.nodes);
      }
      if (this.#lookDue || --this.#untilLook === 0 || request.operation === operation.notifyReply) this.#look();
      if (!this.#room.isEmpty) this.#takeUp();
      if (board.isStopping || (board.isDismissed(worker) && !this.#room.holds(channel))) break;
    }
    this.#session.filter.close();
  }

  #serve(channel: number): void {
    const { worker } = this.#data;
    this.#board.begin(worker, this.#request.uniqueLow, this.#request.uniqueHigh, channel);
    this.#answer(channel);
    this.#board.end(worker);
  }

  /** Requests that had to wait, whichever worker they came to. */
  #takeUp(): void {
    for (;;) {
      const channel = this.#room.take(this.#request, this.#isFull);
      if (channel === undefined) return;
      this.#serve(channel);
    }
  }

  #makeNext(): void {
    this.#gate.begin();
    this.#ahead.makeNext();
  }

  #answer(channel: number): void {
    const request = this.#request;
    const number = request.operation;
    this.#gate.begin();
    let code = 0;
    let bodyBytes: number;
    try {
      if (number === operation.read) bodyBytes = this.#read(request, this.#reply);
      else bodyBytes = this.#handle(number);
    } catch (error) {
      code = errnoOf(error);
      bodyBytes = 0;
      if (number !== operation.read) this.#session.undo();
      const mayWait = this.#gate.passage === 'turned away';
      if (mayWait && this.#room.put(request, channel, this.#gate.turnedAwayFrom)) return;
      this.#complain(number, error);
    }
    if (bodyBytes === noReply) return;
    // Of a request that was given up, the kernel has had its answer.
    const isWanted = this.#gate.passage !== 'given up';
    const delivered = isWanted && this.#send(channel, this.#reply.finish(request, code, bodyBytes));
    if (number === operation.read) return;
    if (delivered) this.#session.delivered();
    else this.#session.undo();
  }

  /**
   * An operation that is not here is one that the kernel then no longer asks for. What is found out while a file takes another's place is
   * found out again: it may be of the one and of the other.
   */
  #handle(number: number): number {
    const handler = this.#handlers.get(number);
    if (handler === undefined) throw unknownOperation;
    for (;;) {
      this.#session.begin();
      try {
        const bodyBytes = handler(this.#request, this.#reply);
        if (!this.#session.isMixed || !asking.has(number)) return bodyBytes;
      } catch (error) {
        if (!this.#session.isMixed || !(asking.has(number) || number === operation.setattr)) throw error;
      }
      this.#session.undo();
    }
  }

  #complain(number: number, error: unknown): void {
    if (this.#gate.passage === 'given up') return;
    if (error === unknownOperation || (isExpected(error) && systemErrorCode(error) !== 'ENFILE')) return;
    // What reads of native files throw is logged where it happens, with the file's name.
    if (number === operation.read) return;
    const name = Object.entries(operation).find(([, known]) => known === number)?.[0] ?? String(number);
    this.#session.log('warn', `${name}: ${describeError(error)}`, { operation: name });
  }

  /** False when the kernel no longer waits for it. */
  #send(channel: number, lengthBytes: number): boolean {
    try {
      fs.writeSync(channel, this.#reply.bytes, 0, lengthBytes);
      return true;
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT' && !isEnd(error)) this.#complain(0, error);
      return false;
    }
  }

  /** Closes idle images, lets go of files that others have closed, and says when to be woken for it again. */
  #look(): void {
    const { worker, idleMs } = this.#data;
    this.#lookDue = false;
    this.#untilLook = lookEvery;
    this.#session.files.sweep();
    this.#gate.begin();
    const leftMs = this.#session.filter.closeIdle(idleMs);
    this.#board.setWakeAt(worker, leftMs === undefined ? undefined : Date.now() + Math.max(leftMs, minWakeMs));
  }
}

/** These change nothing. */
const asking: ReadonlySet<number> = new Set([operation.lookup, operation.getattr, operation.open]);

const unknownOperation = Object.assign(new Error('ENOSYS: no such operation'), {
  code: 'ENOSYS',
  errno: -errno.ENOSYS,
  syscall: 'fuse',
});

/** Whether an error of the channel says that the mount is gone. */
function isEnd(error: unknown): boolean {
  const code = systemErrorCode(error);
  return code === 'ENODEV' || code === 'ECONNABORTED' || code === 'EBADF';
}

/** Serves as a worker thread. */
export function serveAsWorker(): void {
  const port = parentPort;
  assert(port !== null, 'the worker module was loaded outside a worker');
  const data = workerData as WorkerData;
  keepWithinLimits();
  const { log } = new MountLog(data.logFd, data.mountpoint, new LogLimit(data.logLimit));
  const worker = new ChannelWorker(data, log);
  new Board(data.board).setAlive(data.worker);
  port.postMessage('serving' satisfies WorkerMessage);
  worker.run();
}
