/** Entries of FAT folders: short names, and long ones that stand before them in pieces. */
import { folderEntry, folderEntryBytes } from './layout.ts';

export const folderAttribute = 0x10;
const volumeAttribute = 0x08;
const readOnlyAttribute = 0x01;
const longNameAttribute = 0x0f;
const endOfFolder = 0x00;
const deleted = 0xe5;
const lowerBase = 0x08;
const lowerExtension = 0x10;

export interface FatEntry {
  readonly name: string;
  readonly shortName: string;
  /** Where it stands in its folder. */
  readonly offset: number;
}

/** What an entry says of its file. */
export interface FatFile {
  readonly isFolder: boolean;
  readonly isReadOnly: boolean;
  readonly cluster: number;
  readonly sizeBytes: number;
  /** Nanoseconds since 1970, if its clock showed UTC; undefined where none was set. */
  readonly modifiedNs: bigint | undefined;
  readonly accessedNs: bigint | undefined;
  readonly bornNs: bigint | undefined;
}

export function parseFile(bytes: Uint8Array): FatFile {
  const entry = folderEntry.parse(bytes);
  const born = timeOf(entry.createdDate, entry.createdTime);
  return {
    isFolder: (entry.attributes & folderAttribute) !== 0,
    isReadOnly: (entry.attributes & readOnlyAttribute) !== 0,
    cluster: entry.clusterHigh * 0x1_0000 + entry.clusterLow,
    sizeBytes: entry.sizeBytes,
    modifiedNs: timeOf(entry.changedDate, entry.changedTime),
    accessedNs: timeOf(entry.accessedDate, 0),
    bornNs: born === undefined ? undefined : born + BigInt(entry.createdTenths) * 10_000_000n,
  };
}

/** Days from 1980 on in fields of 7, 4 and 5 bits; hours, minutes and pairs of seconds in fields of 5, 6 and 5. */
function timeOf(date: number, time: number): bigint | undefined {
  if (date === 0) return undefined;
  const days = [1980 + (date >>> 9), ((date >>> 5) & 0xf) - 1, date & 0x1f] as const;
  const ms = Date.UTC(...days, time >>> 11, (time >>> 5) & 0x3f, (time & 0x1f) * 2);
  return BigInt(ms) * 1_000_000n;
}

/** The files and folders of a folder, without its own two names. */
export function parseFolder(contents: Uint8Array): FatEntry[] {
  const entries: FatEntry[] = [];
  let longName: string[] = [];
  for (let at = 0; at + folderEntryBytes <= contents.length; at += folderEntryBytes) {
    const first = contents[at];
    if (first === endOfFolder) break;
    const entry = folderEntry.parse(contents, at);
    if (first === deleted) {
      longName = [];
    } else if (entry.attributes % 0x40 === longNameAttribute) {
      longName.unshift(longNamePart(contents.subarray(at, at + folderEntryBytes)));
    } else {
      const long = longName.join('').split('\0')[0] ?? '';
      longName = [];
      const shortName = shortNameOf(entry.name);
      if ((entry.attributes & volumeAttribute) !== 0 || /^\.\.?$/.test(shortName)) continue;
      entries.push({ name: long === '' ? lowered(shortName, entry.caseFlags) : long, shortName, offset: at });
    }
  }
  return entries;
}

/** Where a new entry may stand: the first deleted one, or the first behind the last; undefined when the folder is full. */
export function freeEntryOffset(contents: Uint8Array): number | undefined {
  for (let at = 0; at + folderEntryBytes <= contents.length; at += folderEntryBytes)
    if (contents[at] === deleted || contents[at] === endOfFolder) return at;
  return undefined;
}

/** `BOOTX64.EFI` as an entry has it; names of 8 and 3 capital letters only. */
export function encodeShortName(name: string): Uint8Array {
  const [base = '', extension = ''] = name.split('.');
  return Buffer.from(base.padEnd(8) + extension.padEnd(3), 'latin1');
}

/** A short name is in capitals, and two bits say which half of it is not meant so. */
function lowered(name: string, flags: number): string {
  const [base = '', extension] = name.split('.');
  const shown = (flags & lowerBase) === 0 ? base : base.toLowerCase();
  if (extension === undefined) return shown;
  return `${shown}.${(flags & lowerExtension) === 0 ? extension : extension.toLowerCase()}`;
}

/** 13 characters in three pieces. */
function longNamePart(entry: Uint8Array): string {
  const parts = [entry.subarray(1, 11), entry.subarray(14, 26), entry.subarray(28, 32)];
  return Buffer.concat(parts).toString('utf16le');
}

function shortNameOf(name: Uint8Array): string {
  const text = Buffer.from(name).toString('latin1');
  const base = text.slice(0, 8).trimEnd();
  const extension = text.slice(8).trimEnd();
  return extension === '' ? base : `${base}.${extension}`;
}
