/**
 * The transport that speaks with the kernel directly: worker threads answer, each on its own channel of /dev/fuse. The main thread only
 * starts them, wakes them when something is idle, answers for one that died, and ends them.
 */
import * as fs from '../../base/fs.ts';
import { constants } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel, Worker } from 'node:worker_threads';
import { describeError, systemErrorCode, UnavailableError } from '../../base/errors.ts';
import { nativePath } from '../../base/names.ts';
import { workerUrl } from '../../base/worker-url.ts';
import { BlockCache } from '../../backup/block-cache.ts';
import type { FilterOptions } from '../filter.ts';
import { InodeNumbers } from '../inode-numbers.ts';
import { HeldPlace, openPath, type Place } from '../place.ts';
import type { LockedRange } from './locks/description-locks.ts';
import { LockKeeper, type Carried } from './locks/lock-keeper.ts';
import type { Log } from '../native-file-state.ts';
import type { Statistics } from '../statistics.ts';
import { exitNow, raiseFileLimit } from '../system-calls.ts';
import type { ServingTransport, TransportStatus } from '../transport.ts';
import type { Replacements } from '../replacements.ts';
import type { Placing } from '../../replacement/finalize.ts';
import { settleBacking } from './backings.ts';
import { answerReplacements } from './asked-replacements.ts';
import { Board, type CurrentRequest } from './board.ts';
import { Crowd } from './crowd.ts';
import { cloneChannel, mountDevice } from './mount-device.ts';
import { negotiate, type Agreed } from './negotiate.ts';
import { maxNodes, NodeTable } from './node-table.ts';
import { OpenTable } from './open-table.ts';
import { wakeWorker } from './notify.ts';
import { ReadAhead } from './read-ahead.ts';
import { lockOut, outHeader } from './protocol.ts';
import type { WorkerData, WorkerMessage } from './worker.ts';

/** Descriptors that are not nodes: open files, images, channels, whatever else the process has open. */
const otherDescriptors = 4096;
const defaultMaxDeaths = 32;
const endsWithinMs = 500;
const wakeEveryMs = 50;
const nothing = new Uint8Array(0);
const settlesWithinMs = 5000;
const settleEveryMs = 5;
/** This thread's number in locks that it takes for a moment only: the first worker's, which cannot die meanwhile. */
const mainOwner = 1;
/** Nodes that are looked at in one turn for files that were deleted behind the mount. */
const nodesPerLook = 2000;

export interface KernelOptions {
  readonly filter: FilterOptions;
  readonly mountpoint: string;
  readonly workers: number;
  readonly cacheBytes: number;
  readonly idleMs: number;
  readonly statistics: Statistics;
  readonly replacements: Replacements;
  /** By what name the replacement of a native file is asked for; undefined for other files. */
  readonly replacementKeyOf?: (place: Place) => string | undefined;
  /** Of the log, which workers write to themselves. */
  readonly logFd: number;
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
  readonly #crowd: Crowd;
  readonly #locks: LockKeeper;
  readonly #workers: Serving[] = [];
  #deaths = 0;
  #closed: Promise<void> | undefined;
  #nextNode = 0;
  #wakeNode: number | undefined;

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
      acquire: (key, ...others) => {
        const parts = options.replacements.acquire(key, ...others);
        this.#locks.carry(key, parts.dataFd);
        return parts;
      },
    };
    this.#cache = new BlockCache(BlockCache.allocate(options.cacheBytes), 1);
    this.#board = Board.allocate(options.workers);
    this.#locks = new LockKeeper({
      carried: (node) => this.#carried(node),
      setLocked: (node, isLocked) => this.#nodes.setLocked(node, isLocked),
      answer: (worker, unique, errno, conflict) => this.#answerLock(worker, unique, errno, conflict),
      complain: (error) => this.#log('warn', `a lock is held under the mount alone: ${describeError(error)}`, {}),
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
    const alive = this.#workers.map((_, worker) => this.#board.isAlive(worker));
    return {
      workers: alive.filter((isAlive) => isAlive).length,
      diedWorkers: this.#deaths,
      requests: this.#workers.reduce((sum, _, worker) => sum + this.#board.requests(worker), 0),
      openFiles: this.#files.open,
      rememberedFiles: this.#nodes.used,
    };
  }

  /** Wakes workers that have something idle to close; has the kernel forget what was deleted behind the mount. */
  look(): boolean {
    const now = Date.now();
    if (this.#workers.some((_, worker) => this.#board.wantsToWake(worker, now))) this.#wakeAll();
    this.#forgetDeleted();
    return !this.#isGivenUp;
  }

  readonly place: Placing = ({ pluginPath, path: filePath, fd, parts }, rename) => {
    const { nodes, numbers, files } = { nodes: this.#nodes, numbers: this.#numbers, files: this.#files };
    const part = filePath === pluginPath ? '' : path.basename(filePath);
    const plugin = fs.statSync(pluginPath, { bigint: true });
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
    const began = this.#workers.map((_, worker) => this.#board.current(worker));
    const isOver = (worker: number): boolean => {
      const [then, now] = [began[worker], this.#board.current(worker)];
      return then === undefined || then.uniqueLow !== now?.uniqueLow || then.uniqueHigh !== now.uniqueHigh;
    };
    for (let waitedMs = 0; waitedMs < settlesWithinMs; waitedMs += settleEveryMs) {
      if (began.every((_, worker) => isOver(worker))) return true;
      await sleep(settleEveryMs);
    }
    return false;
  }

  async close(): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  /** Each worker ends after the next request that it gets. */
  async #close(): Promise<void> {
    this.#board.stop();
    this.#wakeAll();
    const waking = setInterval(() => this.#wakeAll(), wakeEveryMs).unref();
    const closed = Promise.all(this.#workers.map((worker) => worker.ended)).then(() => {
      clearInterval(waking);
      process.off('exit', exitNow);
      for (const { channel } of this.#workers) fs.closeSync(channel);
      fs.closeSync(this.#device);
      this.#locks.close();
      this.#files.close();
      this.#nodes.close();
      return true;
    });
    if (await Promise.race([closed, sleep(endsWithinMs, false)])) return;
    // Threads that wait for the kernel or a disk cannot be interrupted. They own nothing that must be saved: they end with the process.
    this.#log('info', 'workers are still busy; the process need not wait for them', {});
    process.on('exit', exitNow);
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

  /** What carries the locks of a node. The file that a part is made of is no such: its parts are files of their own. */
  #carried(node: number): Carried {
    const fd = this.#nodes.descriptorOf(node);
    const part = this.#nodes.partOf(node);
    return {
      own: part === '' ? `/proc/self/fd/${fd}` : undefined,
      replacementKey: this.#options.replacementKeyOf?.(new HeldPlace(fd, part)),
    };
  }

  #answerLock(worker: number, unique: bigint, errno: number, conflict?: LockedRange & { readonly pid: number }): void {
    const { channel = -1 } = this.#workers[worker] ?? {};
    answerRequest(channel, unique, errno, conflict === undefined ? undefined : lockOut.encode(conflict));
  }

  /** Resolves when the worker serves. */
  async #start(worker: number, channel: number): Promise<void> {
    const { mountpoint, logFd, idleMs, statistics, workerModule } = this.#options;
    const asking = new MessageChannel();
    const answered = new SharedArrayBuffer(4);
    answerReplacements(asking.port1, answered, this.#replacements);
    const data: WorkerData = {
      worker,
      channel,
      ...this.#agreed,
      filter: { ...this.#options.filter, numbers: this.#numbers.buffer },
      mountpoint,
      logFd,
      cache: this.#cache.memory,
      idleMs,
      statistics: statistics.buffer,
      nodes: this.#nodes.buffer,
      files: this.#files.buffer,
      board: this.#board.buffer,
      streams: this.#streams,
      replacements: asking.port2,
      answered,
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
        asking.port1.close();
        resolve();
        if (code !== 0 && this.#closed === undefined) this.#died(worker, channel, failure, current);
      });
    });
    this.#workers[worker] = { thread, channel, ended };
    await new Promise<void>((resolve, reject) => {
      thread.on('message', (message: WorkerMessage) => {
        if (message === 'crowded') this.#crowd.thin();
        else if (message === 'serving') resolve();
        else this.#locks.handle(worker, message.lock);
      });
      void ended.then(() => reject(new UnavailableError('a worker thread did not start', { cause: failure })));
    });
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
    this.#cache.release(worker + 1);
    this.#options.statistics.forgetImages(worker + 1);
    if (current !== undefined) failRequest(channel, current);
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
    for (let count = 0; count < this.#workers.length; count++) {
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

  /**
   * A node holds its file, and with it the file's room on the disk, until the kernel forgets it. A look at the name of a file that was
   * deleted behind the mount makes the kernel see that.
   */
  #forgetDeleted(): void {
    if (this.#nextNode >= this.#nodes.end) this.#nextNode = 0;
    const span = this.#nodes.spanOf(nodesPerLook);
    for (const { fd } of this.#nodes.descriptors(this.#nextNode, span)) {
      try {
        if (fs.fstatSync(fd).nlink > 0) continue;
        const path = fs.readlinkSync(`/proc/self/fd/${fd}`).replace(/ \(deleted\)$/, '');
        const under = this.#options.mountpoint + path.slice(this.#options.filter.folder.length);
        if (path.startsWith(`${this.#options.filter.folder}/`))
          fs.promises.lstat(nativePath(under)).catch(() => undefined);
      } catch (error) {
        // Forgotten this moment.
        if (systemErrorCode(error) === undefined) throw error;
      }
    }
    this.#nextNode += span;
  }
}

function failRequest(channel: number, { uniqueLow, uniqueHigh }: CurrentRequest): void {
  const unique = BigInt.asUintN(32, BigInt(uniqueLow)) + BigInt.asUintN(32, BigInt(uniqueHigh)) * 2n ** 32n;
  answerRequest(channel, unique, constants.errno.EIO);
}

function answerRequest(channel: number, unique: bigint, errno: number, body: Uint8Array = nothing): void {
  const header = outHeader.encode({ length: outHeader.sizeBytes + body.length, error: -errno, unique });
  try {
    fs.writeSync(channel, Buffer.concat([header, body]));
  } catch {
    // It was answered just before a death, or the mount is gone.
  }
}
