/**
 * What the growing layouts (VHD dynamic, VMDK sparse, VDI dynamic, qcow2 compact) share: only units that hold data lie in the file,
 * in guest order, so that every table follows from the runs of allocated units.
 */
import { CapacityError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { decodeRuns, encodeRuns, runAtOrAfter, type AllocatedRun } from './allocation.ts';
import type { DiskFacts } from './format.ts';
import { checkGeometry } from './geometry.ts';
import type { Segment } from './segment-map.ts';

/** An allocation map has one bit per unit; more units than this make it larger than `decodeRuns` takes. */
const maxUnits = 64 * 1024 * 1024;

/**
 * The smallest of the unit sizes (given in ascending order) for which the disk's allocation fits a plugin file.
 * @throws CapacityError when it fits for none of them
 */
export function planGrowing(disk: DiskFacts, unitSizes: readonly number[]): { unitBytes: number; allocation: string } {
  let refusal = new CapacityError('the format has no unit for this disk');
  for (const unitBytes of unitSizes) {
    const unitCount = Math.ceil(disk.sizeBytes / unitBytes);
    if (unitCount > maxUnits) {
      refusal = new CapacityError(
        `a growing layout in units of ${formatBytes(unitBytes)} holds at most ${formatBytes(maxUnits * unitBytes)}`,
      );
      continue;
    }
    try {
      return { unitBytes, allocation: encodeRuns(disk.allocatedRuns(unitBytes), unitCount) };
    } catch (error) {
      if (!(error instanceof CapacityError)) throw error;
      refusal = error;
    }
  }
  throw refusal;
}

/** The runs that `planGrowing` encoded. @throws FormatError when a plugin file holds anything else. */
export function plannedRuns(format: string, allocation: string, unitCount: number): AllocatedRun[] {
  checkGeometry(format, 'allocation', unitCount <= maxUnits, `${unitCount} units are more than ${maxUnits}`);
  return decodeRuns(allocation, unitCount);
}

/** Calls `visit` for the allocated units of [firstUnit, firstUnit + unitCount), in order, each with its place in the file. */
export function visitAllocated(
  runs: readonly AllocatedRun[],
  firstUnit: number,
  unitCount: number,
  visit: (unit: number, rank: number) => void,
): void {
  const end = firstUnit + unitCount;
  let run = runAtOrAfter(runs, firstUnit);
  while (run !== undefined && run.firstUnit < end) {
    const runEnd = run.firstUnit + run.unitCount;
    for (let unit = Math.max(run.firstUnit, firstUnit); unit < Math.min(runEnd, end); unit++) {
      visit(unit, run.rank + unit - run.firstUnit);
    }
    run = runAtOrAfter(runs, runEnd);
  }
}

/** The runs of larger units, `factor` of the given ones each, that hold any of the given. */
export function coarserRuns(runs: readonly AllocatedRun[], factor: number): AllocatedRun[] {
  const coarse: { firstUnit: number; unitCount: number; rank: number }[] = [];
  for (const run of runs) {
    const last = coarse.at(-1);
    const next = last === undefined ? 0 : last.firstUnit + last.unitCount;
    const first = Math.max(Math.floor(run.firstUnit / factor), next);
    const count = Math.ceil((run.firstUnit + run.unitCount) / factor) - first;
    if (count <= 0) continue;
    if (last !== undefined && first === next) last.unitCount += count;
    else coarse.push({ firstUnit: first, unitCount: count, rank: last === undefined ? 0 : last.rank + last.unitCount });
  }
  return coarse;
}

/** A range of units as segments; what lies past the end of the disk is zeros, because a unit in a file is always whole. */
export function unitSegments(
  firstUnit: number,
  unitCount: number,
  unitBytes: number,
  diskSizeBytes: number,
): readonly Segment[] {
  const diskOffset = firstUnit * unitBytes;
  const lengthBytes = Math.min(unitCount * unitBytes, diskSizeBytes - diskOffset);
  return [
    { kind: 'disk', diskOffset, lengthBytes },
    { kind: 'zeros', lengthBytes: unitCount * unitBytes - lengthBytes },
  ];
}
