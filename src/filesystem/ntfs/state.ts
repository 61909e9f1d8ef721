/** In what state Windows has left an NTFS volume: as far as a reader sees that does not replay its journal. */
import type { Disk } from '../../disk/disk.ts';
import { viewOf } from '../../bytes/view.ts';
import type { Geometry } from './geometry.ts';
import { attributeTypes, recordNumbers } from './layout.ts';
import type { Records } from './records.ts';
import { readRuns } from './run-reader.ts';

export interface VolumeState {
  readonly version: string;
  /** Windows wants to check the volume at its next start. */
  readonly dirty: boolean;
  /** The journal ends without a clean dismount: metadata may be older than what Windows knew. */
  readonly journalOpen: boolean;
}

const informationBytes = 12;
const dirtyFlag = 1;
const restartPageBytes = 4096;
const cleanFlag = 2;
const noClient = 0xffff;

export function readState(disk: Disk, geometry: Geometry, records: Records): VolumeState {
  const value = records.attribute(recordNumbers.volume, attributeTypes.volumeInformation, '')?.value;
  if (value === undefined || value.length < informationBytes)
    return { version: 'unknown', dirty: false, journalOpen: journalOpen(disk, geometry, records) };
  return {
    version: `${value[8]}.${value[9]}`,
    dirty: (viewOf(value).getUint16(10, true) & dirtyFlag) !== 0,
    journalOpen: journalOpen(disk, geometry, records),
  };
}

/** Of the two restart pages the one that was written later says it. A journal that was wiped (all ones) is closed. */
function journalOpen(disk: Disk, geometry: Geometry, records: Records): boolean {
  const data = records.attribute(recordNumbers.logFile, attributeTypes.data, '');
  if (data === undefined || data.value !== undefined || data.sizeBytes < 2 * restartPageBytes) return false;
  let open = false;
  let latest = -1n;
  for (const at of [0, restartPageBytes]) {
    const page = new Uint8Array(restartPageBytes);
    readRuns(disk, geometry.clusterBytes, data, page, at);
    const area = restartArea(page);
    if (area === undefined || area.sequence <= latest) continue;
    latest = area.sequence;
    open = area.open;
  }
  return open;
}

function restartArea(page: Uint8Array): { sequence: bigint; open: boolean } | undefined {
  if (Buffer.from(page.subarray(0, 4)).toString('latin1') !== 'RSTR') return undefined;
  const view = viewOf(page);
  const at = view.getUint16(24, true);
  if (at + 16 > restartPageBytes) return undefined;
  const inUse = view.getUint16(at + 12, true);
  const flags = view.getUint16(at + 14, true);
  return { sequence: view.getBigUint64(at, true), open: inUse !== noClient && (flags & cleanFlag) === 0 };
}
