/** The ranges that one owner has locked of one file, in order and apart: what the system keeps of them, too. */
import { lockType, type LockedRange } from './description-locks.ts';

export class HeldRanges {
  #ranges: readonly LockedRange[] = [];

  get isEmpty(): boolean {
    return this.#ranges.length === 0;
  }

  [Symbol.iterator](): Iterator<LockedRange> {
    return this.#ranges[Symbol.iterator]();
  }

  /** The range is of this type from now on. */
  set({ start, end, type }: LockedRange): void {
    const beside = this.#ranges.flatMap((held) => {
      if (held.end < start || held.start > end) return [held];
      const before = held.start < start ? [{ ...held, end: start - 1n }] : [];
      const behind = held.end > end ? [{ ...held, start: end + 1n }] : [];
      return [...before, ...behind];
    });
    const all = type === lockType.none ? beside : [...beside, { start, end, type }];
    this.#ranges = all.sort((one, other) => (one.start < other.start ? -1 : 1));
  }

  /** What a range is of now: pieces that cover it. */
  *within({ start, end }: LockedRange): Generator<LockedRange> {
    let at = start;
    for (const held of this.#ranges) {
      if (held.end < at || held.start > end) continue;
      if (held.start > at) yield { start: at, end: held.start - 1n, type: lockType.none };
      const from = held.start > at ? held.start : at;
      const to = held.end < end ? held.end : end;
      yield { start: from, end: to, type: held.type };
      at = to + 1n;
    }
    if (at <= end) yield { start: at, end, type: lockType.none };
  }

  /** Whether one of them stands in another owner's way. */
  conflictsWith({ start, end, type }: LockedRange): boolean {
    return this.#ranges.some(
      (held) => held.start <= end && held.end >= start && (held.type === lockType.write || type === lockType.write),
    );
  }
}
