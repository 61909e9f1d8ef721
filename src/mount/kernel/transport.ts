/**
 * The transport that speaks with the kernel directly: worker threads answer, each on its own channel of /dev/fuse. The main thread only
 * starts them, wakes them when something is idle, answers for one that died or is stuck in a source, and ends them.
 */
import * as fs from '../../base/fs.ts';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel, Worker } from 'node:worker_threads';
import { describeError, UnavailableError } from '../../base/errors.ts';
import { workerUrl } from '../../base/worker-url.ts';
import { BlockCache } from '../../backup/block-cache.ts';
import type { FilterOptions } from '../filter.ts';
import type { Log } from '../native-file-state.ts';
import type { SourceWatch } from '../source-watch.ts';
import type { Statistics } from '../statistics.ts';
import { exitNow, raiseFileLimit } from '../system-calls.ts';
import type { ServingTransport, TransportStatus } from '../transport.ts';
import type { Replacements } from '../replacements.ts';
import { answerReplacements, newAnswerWords } from './asked-replacements.ts';
import { Beside, maxBeside } from './beside.ts';
import { Board, type CurrentRequest } from './board.ts';
import { Crowd } from './crowd.ts';
import { DeletedFiles } from './deleted-files.ts';
import { cloneChannel, mountDevice } from './mount-device.ts';
import { negotiate, type Agreed } from './negotiate.ts';
import { maxNodes, NodeTable } from './node-table.ts';
import { OpenTable } from './open-table.ts';
import { wakeWorker } from './notify.ts';
import { ReadAhead } from './read-ahead.ts';
import { outHeader } from './protocol.ts';
import { WaitingRoom } from './waiting-room.ts';
import type { WorkerData, WorkerMessage } from './worker.ts';

/** Descriptors that are not nodes: open files, images, channels, whatever else the process has open. */
const otherDescriptors = 4096;
const defaultMaxDeaths = 32;
const endsWithinMs = 500;
const wakeEveryMs = 50;
export interface KernelOptions {
  readonly filter: FilterOptions;
  readonly mountpoint: string;
  readonly workers: number;
  readonly cacheBytes: number;
  /** For indexes, in each worker. */
  readonly indexBytes: number;
  /** Workers have its first threads, those beside included. */
  readonly sources: SourceWatch;
  readonly idleMs: number;
  readonly statistics: Statistics;
  readonly replacements: Replacements;
  /** Of the log, which workers write to themselves. */
  readonly logFd: number;
  readonly logLimit: SharedArrayBuffer;
  /** Files that the kernel may remember at once. */
  readonly maxNodes?: number;
  /** A mount whose workers keep dying serves nobody: after more deaths than this it ends. */
  readonly maxDeaths?: number;
  /** The module of a worker thread. */
  readonly workerModule?: URL;
}

interface Serving {
  readonly thread: Worker;
  readonly channel: number;
  readonly ended: Promise<void>;
}

export class KernelTransport implements ServingTransport {
  readonly name = 'kernel';
  readonly #options: KernelOptions;
  readonly #log: Log;
  readonly #device: number;
  readonly #agreed: Agreed;
  readonly #nodes: NodeTable;
  readonly #files: OpenTable;
  readonly #board: Board;
  readonly #streams = ReadAhead.allocate();
  readonly #cache: BlockCache;
  readonly #crowd: Crowd;
  readonly #waiting = WaitingRoom.allocate();
  readonly #workers = new Map<number, Serving>();
  readonly #beside: Beside;
  readonly #deleted: DeletedFiles;
  #deaths = 0;
  #isGone = false;
  #closed: Promise<boolean> | undefined;
  #wakeNode: number | undefined;

  private constructor(options: KernelOptions, log: Log, device: number, agreed: Agreed) {
    this.#options = options;
    this.#log = log;
    this.#device = device;
    this.#agreed = agreed;
    const limit = raiseFileLimit();
    this.#nodes = NodeTable.allocate(
      options.filter.folder,
      Math.max(64, Math.min(options.maxNodes ?? maxNodes, limit - Math.min(otherDescriptors, Math.floor(limit / 2)))),
    );
    this.#files = new OpenTable(undefined, 1);
    this.#cache = new BlockCache(BlockCache.allocate(options.cacheBytes, options.indexBytes), 1);
    this.#board = Board.allocate(options.workers + maxBeside);
    this.#beside = new Beside(options.workers, this.#board, options.sources);
    this.#deleted = new DeletedFiles(this.#nodes, options.filter.folder, options.mountpoint);
    options.sources.watch({
      firstThread: 0,
      endThread: options.workers + maxBeside,
      giveUp: (worker, _, commit) => this.#giveUp(worker, commit),
    });
    this.#crowd = new Crowd(this.#nodes, device, () => this.#board.clearCrowded());
  }

  /**
   * Mounts, and serves when it resolves.
   * @throws system errors, UnavailableError: nothing is mounted then
   */
  static async start(options: KernelOptions, log: Log): Promise<KernelTransport> {
    const device = await mountDevice(options.mountpoint, log);
    let transport: KernelTransport | undefined;
    try {
      transport = new KernelTransport(options, log, device, negotiate(device));
      await transport.#startAll();
      return transport;
    } catch (error) {
      if (transport === undefined) fs.closeSync(device);
      else await transport.close();
      throw error;
    }
  }

  status(): TransportStatus {
    return {
      workers: [...this.#workers.keys()].filter((worker) => this.#board.isAlive(worker)).length,
      diedWorkers: this.#deaths,
      requests: this.#board.allRequests,
      waitingRequests: this.#waiting.count,
      openFiles: this.#files.open,
      rememberedFiles: this.#nodes.used,
    };
  }

  isOpen(stat: fs.BigIntStats): boolean {
    return this.#files.isOpenFile(stat);
  }

  /** Wakes workers that have something idle to close; has the kernel forget what was deleted behind the mount. */
  look(): boolean {
    const now = Date.now();
    if ([...this.#workers.keys()].some((worker) => this.#board.wantsToWake(worker, now))) this.#wakeAll();
    this.#deleted.look();
    return !this.#isGivenUp && !this.#isGone;
  }

  lookAtSources(): void {
    if (this.#closed !== undefined || this.#isGivenUp) return;
    const { sources } = this.#options;
    const { start, dismiss } = this.#beside.look(new Set(this.#workers.keys()));
    for (const worker of start)
      this.#start(worker, cloneChannel(this.#device)).catch((error: unknown) =>
        this.#log('error', `no further worker could be started: ${describeError(error)}`, {}),
      );
    for (const worker of dismiss) this.#board.dismiss(worker);
    if (!this.#waiting.isEmpty) for (const request of this.#waiting.expired(sources.timeoutMs)) failRequest(request);
    if (dismiss.length > 0 || this.#waiting.hasOpen((source) => sources.memory.isFull(source))) this.#wakeAll();
  }

  /** It is answered for: from then on it does nothing. */
  #giveUp(worker: number, commit: () => boolean): void {
    // It cannot go on to another request before it is known that it was not given up.
    const request = this.#board.current(worker);
    if (commit() && request !== undefined) failRequest(request);
  }

  async close(): Promise<boolean> {
    this.#closed ??= this.#close();
    return await this.#closed;
  }

  /** Each worker ends after the next request that it gets. Those inside a source change nothing any more, whenever they come back. */
  async #close(): Promise<boolean> {
    this.#board.stop();
    for (const worker of this.#workers.keys()) this.#options.sources.giveUpNow(worker);
    this.#wakeAll();
    const waking = setInterval(() => this.#wakeAll(), wakeEveryMs).unref();
    const closed = Promise.all([...this.#workers.values()].map((worker) => worker.ended)).then(() => {
      clearInterval(waking);
      process.off('exit', exitNow);
      for (const { channel } of this.#workers.values()) fs.closeSync(channel);
      fs.closeSync(this.#device);
      this.#files.close();
      this.#nodes.close();
      return true;
    });
    if (await Promise.race([closed, sleep(endsWithinMs, false)])) return true;
    // Threads that wait for the kernel or a disk cannot be interrupted. They own nothing that must be saved: they end with the process.
    this.#log('info', 'workers are still busy; the process need not wait for them', {});
    process.on('exit', exitNow);
    return false;
  }

  get #isGivenUp(): boolean {
    return this.#deaths > (this.#options.maxDeaths ?? defaultMaxDeaths);
  }

  async #startAll(): Promise<void> {
    const starting = Array.from({ length: this.#options.workers }, (_, worker) =>
      this.#start(worker, cloneChannel(this.#device)),
    );
    await Promise.all(starting);
  }

  /** Resolves when the worker serves. */
  async #start(worker: number, channel: number): Promise<void> {
    const { filter, mountpoint, logFd, logLimit, idleMs, statistics, sources, workerModule } = this.#options;
    const asking = new MessageChannel();
    const { replacements } = this.#options;
    const answers = newAnswerWords();
    answerReplacements(asking.port1, answers, replacements);
    const data: WorkerData = {
      worker,
      channel,
      ...this.#agreed,
      filter,
      mountpoint,
      logFd,
      logLimit,
      cache: this.#cache.memory,
      idleMs,
      statistics: statistics.buffer,
      nodes: this.#nodes.buffer,
      files: this.#files.buffer,
      board: this.#board.buffer,
      streams: this.#streams,
      gate: sources.memory.buffer,
      waiting: this.#waiting.buffer,
      replacements: asking.port2,
      answers,
      signals: replacements.signals.buffer,
    };
    const thread = new Worker(workerModule ?? workerUrl(import.meta.url, './worker-main'), {
      workerData: data,
      transferList: [asking.port2],
      // What one worker opens, all use: it must not be closed when that one ends.
      trackUnmanagedFds: false,
    });
    let failure: unknown;
    thread.on('error', (error: unknown) => {
      failure = error;
    });
    const ended = new Promise<void>((resolve) => {
      thread.on('exit', (code) => {
        const current = this.#board.current(worker);
        this.#board.setDead(worker);
        sources.memory.clear(worker);
        asking.port1.close();
        resolve();
        if (this.#closed !== undefined) return;
        if (code !== 0) this.#died(worker, channel, failure, current);
        else this.#ended(worker, channel);
      });
    });
    this.#workers.set(worker, { thread, channel, ended });
    await new Promise<void>((resolve, reject) => {
      thread.on('message', (message: WorkerMessage) => {
        if (message === 'crowded') this.#crowd.thin();
        else resolve();
      });
      void ended.then(() => reject(new UnavailableError('a worker thread did not start', { cause: failure })));
    });
  }

  /** One that was beside the others, and was dismissed. Of the others none ends by itself but when the connection does: unmounted, or aborted. */
  #ended(worker: number, channel: number): void {
    if (worker < this.#options.workers) {
      this.#isGone = true;
      return;
    }
    this.#workers.delete(worker);
    fs.closeSync(channel);
  }

  /** Answers for a worker that died, and puts another in its place. */
  #died(worker: number, channel: number, failure: unknown, current: CurrentRequest | undefined): void {
    this.#deaths++;
    this.#log('error', `worker ${worker} died: ${describeError(failure ?? 'no reason given')}; its request failed`, {
      worker,
      deaths: this.#deaths,
    });
    this.#nodes.breakLock(worker + 1);
    this.#files.breakLock(worker + 1);
    this.#options.replacements.signals.breakLock(worker + 1);
    this.#cache.release(worker + 1);
    this.#options.statistics.forgetImages(worker + 1);
    if (current !== undefined) failRequest(current);
    if (this.#isGivenUp) {
      this.#log('error', `${this.#deaths} workers have died; the mount is given up`, {});
      void this.close();
      return;
    }
    this.#start(worker, channel).catch((error: unknown) =>
      this.#log('error', `no worker could take the place of worker ${worker}: ${describeError(error)}`, { worker }),
    );
  }

  /** Waiting workers get requests in turns, so that as many as there are workers wake each of them; a busy one needs no waking. */
  #wakeAll(): void {
    for (let count = 0; count < this.#workers.size; count++) {
      if (this.#wakeNode !== undefined && wakeWorker(this.#device, this.#wakeNode)) continue;
      this.#wakeNode = this.#wakeByAnyFile();
      if (this.#wakeNode === undefined) return;
    }
  }

  /** A file that the kernel still knows is there as long as an image is open or the mount in use. */
  #wakeByAnyFile(): number | undefined {
    for (const { node } of this.#nodes.descriptors(0, this.#nodes.end)) {
      if (wakeWorker(this.#device, node)) return node;
    }
    return undefined;
  }
}

function failRequest({ channel, uniqueLow, uniqueHigh }: CurrentRequest): void {
  const header = outHeader.encode({
    length: outHeader.sizeBytes,
    error: -constants.errno.EIO,
    unique: BigInt.asUintN(32, BigInt(uniqueLow)) + BigInt.asUintN(32, BigInt(uniqueHigh)) * 2n ** 32n,
  });
  try {
    fs.writeSync(channel, header);
  } catch {
    // It was answered just before the death, or the mount is gone.
  }
}
