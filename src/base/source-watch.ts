/**
 * Watches the sources of images (base/source-gate.ts): which threads have been inside one for long, when one of them is to be given up, and
 * what `status` tells of a source that does not answer. Runs on the main thread, reads shared memory, and touches no source.
 */
import { formatSeconds } from './units.ts';
import type { GateMemory } from './source-gate.ts';
import type { Log } from './log.ts';

/** A source with so many threads inside that have waited for so long takes no further one for now. */
const maxInside = 4;
const fullAfterMs = 1000;
/** From then on `status` tells of it; sooner where the time-out is short. */
const toldAfterMs = 3000;
export const defaultSourceTimeoutMs = 30_000;
export const watchEveryMs = 250;

/** Threads with cells that follow each other, and who acts for them. */
export interface Watched {
  readonly firstThread: number;
  readonly endThread: number;
  /**
   * A thread has been inside for too long.
   * @param commit gives it up; false where it has come back by now, and goes on
   */
  giveUp(thread: number, source: string, commit: () => boolean): void;
}

export interface SourceStatus {
  readonly source: string;
  readonly sinceMs: number;
  /** That are inside it, or were given up there and are not back. */
  readonly threads: number;
}

interface Seen {
  word: number;
  source: number;
  sinceMs: number;
  isGivenUp: boolean;
}

export class SourceWatch {
  readonly memory: GateMemory;
  readonly #timeoutMs: number;
  readonly #log: Log;
  readonly #watched: Watched[] = [];
  readonly #seen = new Map<number, Seen>();
  /** Sources of which it was told that they do not answer. */
  readonly #told = new Set<number>();

  constructor(memory: GateMemory, timeoutMs: number, log: Log) {
    this.memory = memory;
    this.#timeoutMs = timeoutMs;
    this.#log = log;
  }

  get timeoutMs(): number {
    return this.#timeoutMs;
  }

  get toldAfterMs(): number {
    return Math.min(toldAfterMs, this.#timeoutMs / 2);
  }

  watch(watched: Watched): void {
    this.#watched.push(watched);
  }

  /** To be called every `watchEveryMs`. */
  look(nowMs = performance.now()): void {
    for (const watched of this.#watched) {
      for (let thread = watched.firstThread; thread < watched.endThread; thread++) {
        const seen = this.#note(thread, nowMs);
        if (seen !== undefined && !seen.isGivenUp && nowMs - seen.sinceMs >= this.#timeoutMs)
          this.#giveUp(watched, thread, seen, nowMs);
      }
    }
    this.#markFull(nowMs);
  }

  /** Where a thread is, if it has been there for so long. */
  stuck(thread: number, forMs: number, nowMs = performance.now()): SourceStatus | undefined {
    const seen = this.#seen.get(thread);
    if (seen === undefined || nowMs - seen.sinceMs < forMs) return undefined;
    return { source: this.memory.nameOf(seen.source), sinceMs: Math.round(nowMs - seen.sinceMs), threads: 1 };
  }

  /** Gives up a thread that is inside a source, however long: what it was to do is not wanted any more. @returns false where it is in none */
  giveUpNow(thread: number): boolean {
    const at = this.memory.inside(thread);
    return at !== undefined && (at.isGivenUp || this.memory.giveUp(thread, at.word));
  }

  /** Sources that do not answer, by their numbers. */
  status(nowMs = performance.now()): Map<number, SourceStatus> {
    const sources = new Map<number, SourceStatus>();
    for (const { source, sinceMs } of this.#seen.values()) {
      if (nowMs - sinceMs < this.toldAfterMs) continue;
      const known = sources.get(source);
      sources.set(source, {
        source: this.memory.nameOf(source),
        sinceMs: Math.max(known?.sinceMs ?? 0, Math.round(nowMs - sinceMs)),
        threads: (known?.threads ?? 0) + 1,
      });
    }
    return sources;
  }

  #note(thread: number, nowMs: number): Seen | undefined {
    const at = this.memory.inside(thread);
    if (at === undefined) {
      this.#seen.delete(thread);
      return undefined;
    }
    const before = this.#seen.get(thread);
    const isSame = before !== undefined && (before.word === at.word || at.isGivenUp);
    const seen = { ...at, sinceMs: isSame ? before.sinceMs : nowMs };
    this.#seen.set(thread, seen);
    return seen;
  }

  #giveUp(watched: Watched, thread: number, seen: Seen, nowMs: number): void {
    const source = this.memory.nameOf(seen.source);
    watched.giveUp(thread, source, () => this.memory.giveUp(thread, seen.word));
    if (this.#told.has(seen.source)) return;
    this.#told.add(seen.source);
    const forText = formatSeconds((nowMs - seen.sinceMs) / 1000);
    this.#log('error', `source ${source}: does not answer since ${forText}; what wants it fails`, { source });
  }

  #markFull(nowMs: number): void {
    const inside = new Map<number, number>();
    const present = new Set<number>();
    for (const { source, sinceMs } of this.#seen.values()) {
      present.add(source);
      if (nowMs - sinceMs >= fullAfterMs) inside.set(source, (inside.get(source) ?? 0) + 1);
    }
    for (let source = 1; source <= this.memory.sources; source++)
      this.memory.setFull(source, (inside.get(source) ?? 0) >= maxInside);
    for (const source of this.#told) {
      if (present.has(source)) continue;
      this.#told.delete(source);
      this.#log('info', `source ${this.memory.nameOf(source)}: answers again`, {});
    }
  }
}

/** In one line, for people. */
export function sourceText({ source, sinceMs, threads }: SourceStatus): string {
  const who = threads === 1 ? '1 thread waits' : `${threads} threads wait`;
  return `source ${source}: does not answer since ${formatSeconds(sinceMs / 1000)}; ${who}`;
}
