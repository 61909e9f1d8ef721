/** Where two arrays of bytes differ. */

export interface ChangedRun {
  readonly offset: number;
  readonly length: number;
}

/** Equal bytes between two changes that are not worth a run of their own. */
const joinedGapBytes = 16;

/** The runs of `after` that differ from `before`; what `after` has more is a difference. In order, apart by more than 16 bytes. */
export function changedRuns(before: Uint8Array, after: Uint8Array): ChangedRun[] {
  const runs: ChangedRun[] = [];
  let start: number | undefined;
  let last = 0;
  const close = (): void => {
    if (start !== undefined) runs.push({ offset: start, length: last + 1 - start });
    start = undefined;
  };
  for (let at = 0; at < after.length; at++) {
    if (at < before.length && before[at] === after[at]) continue;
    if (start !== undefined && at - last > joinedGapBytes) close();
    start ??= at;
    last = at;
  }
  close();
  return runs;
}
