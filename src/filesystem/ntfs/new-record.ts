/** The file record of a file that is made: its times, its security, its one name, and its data. */
import { alignUp } from '../../base/ranges.ts';
import {
  archiveFlag,
  attributeTypes,
  fileName,
  sharedNamespace,
  shortStandardInformationBytes,
  standardInformation,
} from './layout.ts';
import { EditedRecord } from './record-edit.ts';
import type { FreeRecord } from './free-records.ts';
import type { Run } from './runs.ts';

/** As the files beside it have it. */
export interface Security {
  /** In the volume's list of descriptors; 0 where it has none there. */
  readonly id: number;
  /** The file's own, where it has no id. */
  readonly descriptor: Uint8Array | undefined;
}

export interface NewRecord {
  readonly name: string;
  /** Reference to the folder. */
  readonly folder: bigint;
  readonly modified: Date;
  readonly security: Security;
}

export interface Sizes {
  readonly allocatedBytes: number;
  readonly sizeBytes: number;
}

/** From 1601 to 1970. */
const epochMs = 11_644_473_600_000;

/** A $FILE_NAME, as the record and the folder's index have it. */
export function fileNameKey({ name, folder, modified }: NewRecord, { allocatedBytes, sizeBytes }: Sizes): Uint8Array {
  const key = new Uint8Array(fileName.sizeBytes + name.length * 2);
  const sizes = { allocatedBytes: BigInt(allocatedBytes), sizeBytes: BigInt(sizeBytes) };
  const about = { flags: archiveFlag, reparse: 0, nameLength: name.length, namespace: sharedNamespace };
  fileName.encode({ folder, times: timesOf(modified), ...sizes, ...about }, key);
  key.set(Buffer.from(name, 'utf16le'), fileName.sizeBytes);
  return key;
}

/** The same, of what the index has, with other sizes. */
export function withSizes(key: Uint8Array, { allocatedBytes, sizeBytes }: Sizes): Uint8Array {
  const changed = new Uint8Array(key);
  const sizes = { allocatedBytes: BigInt(allocatedBytes), sizeBytes: BigInt(sizeBytes) };
  fileName.encode({ ...fileName.parse(key), ...sizes }, changed);
  return changed;
}

/** A record with the data inside it; undefined where that does not fit. */
export function residentRecord(free: FreeRecord, about: NewRecord, contents: Uint8Array): EditedRecord | undefined {
  const record = recordWithName(free, about, residentSizes(contents));
  record.setValue(attributeTypes.data, '', contents);
  return record.excessBytes > 0 ? undefined : record;
}

export function residentSizes(contents: Uint8Array): Sizes {
  return { allocatedBytes: alignUp(contents.length, 8), sizeBytes: contents.length };
}

/** A record whose data lies in runs. */
export function recordOfRuns(free: FreeRecord, about: NewRecord, runs: readonly Run[], sizes: Sizes): EditedRecord {
  const record = recordWithName(free, about, sizes);
  record.setRuns(attributeTypes.data, '', runs, { ...sizes, initializedBytes: sizes.sizeBytes });
  return record;
}

function recordWithName({ number, whole }: FreeRecord, about: NewRecord, sizes: Sizes): EditedRecord {
  const record = new EditedRecord(number, whole);
  const { id, descriptor } = about.security;
  const times = timesOf(about.modified);
  const numbers = { owner: 0, security: id, quota: 0n, changeNumber: 0n };
  const information = standardInformation.encode({ times, flags: archiveFlag, ...numbers });
  record.setValue(
    attributeTypes.standardInformation,
    '',
    id === 0 ? information.subarray(0, shortStandardInformationBytes) : information,
  );
  record.setValue(attributeTypes.fileName, '', fileNameKey(about, sizes), true);
  if (descriptor !== undefined) record.setValue(attributeTypes.securityDescriptor, '', descriptor);
  return record;
}

/** Made, changed, its record changed, read: all at once. */
function timesOf(date: Date): Uint8Array {
  const times = new Uint8Array(32);
  const view = new DataView(times.buffer);
  const time = BigInt(Math.max(0, Math.trunc(date.getTime()) + epochMs)) * 10_000n;
  for (let at = 0; at < times.length; at += 8) view.setBigUint64(at, time, true);
  return times;
}
