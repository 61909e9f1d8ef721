/**
 * The share of one thread in a fill. The main thread decides what is done next; here one step of it is done: to count what is to be copied, to
 * copy, to flush, to read back and compare, or to prove what is there by hashes.
 */
import { describeError, VeneerError } from '../base/errors.ts';
import type { BlockCache } from '../backup/read/block-cache.ts';
import type { ThreadKey } from '../backup/crypto/seal.ts';
import { openSynthesized, pluginOf, type Synthesized, type SynthesizedPlace } from '../plugin/synthesized.ts';
import { HotUnits } from '../replacement/hot-units.ts';
import { unitBytes } from '../replacement/layout.ts';
import { PresenceMap } from '../replacement/presence-map.ts';
import { flushAll, type SharedReplacement } from '../replacement/shared.ts';
import { yieldToOthers } from '../base/system-calls.ts';
import type { FillStep, Proof } from './fill-status.ts';
import { writePlain } from './decrypt.ts';
import { Filler, regionCount } from './filler.ts';
import { Politeness, SharedRate } from './pace.ts';
import { requireRoom } from './room.ts';
import { proveContents } from './prove.ts';
import { Verifier } from './verify.ts';
import { FillBoard } from './board.ts';
import { Statistics } from './statistics.ts';

/** Plain values and shared memory. */
export interface FillTask {
  readonly step: FillStep;
  readonly place: SynthesizedPlace;
  readonly parts: SharedReplacement;
  /** Of the native file, for a step that makes another beside it; else empty. */
  readonly filePath: string;
  readonly board: SharedArrayBuffer;
  readonly rate: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
  readonly isPolite: boolean;
}

/** Asks for the key that a replacement is sealed with, or whether the images can be opened: they may have to be read for it. */
export type KeyTask = SourceTask<'key'> | SourceTask<'image'>;

interface SourceTask<Asked> {
  readonly step: Asked;
  readonly place: SynthesizedPlace;
  readonly isPolite: false;
}

/** What a thread tells at its end, where there is anything to tell. */
export type FillMessage =
  | { readonly kind: 'key'; readonly key: ThreadKey }
  | { readonly kind: 'image' }
  | { readonly kind: 'unreadable'; readonly units: number; readonly first: string }
  /** The image, and not the replacement, is what failed: the same may work later. */
  | { readonly kind: 'source failed'; readonly message: string }
  | { readonly kind: 'proof'; readonly proof: Proof };

/** So much is copied at a time while a guest is there, and while none is. */
const chunkUnits = { polite: 2, full: 16 } as const;
/** Regions between two flushes of the data. */
const flushEveryUnits = 4096;

export function runFillTask(task: FillTask | KeyTask, cache: BlockCache, post: (message: FillMessage) => void): void {
  if (task.step === 'key') {
    post({ kind: 'key', key: pluginOf(task.place, cache).sealingKey().toThread() });
    return;
  }
  if (task.step === 'image') {
    try {
      pluginOf(task.place, cache).openDisk().close();
      post({ kind: 'image' });
    } catch (error) {
      if (!(error instanceof VeneerError)) throw error;
      post({ kind: 'source failed', message: describeError(error) });
    }
    return;
  }
  const source = openSynthesized(task.place, cache);
  let sourceFailure: unknown;
  // The same file, whose failures are known from those of the replacement.
  const base = {
    sizeBytes: source.sizeBytes,
    read: (target: Uint8Array, offset: number) => noting(() => source.read(target, offset)),
    extents: (offset: number, length: number) => noting(() => [...source.extents(offset, length)]),
  };
  function noting<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      sourceFailure = error;
      throw error;
    }
  }
  if (task.isPolite) yieldToOthers();
  try {
    steps[task.step](task, { ...base, close: () => source.close() }, post);
  } catch (error) {
    if (error !== sourceFailure || !(error instanceof Error)) throw error;
    post({ kind: 'source failed', message: error.message });
  } finally {
    source.close();
  }
}

type Step = (task: FillTask, base: Synthesized, post: (message: FillMessage) => void) => void;

const steps: Readonly<Record<FillStep, Step>> = {
  count(task, base) {
    const board = new FillBoard(task.board);
    const filler = new Filler(task.parts, base);
    let missing = 0;
    for (const region of regionsOf(task, board)) {
      const units = filler.countUnits(region);
      board.add('dataUnits', units.data);
      missing += units.missing;
    }
    if (!board.shouldStop()) requireRoom(task.parts, missing * unitBytes);
  },
  copy: copyAll,
  flush(task) {
    const map = new PresenceMap(task.parts.presence);
    map.locked('flush', 0, () => flushAll(task.parts, map));
  },
  verify(task, base) {
    const board = new FillBoard(task.board);
    const verifier = new Verifier(task.parts, base);
    const pace = new Pace(task, board);
    try {
      for (const region of regionsOf(task, board)) {
        for (const bytes of verifier.verify(region)) {
          board.add('verifiedUnits', 1);
          pace.done(bytes);
          if (board.shouldStop()) return;
        }
      }
    } finally {
      pace.end();
      board.add('repairedUnits', verifier.repairedUnits);
      board.add('adoptedUnits', verifier.adoptedUnits);
    }
  },
  decrypt(task) {
    const board = new FillBoard(task.board);
    writePlain(task.parts, task.filePath, (done, of) => {
      board.set('dataUnits', of);
      board.set('decryptedUnits', done);
    });
  },
  prove(task, base, post) {
    post({ kind: 'proof', proof: proveContents(task.parts, base) });
  },
};

function copyAll(task: FillTask, base: Synthesized, post: (message: FillMessage) => void): void {
  const board = new FillBoard(task.board);
  const filler = new Filler(task.parts, base);
  const hot = new HotUnits(task.parts.hot);
  const pace = new Pace(task, board);
  const copied = (bytes: number, kind: 'hotUnits' | 'coldUnits'): void => {
    board.add(kind, Math.ceil(bytes / unitBytes));
    pace.done(bytes);
  };
  // Before each chunk, since others take room while it rests.
  const chunkUnits = (): number => {
    requireRoom(task.parts, 0);
    return pace.chunkUnits;
  };
  const copyHot = (): void => {
    for (let unit = hot.take(); unit !== undefined && !board.shouldStop(); unit = hot.take())
      if (!filler.map.isPresent(unit)) {
        requireRoom(task.parts, 0);
        copied(filler.copy(unit, unit + 1), 'hotUnits');
      }
  };
  let sinceFlush = 0;
  try {
    for (const region of regionsOf(task, board)) {
      for (const bytes of filler.fill(region, chunkUnits)) {
        copied(bytes, 'coldUnits');
        if (board.shouldStop()) return;
        copyHot();
        if ((sinceFlush += Math.ceil(bytes / unitBytes)) < flushEveryUnits) continue;
        // So that little is to be copied again after a power loss, and the last flush is no long one.
        filler.map.locked('flush', 0, () => flushAll(task.parts, filler.map));
        sinceFlush = 0;
      }
    }
  } finally {
    pace.end();
  }
  if (filler.firstUnreadable !== undefined)
    post({ kind: 'unreadable', units: filler.unreadable.size, first: filler.firstUnreadable.message });
}

/** Regions that no other thread has taken, until it is to stop. */
function* regionsOf(task: FillTask, board: FillBoard): Generator<number> {
  const count = regionCount(task.parts);
  for (let region = board.add('region', 1); region < count && !board.shouldStop(); region = board.add('region', 1))
    yield region;
}

/** Rests after chunks, as the rate and the guest ask for. */
class Pace {
  readonly #board: FillBoard;
  readonly #rate: SharedRate;
  readonly #politeness: Politeness | undefined;
  #startMs = performance.now();

  constructor(task: FillTask, board: FillBoard) {
    this.#board = board;
    this.#rate = new SharedRate(task.rate);
    const statistics = new Statistics(task.statistics);
    this.#politeness = task.isPolite ? new Politeness(() => statistics.load()) : undefined;
    this.#rate.join();
  }

  get chunkUnits(): number {
    return this.#politeness?.isGuestThere === true ? chunkUnits.polite : chunkUnits.full;
  }

  done(bytes: number): void {
    const tookMs = performance.now() - this.#startMs;
    const politeMs = this.#politeness?.afterChunk() ?? 0;
    this.#board.set('yielding', politeMs > 0 ? 1 : 0);
    this.#board.rest(Math.max(politeMs, this.#rate.shouldTakeMs(bytes) - tookMs));
    if (politeMs > 0) this.#politeness?.afterRest();
    this.#startMs = performance.now();
  }

  end(): void {
    this.#rate.leave();
  }
}
