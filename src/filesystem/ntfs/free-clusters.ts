/**
 * Clusters that nobody has, taken from $Bitmap. They lie side by side where they can; else they are the largest free runs that were seen.
 *
 * What $Bitmap calls free is not believed where the file system's own structures are, or bad sectors: such a volume is broken, and nothing
 * is written to it.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import { clearRuns, withBitsSet, type BitRun, type ReadBits } from './bitmap.ts';
import { attributeTypes, recordNumbers } from './layout.ts';
import type { NtfsWriter } from './writer.ts';

/** Of the clusters of one file: the list of them must fit its record. */
const maxRuns = 48;
/** Of $Bitmap, for one file: 32 MiB of it, which is 1 TiB in clusters of 4 KiB. */
const maxSearchedBits = 32 * MiB * 8;
const badStream = '$Bad';
/** What the file system itself lies in; these stand first in the MFT. */
const ownRecords = [
  recordNumbers.mft,
  recordNumbers.mirror,
  recordNumbers.logFile,
  recordNumbers.bitmap,
  recordNumbers.boot,
  recordNumbers.secure,
  recordNumbers.upCase,
] as const;

/** @param near where to begin to look: at a file that it goes with. @throws UnsupportedError when too few are free */
export function takeClusters(writer: NtfsWriter, count: number, near: number): BitRun[] {
  const { clusterCount } = writer.geometry;
  const bitmap = writer.need(recordNumbers.bitmap, attributeTypes.data, '');
  if (bitmap.value !== undefined || bitmap.initializedBytes * 8 < clusterCount)
    throw new FormatError('NTFS $Bitmap', 'length', 0, `${bitmap.initializedBytes} bytes for ${clusterCount} clusters`);
  const read: ReadBits = (target, offset) => writer.readAttribute(bitmap, target, offset);
  const runs = choose(read, count, near % clusterCount, clusterCount);
  for (const run of runs) {
    refuseStructures(writer, run);
    const { offset, bytes } = withBitsSet(read, run);
    writer.writeRuns(bitmap, bytes, offset);
  }
  return runs;
}

function choose(read: ReadBits, count: number, near: number, clusterCount: number): BitRun[] {
  /** The largest so far, in no order. */
  const kept: BitRun[] = [];
  let smallest = 0;
  const end = Math.min(clusterCount, near + maxSearchedBits);
  const behind = maxSearchedBits - (end - near);
  for (const [from, to] of [
    [near, end],
    [0, Math.min(near, behind)],
  ] as const) {
    for (const run of clearRuns(read, from, to)) {
      if (run.count >= count) return [{ first: run.first, count }];
      if (kept.length < maxRuns) kept.push(run);
      else if (run.count > (kept[smallest]?.count ?? 0)) kept[smallest] = run;
      else continue;
      smallest = kept.reduce((least, one, index) => (one.count < (kept[least]?.count ?? 0) ? index : least), 0);
    }
  }
  const chosen: BitRun[] = [];
  let missing = count;
  for (const run of kept.sort((a, b) => b.count - a.count)) {
    if (missing === 0) break;
    const taken = Math.min(run.count, missing);
    chosen.push({ first: run.first, count: taken });
    missing -= taken;
  }
  if (missing > 0)
    throw new UnsupportedError(
      `NTFS: ${count} free clusters in at most ${maxRuns} pieces are needed and not there; make room in the guest on its old hardware`,
    );
  return chosen.sort((a, b) => a.first - b.first);
}

/** @throws FormatError where the run holds what it cannot */
function refuseStructures(writer: NtfsWriter, { first, count }: BitRun): void {
  const check = (record: number, type: number, name: string): void => {
    for (const run of writer.records.attribute(record, type, name)?.runs ?? []) {
      if (run.cluster === undefined || run.cluster >= first + count || run.cluster + run.count <= first) continue;
      const at = Math.max(first, run.cluster);
      const detail = `calls cluster ${at} free, which is in use by file record ${record}; have Windows check the volume (chkdsk /f)`;
      throw new FormatError('NTFS $Bitmap', 'bit', at, detail);
    }
  };
  for (const record of ownRecords) check(record, attributeTypes.data, '');
  check(recordNumbers.mft, attributeTypes.bitmap, '');
  check(recordNumbers.badClusters, attributeTypes.data, badStream);
  if (first === 0) throw new FormatError('NTFS $Bitmap', 'bit', 0, 'calls the boot sector free');
}
