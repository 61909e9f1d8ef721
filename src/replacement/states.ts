/**
 * The life of a replacement disk file: its states, and every way from one to another.
 *
 *                      start                  all is there, flushed, verified            finalize
 *   intercepting ----------------> filling -------------------------------> complete ------------> final
 *        ^   ^                     ^ |  | \                                  (the image is
 *        |   | cancel       resume | |  |  \ it cannot go on                  not needed
 *        |   +---------------------|-+  |   v                                 any more)
 *        |                         |    | failed
 *        | cancel                  |    v   | |
 *        +------------------------ paused <-+ | start again: filling
 *                                   pause     +-> cancel: intercepting
 *
 * In every state the guest reads and writes; what it wrote is kept in all of them. Only in `complete` and `final` is the image never read.
 * The state that counts is the one in the map's header. It is written there, durably, before anybody acts on it:
 *
 * Crash order of every change but those below:
 * 1. the header says the new state, durably (two copies: one of them is whole after any crash)
 * 2. the threads see it
 * After a crash before 1 the old state goes on: a fill that was under way is taken up again where the map says it was.
 *
 * Crash order to `complete` (the cut-over):
 * 1. every unit is present: data before map bits, as for each write
 * 2. the data, then the map, are flushed
 * 3. every unit is read back from the disk and compared with the synthesized file, but for those that the guest wrote
 * 4. while nobody writes: the data file is made the disk, to its last byte (cut-over.ts)
 * 5. the header says `complete`, durably
 * 6. the threads see it: from now on nobody reads the synthesized file, and nobody asks the map what the data file holds
 * After a crash before 5 it is `filling`: what is missing is copied, and all is verified again.
 *
 * Crash order to `final`: see finalize.ts. Crash order of a cancelled fill, which gives room back: see release.ts.
 */
import { UsageError } from '../base/errors.ts';
import { cutOver } from './cut-over.ts';
import { replacementStates, type ReplacementState } from './layout.ts';
import type { PresenceMap } from './presence-map.ts';
import { commitHeader, requireFlushed, requireSound, shared, type SharedReplacement } from './shared.ts';

/** Where each state may go. */
const ways: Readonly<Record<ReplacementState, readonly ReplacementState[]>> = {
  intercepting: ['filling'],
  filling: ['paused', 'complete', 'failed', 'intercepting'],
  paused: ['filling', 'intercepting'],
  failed: ['filling', 'intercepting'],
  complete: ['final'],
  final: [],
};

/** What a state means to somebody who asked for a change that it does not allow. */
const why: Readonly<Record<ReplacementState, string>> = {
  intercepting: 'no fill was started; start one with: veneer fill start',
  filling: 'it is being filled',
  paused: 'its fill is paused; go on with: veneer fill resume',
  failed: 'its fill has failed; try again with: veneer fill start',
  complete: 'it is complete; put it in place with: veneer finalize',
  final: 'it is final, and an ordinary disk file',
};

export function stateOf(parts: SharedReplacement): ReplacementState {
  return replacementStates[Number(Atomics.load(new BigInt64Array(parts.numbers), shared.state))] ?? 'failed';
}

/** Whether the replacement serves alone: nothing of the synthesized file is read any more. */
export function servesAlone(parts: SharedReplacement): boolean {
  const state = stateOf(parts);
  return state === 'complete' || state === 'final';
}

/** @throws UsageError that says why not */
export function requireWay(name: string, from: ReplacementState, to: ReplacementState): void {
  if (!ways[from].includes(to)) throw new UsageError(`${name}: ${why[from]}`);
}

/**
 * Goes to another state, durably; the state that it is in already is no change.
 * @param isVerified whether all of it was just compared with the synthesized file: what a power loss has left in doubt is settled then
 * @throws UsageError where no way leads there; CapacityError, UnavailableError when the header cannot be written: the old state holds
 */
export function changeState(
  parts: SharedReplacement,
  map: PresenceMap,
  to: ReplacementState,
  isVerified = false,
): void {
  map.locked('flush', 0, () => {
    const numbers = new BigInt64Array(parts.numbers);
    const from = stateOf(parts);
    if (from === to) return;
    requireWay(parts.name, from, to);
    requireFlushed(parts);
    const change = {
      visibleBytes: Number(Atomics.load(numbers, shared.visibleBytes)),
      cutting: 0,
      state: replacementStates.indexOf(to),
      ...(isVerified ? { suspect: 0 as const } : {}),
    } as const;
    const commit = (): void => {
      commitHeader(parts, change);
      Atomics.store(numbers, shared.state, BigInt(change.state));
      if (isVerified) Atomics.store(numbers, shared.suspect, 0n);
    };
    if (to === 'complete') cutOver(parts, map, commit);
    else commit();
  });
}

/** From now on a guest may write straight to the data file: the header says so, durably, before the first such write. */
export function allowDirectWrites(parts: SharedReplacement, map: PresenceMap): void {
  const numbers = new BigInt64Array(parts.numbers);
  if (Atomics.load(numbers, shared.direct) !== 0n) return;
  map.locked('flush', 0, () => {
    requireSound(parts);
    const visibleBytes = Number(Atomics.load(numbers, shared.visibleBytes));
    commitHeader(parts, { visibleBytes, cutting: 0, direct: 1 });
    Atomics.store(numbers, shared.direct, 1n);
  });
}
