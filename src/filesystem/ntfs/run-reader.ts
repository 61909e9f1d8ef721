/** Reading data that lies in runs of clusters. */
import { firstIndex } from '../../base/search.ts';
import { FormatError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import type { Run } from './runs.ts';

interface RunData {
  readonly runs: readonly Run[];
  /** Behind it, what was never written reads as zeros. */
  readonly initializedBytes: number;
}

/** The run that holds a cluster of the attribute. */
export function findRun(runs: readonly Run[], cluster: number): Run | undefined {
  const run = runs[firstIndex(runs.length, (index) => endOf(runs[index]) > cluster)];
  return run !== undefined && run.first <= cluster ? run : undefined;
}

function endOf(run: Run | undefined): number {
  return run === undefined ? Infinity : run.first + run.count;
}

/** Fills the target from an attribute of runs. @throws FormatError where it has none for a byte */
export function readRuns(
  disk: Disk,
  clusterBytes: number,
  attribute: RunData,
  target: Uint8Array,
  offset: number,
): void {
  for (let done = 0; done < target.length;) {
    const at = offset + done;
    const run = findRun(attribute.runs, Math.floor(at / clusterBytes));
    if (run === undefined) throw new FormatError('NTFS runs', 'clusters', at, 'none holds that byte of the attribute');
    const within = at - run.first * clusterBytes;
    const length = Math.min(target.length - done, run.count * clusterBytes - within);
    const part = target.subarray(done, done + length);
    if (run.cluster === undefined) part.fill(0);
    else disk.read(part, run.cluster * clusterBytes + within);
    done += length;
  }
  // What was never written reads as zeros, whatever the clusters hold.
  if (offset + target.length > attribute.initializedBytes)
    target.fill(0, Math.max(0, attribute.initializedBytes - offset));
}
