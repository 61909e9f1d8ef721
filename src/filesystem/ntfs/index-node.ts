/** Nodes of a folder's B-tree: entries in order, the last one without a name; those of a node above the leaves each with a child before them. */
import { FormatError } from '../../base/errors.ts';
import { alignUp, toOffset } from '../../base/ranges.ts';
import { viewOf } from '../../bytes/view.ts';
import { fileName, indexEntry, indexFlags, indexHeader, maxVolumeBytes, recordOf } from './layout.ts';

export interface IndexEntry {
  /** Undefined in the last entry of a node. */
  readonly name: string | undefined;
  /** A $FILE_NAME; empty in the last entry. */
  readonly key: Uint8Array;
  readonly namespace: number;
  /** The record's number, and with its sequence number. */
  readonly record: number;
  readonly reference: bigint;
  /** The block of the names before this one. */
  readonly child: number | undefined;
}

const childBytes = 8;

/** The entries of a node whose index header stands at `start`. @throws FormatError when they do not lie inside it */
export function parseNode(bytes: Uint8Array, start: number, structure: string): IndexEntry[] {
  const broken = (at: number, detail: string): FormatError => new FormatError(structure, 'entry', at, detail);
  const header = indexHeader.parse(bytes, start);
  const end = start + header.usedBytes;
  if (end > bytes.length) throw broken(start, `${header.usedBytes} bytes of entries in ${bytes.length}`);
  const entries: IndexEntry[] = [];
  for (let at = start + header.entriesOffset; ;) {
    if (at % 8 !== 0 || at + indexEntry.sizeBytes > end) throw broken(at, `behind the last one at ${end}`);
    const { lengthBytes, keyBytes, flags, record } = indexEntry.parse(bytes, at);
    const last = (flags & indexFlags.last) !== 0;
    const hasChild = (flags & indexFlags.hasChild) !== 0;
    const needed = indexEntry.sizeBytes + (last ? 0 : keyBytes) + (hasChild ? childBytes : 0);
    if (lengthBytes < needed || lengthBytes % 8 !== 0 || at + lengthBytes > end)
      throw broken(at, `${lengthBytes} bytes`);
    const child = hasChild
      ? toOffset(viewOf(bytes).getBigUint64(at + lengthBytes - childBytes, true), maxVolumeBytes, {
          structure,
          field: 'child',
          offset: at,
        })
      : undefined;
    if (last) {
      entries.push({ name: undefined, key: new Uint8Array(0), namespace: 0, record: 0, reference: 0n, child });
      return entries;
    }
    const keyAt = at + indexEntry.sizeBytes;
    const key = bytes.slice(keyAt, keyAt + keyBytes);
    if (keyBytes < fileName.sizeBytes) throw broken(at, `a key of ${keyBytes} bytes`);
    const { nameLength, namespace } = fileName.parse(key);
    const nameEnd = fileName.sizeBytes + nameLength * 2;
    if (nameEnd > keyBytes) throw broken(at, `a name of ${nameLength} characters`);
    const name = Buffer.from(key.subarray(fileName.sizeBytes, nameEnd)).toString('utf16le');
    entries.push({ name, key, namespace, record: recordOf(record), reference: record, child });
    at += lengthBytes;
  }
}

/** The entries as they lie behind one another in a node. */
export function encodeEntries(entries: readonly IndexEntry[]): Uint8Array {
  const bytes = new Uint8Array(bytesOfEntries(entries));
  let at = 0;
  for (const entry of entries) {
    const { name, key, reference: record, child } = entry;
    const lengthBytes = bytesOfEntry(entry);
    const flags = (child === undefined ? 0 : indexFlags.hasChild) + (name === undefined ? indexFlags.last : 0);
    indexEntry.encode({ record, lengthBytes, keyBytes: key.length, flags }, bytes, at);
    bytes.set(key, at + indexEntry.sizeBytes);
    if (child !== undefined) viewOf(bytes).setBigUint64(at + lengthBytes - childBytes, BigInt(child), true);
    at += lengthBytes;
  }
  return bytes;
}

export function bytesOfEntries(entries: readonly IndexEntry[]): number {
  return entries.reduce((sum, entry) => sum + bytesOfEntry(entry), 0);
}

function bytesOfEntry({ key, child }: IndexEntry): number {
  return alignUp(indexEntry.sizeBytes + key.length, 8) + (child === undefined ? 0 : childBytes);
}
