/**
 * The transport that speaks with the kernel directly: worker threads answer, each on its own channel of /dev/fuse. The main thread only
 * starts them, wakes them when something is idle, answers for one that died or is stuck in a source, and ends them.
 */
import * as fs from '../../base/fs.ts';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel, Worker } from 'node:worker_threads';
import { describeError, UnavailableError } from '../../base/errors.ts';
import { workerUrl } from '../../base/worker-url.ts';
import { BlockCache } from '../../backup/read/block-cache.ts';
import type { Log } from '../../base/log.ts';
import type { SourceWatch } from '../../base/source-watch.ts';
import type { Statistics } from '../../fill/statistics.ts';
import { exitNow, raiseFileLimit } from '../../base/system-calls.ts';
import { diskKey, type Replacements } from '../../replacement/replacements.ts';
import type { Placing } from '../../fill/finalize.ts';
import { currentPath, openPath } from '../../base/open-path.ts';
import type { TransportStatus } from '../../mounts/transport-status.ts';
import type { FilterOptions } from '../filter.ts';
import { InodeNumbers } from '../inode-numbers.ts';
import { HeldPlace, type Place } from '../place.ts';
import type { ServingTransport } from '../transport.ts';
import { LockKeeper, type Carried } from './locks/lock-keeper.ts';
import { answerRequest, failRequest } from './answers.ts';
import { answerReplacements, newAnswerWords } from './asked-replacements.ts';
import { closeBacking, settleBacking } from './backings.ts';
import { Beside, maxBeside } from './beside.ts';
import { Board, type CurrentRequest } from './board.ts';
import { Crowd } from './crowd.ts';
import { DeletedFiles } from './deleted-files.ts';
import { cloneChannel, mountDevice } from './mount-device.ts';
import { negotiate, type Agreed } from './negotiate.ts';
import { maxNodes, NodeTable } from './node-table.ts';
import { OpenTable } from './open-table.ts';
import { ReadAhead } from './read-ahead.ts';
import { OtherFileSystems } from './other-file-systems.ts';
import { lockOut, rootNode } from './protocol.ts';
import { WaitingRoom } from './waiting-room.ts';
import { Waking } from './waking.ts';
import type { WorkerData, WorkerMessage } from './worker.ts';

/** Descriptors that are not nodes: open files, images, channels, whatever else the process has open. */
const otherDescriptors = 4096;
const defaultMaxDeaths = 32;
const endsWithinMs = 500;
const wakeEveryMs = 50;
const settlesWithinMs = 5000;
const settleEveryMs = 5;
/** This thread's number in locks that it takes for a moment only: the first worker's, which cannot die meanwhile. */
const mainOwner = 1;

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
  /** What the replacement of a native file is known by; undefined for other files. */
  readonly diskKeyOf?: (place: Place) => string | undefined;
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
  readonly #numbers: InodeNumbers;
  readonly #nodes: NodeTable;
  readonly #files: OpenTable;
  readonly #board: Board;
  readonly #streams = ReadAhead.allocate();
  readonly #cache: BlockCache;
  readonly #replacements: Replacements;
  /** Of all replacements that workers have: see DirectFile.backing. */
  readonly #backings = new Set<SharedArrayBuffer>();
  readonly #crowd: Crowd;
  readonly #waiting = WaitingRoom.allocate();
  readonly #workers = new Map<number, Serving>();
  readonly #beside: Beside;
  readonly #deleted: DeletedFiles;
  readonly #waking: Waking;
  readonly #locks: LockKeeper;
  /** Of workers that were dismissed: open for as long as somebody waits for a lock, whose answer must go there. */
  readonly #lingering = new Set<number>();
  #deaths = 0;
  #isGone = false;
  #closed: Promise<boolean> | undefined;

  private constructor(options: KernelOptions, log: Log, device: number, agreed: Agreed) {
    this.#options = options;
    this.#log = log;
    this.#device = device;
    this.#agreed = agreed;
    this.#numbers = new InodeNumbers(fs.statSync(options.filter.folder, { bigint: true }).dev, options.filter.numbers);
    const limit = raiseFileLimit();
    this.#nodes = NodeTable.allocate(
      options.filter.folder,
      Math.max(64, Math.min(options.maxNodes ?? maxNodes, limit - Math.min(otherDescriptors, Math.floor(limit / 2)))),
    );
    this.#files = new OpenTable(undefined, 1);
    this.#replacements = {
      signals: options.replacements.signals,
      acquire: (asked, sealingKey) => {
        const parts = options.replacements.acquire(asked, sealingKey);
        if (parts === undefined) return undefined;
        this.#backings.add(parts.backing);
        this.#locks.carry(diskKey(fs.fstatSync(asked.pluginFd, { bigint: true }), asked.index), parts.dataFd);
        return parts;
      },
    };
    this.#cache = new BlockCache(BlockCache.allocate(options.cacheBytes, options.indexBytes), 1);
    this.#board = Board.allocate(options.workers + maxBeside);
    this.#beside = new Beside(options.workers, this.#board, options.sources);
    this.#waking = new Waking(device, this.#nodes);
    this.#deleted = new DeletedFiles(this.#nodes, options.mountpoint);
    this.#locks = new LockKeeper({
      carried: (node) => this.#carried(node),
      setLocked: (node, isLocked) => this.#nodes.setLocked(node, isLocked),
      answer: (channel, unique, errno, conflict) =>
        answerRequest(channel, unique, errno, conflict === undefined ? undefined : lockOut.encode(conflict)),
      complain: (error) => this.#log('warn', `a lock is held under the mount alone: ${describeError(error)}`, {}),
    });
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
    if ([...this.#workers.keys()].some((worker) => this.#board.wantsToWake(worker, now)))
      this.#waking.wake(this.#workers.size);
    if (this.#closed === undefined) this.#deleted.look();
    this.#closeLingering();
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
    if (dismiss.length > 0 || this.#waiting.hasOpen((source) => sources.memory.isFull(source)))
      this.#waking.wake(this.#workers.size);
  }

  /** It is answered for: from then on it does nothing. */
  #giveUp(worker: number, commit: () => boolean): void {
    // It cannot go on to another request before it is known that it was not given up.
    const request = this.#board.current(worker);
    if (commit() && request !== undefined) failRequest(request);
  }

  readonly place: Placing = ({ plugin, part, fd, parts }, rename) => {
    const { nodes, numbers, files } = { nodes: this.#nodes, numbers: this.#numbers, files: this.#files };
    const number = numbers.of(plugin, part);
    const stat = fs.fstatSync(fd, { bigint: true });
    const isMeant = (handle: number, handlePart: string): boolean => {
      const { dev, ino } = fs.fstatSync(handle, { bigint: true });
      return handlePart === part && dev === plugin.dev && ino === plugin.ino;
    };
    const backing = settleBacking(parts.backing, mainOwner);
    const held = openPath(`/proc/self/fd/${fd}`, true);
    const opened = fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_RDWR);
    try {
      const node = nodes.replace(plugin, part, held, backing, () => {
        rename();
        numbers.keep(stat, number);
        files.replace(isMeant, opened);
      });
      if (node !== undefined)
        this.#locks.placed(node, parts.seal === undefined ? parts.dataFd : nodes.descriptorOf(node));
    } finally {
      fs.closeSync(held);
      fs.closeSync(opened);
    }
  };

  async settled(): Promise<boolean> {
    const began = [...this.#workers.keys()].map((worker) => ({ worker, then: this.#board.current(worker) }));
    const isOver = ({ worker, then }: (typeof began)[number]): boolean => {
      const now = this.#board.current(worker);
      return then === undefined || then.uniqueLow !== now?.uniqueLow || then.uniqueHigh !== now.uniqueHigh;
    };
    for (let waitedMs = 0; waitedMs < settlesWithinMs; waitedMs += settleEveryMs) {
      if (began.every(isOver)) return true;
      await sleep(settleEveryMs);
    }
    return false;
  }

  async close(): Promise<boolean> {
    this.#closed ??= this.#close();
    return await this.#closed;
  }

  /** Each worker ends after the next request that it gets. Those inside a source change nothing any more, whenever they come back. */
  async #close(): Promise<boolean> {
    this.#board.stop();
    for (const worker of this.#workers.keys()) this.#options.sources.giveUpNow(worker);
    this.#waking.wake(this.#workers.size);
    const waking = setInterval(() => this.#waking.wake(this.#workers.size), wakeEveryMs).unref();
    const closed = Promise.all([...this.#workers.values()].map((worker) => worker.ended)).then(() => {
      clearInterval(waking);
      process.off('exit', exitNow);
      this.#giveUpFiles();
      for (const { channel } of this.#workers.values()) fs.closeSync(channel);
      for (const channel of this.#lingering) fs.closeSync(channel);
      fs.closeSync(this.#device);
      this.#files.close();
      this.#nodes.close();
      return true;
    });
    if (await Promise.race([closed, sleep(endsWithinMs, false)])) return true;
    // Threads that wait for the kernel or a disk cannot be interrupted. They own nothing that must be saved: they end with the process.
    this.#log('info', 'workers are still busy; the process need not wait for them', {});
    this.#giveUpFiles();
    process.on('exit', exitNow);
    return false;
  }

  /** Locks, and what the kernel holds for us: a copy of the mount in another mount namespace may keep the connection for long. */
  #giveUpFiles(): void {
    this.#locks.close();
    for (const backing of this.#backings) {
      try {
        closeBacking(this.#device, backing);
      } catch (error) {
        this.#log('warn', `the kernel keeps a disk file open: ${describeError(error)}`, {});
      }
    }
  }

  /** The mounted folder, whatever it is called by now. */
  get #folder(): string {
    return currentPath(this.#nodes.descriptorOf(rootNode));
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

  /**
   * What carries the locks of a node. The file that a part is made of is no such: its parts are files of their own. Nor is one of another file
   * system below the folder, which may not answer: its locks hold under this mount alone.
   */
  #carried(node: number): Carried {
    const fd = this.#nodes.descriptorOf(node);
    const part = this.#nodes.partOf(node);
    if (new OtherFileSystems(this.#folder).have(fd)) return { own: undefined, diskKey: undefined };
    return {
      own: part === '' ? `/proc/self/fd/${fd}` : undefined,
      diskKey: this.#options.diskKeyOf?.(new HeldPlace(fd, part)),
    };
  }

  /** Resolves when the worker serves. */
  async #start(worker: number, channel: number): Promise<void> {
    const { mountpoint, logFd, logLimit, idleMs, statistics, sources, workerModule } = this.#options;
    const asking = new MessageChannel();
    const answers = newAnswerWords();
    answerReplacements(asking.port1, answers, this.#replacements);
    const data: WorkerData = {
      worker,
      channel,
      ...this.#agreed,
      filter: { ...this.#options.filter, folder: this.#folder, numbers: this.#numbers.buffer },
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
      signals: this.#replacements.signals.buffer,
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
        else if (message === 'serving') resolve();
        else this.#locks.handle(channel, message.lock);
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
    this.#lingering.add(channel);
  }

  #closeLingering(): void {
    for (const channel of this.#lingering) {
      if (this.#locks.waitsOn(channel)) continue;
      this.#lingering.delete(channel);
      fs.closeSync(channel);
    }
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
}
