/**
 * The fill of one native file: what is done after what, by threads that work for it. The main thread only waits for them here.
 *
 *   count -> copy -> (again, while something is missing) -> flush -> verify -> flush -> complete
 *
 * What stops it: being told to; a full disk (it pauses itself, and says so); the replacement's own disk failing (it fails). An image that
 * cannot be read stops nothing: it is tried again, less and less often, until it is there. Meanwhile it is another fill's turn.
 */
import * as fs from '../base/fs.ts';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describeError, UnavailableError, VeneerError } from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';
import type { SynthesizedPlace } from '../plugin/synthesized.ts';
import { presentBit, unitBytes, writtenBit, type ReplacementState } from '../replacement/layout.ts';
import { PresenceMap } from '../replacement/presence-map.ts';
import { shared, sizeOf, type SharedReplacement } from '../replacement/shared.ts';
import { changeState, servesAlone, stateOf } from '../replacement/states.ts';
import { sourceText } from '../base/source-watch.ts';
import type { Log } from '../base/log.ts';
import { currentPath } from '../base/open-path.ts';
import type { FillStatus, FillStep, Proof } from './fill-status.ts';
import { firstMissing } from './filler.ts';
import type { SharedRate } from './pace.ts';
import { FillBoard } from './board.ts';
import type { FillMessage, FillTask } from './thread.ts';
import type { FillThreads } from './threads.ts';
import type { FillTurns } from './turns.ts';
import type { Statistics } from './statistics.ts';

/** A native file that may be filled: plain values. */
export interface FillTarget {
  /** Its name in `status` and messages. */
  readonly name: string;
  place(): SynthesizedPlace;
}

export interface FillContext {
  readonly threads: FillThreads;
  readonly turns: FillTurns;
  readonly rate: SharedRate;
  readonly statistics: Statistics;
  readonly log: Log;
  /** Whether somebody has a disk open whose plugin file this is. */
  readonly isOpen: (stat: fs.BigIntStats) => boolean;
}

export interface FillOptions {
  /** Whether it yields to guests. */
  readonly isPolite: boolean;
  /** Whether all is read back and compared before the cut-over. */
  readonly isVerified: boolean;
}

type Activity = FillStatus['activity'];

const firstWaitMs = 1000;
const maxWaitMs = 30_000;
/** That work for one fill at once. */
export const threadsPerFill = Math.min(2, availableParallelism());
/** What no pause of the fill ends. */
const never = new AbortController().signal;
/** Weight of the last half second in the rate that is shown. */
const newWeight = 0.2;

export class FillJob implements Closable {
  readonly target: FillTarget;
  readonly parts: SharedReplacement;
  readonly #context: FillContext;
  /** Of the plugin file: a folder above it may be moved meanwhile. */
  readonly #pluginFd: number;
  readonly #map: PresenceMap;
  #board = new FillBoard();
  #decryption: FillBoard | undefined;
  #isClosed = false;
  #activity: Activity = 'idle';
  #note = '';
  #running: Promise<void> | undefined;
  #stopping = new AbortController();
  #hasTurn = false;
  #seen = { units: 0, atMs: 0, perSecond: 0 };

  /** @param pluginFd of the plugin file; given away */
  constructor(target: FillTarget, parts: SharedReplacement, pluginFd: number, context: FillContext) {
    this.target = target;
    this.parts = parts;
    this.#pluginFd = pluginFd;
    this.#context = context;
    this.#map = new PresenceMap(parts.presence);
  }

  get state(): ReplacementState {
    return stateOf(this.parts);
  }

  /** Whether its replacement was removed. */
  get isGone(): boolean {
    return fs.fstatSync(this.parts.mapFd).nlink === 0;
  }

  /** When it does not run. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    fs.closeSync(this.#pluginFd);
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** Goes on where the map says it was. @throws UsageError where the state does not allow it; CapacityError, UnavailableError */
  start(options: FillOptions): void {
    changeState(this.parts, this.#map, 'filling');
    if (this.#running !== undefined) return;
    this.#board = new FillBoard();
    this.#stopping = new AbortController();
    this.#note = '';
    this.#seen = { units: 0, atMs: performance.now(), perSecond: 0 };
    this.#running = this.#run(options).finally(() => {
      this.#activity = 'idle';
      this.#running = undefined;
    });
  }

  /** Resolves when no thread works for it any more. Its state stays: the next start, or mount, goes on. */
  async stop(): Promise<void> {
    this.#board.stop();
    this.#stopping.abort();
    await this.#running;
  }

  /** Hashes of all that is there, and of what should be. */
  async prove(): Promise<Proof> {
    const messages = await this.#team('prove', { isPolite: true, isVerified: true }, 1, {
      board: new FillBoard(),
      signal: never,
    });
    const found = messages.find((message) => message.kind === 'proof');
    if (found !== undefined) return found.proof;
    const failed = messages.find((message) => message.kind === 'source failed');
    throw new UnavailableError(failed?.message ?? `${this.target.name}: could not be read`);
  }

  /** Makes the plain file of a sealed one; see decrypt.ts. Only for what serves alone, and so is not being filled. */
  async decrypt(filePath: string): Promise<void> {
    this.#decryption = new FillBoard();
    this.#activity = 'decrypt';
    try {
      const board = this.#decryption;
      await this.#team('decrypt', { isPolite: false, isVerified: true }, 1, { board, filePath, signal: never });
    } finally {
      this.#activity = 'idle';
    }
  }

  /** To be called now and then: the rate is measured between calls. */
  look(): void {
    const units = this.#activity === 'verify' ? this.#board.get('verifiedUnits') : this.#copied();
    const now = performance.now();
    const seconds = (now - this.#seen.atMs) / 1000;
    if (seconds <= 0) return;
    const rate = Math.max(0, units - this.#seen.units) / seconds;
    const { perSecond } = this.#seen;
    this.#seen = {
      units,
      atMs: now,
      perSecond: perSecond === 0 ? rate : perSecond + (rate - perSecond) * newWeight,
    };
  }

  status(): FillStatus {
    const bytes = (units: number): number => units * unitBytes;
    const sizeBytes = sizeOf(this.parts);
    const dataUnits = this.#board.get('dataUnits');
    const left = dataUnits - (this.#activity === 'verify' ? this.#board.get('verifiedUnits') : this.#copied());
    const { perSecond } = this.#seen;
    const stuck = this.#context.threads.stuck(this);
    return {
      name: this.target.name,
      state: this.state,
      activity: stuck === undefined ? this.#activity : 'waiting',
      sizeBytes,
      // What serves alone is all there, also where it has grown past the map.
      presentBytes: servesAlone(this.parts) ? sizeBytes : Math.min(sizeBytes, bytes(this.#map.count(presentBit))),
      writtenBytes: Math.min(sizeBytes, bytes(this.#map.count(writtenBit))),
      isWrittenDirectly: Atomics.load(new BigInt64Array(this.parts.numbers), shared.direct) !== 0n,
      dataBytes: bytes(dataUnits),
      hotBytes: bytes(this.#board.get('hotUnits')),
      coldBytes: bytes(this.#board.get('coldUnits')),
      verifiedBytes: bytes(this.#board.get('verifiedUnits')),
      repairedBytes: bytes(this.#board.get('repairedUnits')),
      ...(this.#decryption === undefined
        ? {}
        : {
            decrypted: {
              doneBytes: bytes(this.#decryption.get('decryptedUnits')),
              ofBytes: bytes(this.#decryption.get('dataUnits')),
            },
          }),
      isYielding: this.#board.get('yielding') !== 0,
      bytesPerSecond: this.isRunning ? Math.round(bytes(perSecond)) : 0,
      secondsLeft: this.isRunning && perSecond > 0 ? Math.max(0, left) / perSecond : undefined,
      note: stuck === undefined ? this.#note : sourceText(stuck),
    };
  }

  async #run(options: FillOptions): Promise<void> {
    const { turns } = this.#context;
    if (!(await this.#takeTurn())) return;
    try {
      if (!(await this.#copyAll(options))) return;
      await this.#team('flush', options, 1);
      if (options.isVerified && !(await this.#verifyAll(options))) return;
      if (this.#board.shouldStop()) return;
      this.#complete(options.isVerified);
    } catch (error) {
      this.#giveUp(error);
    } finally {
      if (this.#hasTurn) turns.give();
      this.#hasTurn = false;
    }
  }

  /** @returns false when it is to stop */
  async #takeTurn(): Promise<boolean> {
    const { turns } = this.#context;
    const before = this.#note;
    if (!turns.isFree) {
      this.#activity = 'queued';
      this.#note = `waits for its turn: ${turns.limit} at once (mount --fill-jobs)`;
    }
    this.#hasTurn = await turns.take(this.#stopping.signal);
    this.#note = before;
    return this.#hasTurn;
  }

  /** Until nothing is missing. @returns false when it is to stop */
  async #copyAll(options: FillOptions): Promise<boolean> {
    await this.#persist(() => this.#team('count', options, 1));
    for (let waitMs = firstWaitMs; !this.#board.shouldStop(); waitMs = Math.min(2 * waitMs, maxWaitMs)) {
      const before = this.#copied();
      const why = failureIn(await this.#team('copy', options, threadsPerFill));
      if (this.#board.shouldStop()) return false;
      if (firstMissing(this.parts, this.#map) === undefined) return true;
      if (this.#copied() > before) waitMs = firstWaitMs;
      if (why !== undefined) await this.#wait(why, waitMs);
    }
    return false;
  }

  async #verifyAll(options: FillOptions): Promise<boolean> {
    const isDone = await this.#persist(() => {
      this.#board.set('verifiedUnits', 0);
      return this.#team('verify', options, threadsPerFill);
    });
    if (!isDone) return false;
    const repaired = this.#board.get('repairedUnits');
    if (repaired > 0) this.#tell('warn', `${repaired} units were not as they were written, and were copied again`);
    await this.#team('flush', options, 1);
    return true;
  }

  /** Again and again, while only the image cannot be read. @returns false when it is to stop */
  async #persist(action: () => Promise<FillMessage[]>): Promise<boolean> {
    for (let waitMs = firstWaitMs; !this.#board.shouldStop(); waitMs = Math.min(2 * waitMs, maxWaitMs)) {
      const why = failureIn(await action());
      if (this.#board.shouldStop()) return false;
      if (why === undefined) return true;
      await this.#wait(why, waitMs);
    }
    return false;
  }

  async #wait(why: string, ms: number): Promise<void> {
    if (this.#note !== why) this.#tell('warn', `waits: ${why}`);
    this.#note = why;
    this.#activity = 'waiting';
    this.#context.turns.give();
    this.#hasTurn = false;
    await sleep(ms, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
    await this.#takeTurn();
  }

  #complete(isVerified: boolean): void {
    changeState(this.parts, this.#map, 'complete', isVerified);
    this.#note = '';
    this.#tell('info', 'is complete: its image is not needed any more');
  }

  /** The guest goes on in any case. */
  #giveUp(error: unknown): void {
    const reason = describeError(error);
    this.#note = reason;
    const to = isFull(error) ? 'paused' : 'failed';
    this.#tell('error', `${to}: ${reason}`);
    try {
      changeState(this.parts, this.#map, to);
    } catch (cause) {
      // The disk below takes nothing any more. The state on it goes on at the next mount.
      this.#tell('error', describeError(cause));
    }
  }

  #copied(): number {
    return this.#board.get('hotUnits') + this.#board.get('coldUnits');
  }

  async #team(
    step: FillStep,
    options: FillOptions,
    count: number,
    {
      board = this.#board,
      filePath = '',
      signal = this.#stopping.signal,
    }: { board?: FillBoard; filePath?: string; signal?: AbortSignal } = {},
  ): Promise<FillMessage[]> {
    if (board === this.#board) {
      this.#activity = step;
      board.set('region', 0);
    }
    const { rate, statistics, threads } = this.#context;
    const task: FillTask = {
      step,
      place: this.#place,
      parts: this.parts,
      filePath,
      board: board.buffer,
      rate: rate.buffer,
      statistics: statistics.buffer,
      isPolite: options.isPolite,
    };
    const messages: FillMessage[] = [];
    await threads.run(
      task,
      count,
      this,
      signal,
      (message) => messages.push(message),
      () => board.stop(),
    );
    return messages;
  }

  get #place(): SynthesizedPlace {
    const place = this.target.place();
    const folder = path.dirname(currentPath(this.#pluginFd));
    return { ...place, pluginPath: path.join(folder, path.basename(place.pluginPath)) };
  }

  #tell(level: 'info' | 'warn' | 'error', message: string): void {
    this.#context.log(level, `${this.target.name}: fill: ${message}`, { file: this.target.name });
  }
}

/** Why the image could not give all. */
function failureIn(messages: readonly FillMessage[]): string | undefined {
  for (const message of messages) {
    if (message.kind === 'source failed') return message.message;
    if (message.kind === 'unreadable') return `${message.units} units cannot be read: ${message.first}`;
  }
  return undefined;
}

/** Errors from threads have their code, but not their class. */
function isFull(error: unknown): boolean {
  return error instanceof VeneerError && error.code === 'CAPACITY';
}
