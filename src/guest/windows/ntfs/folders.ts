/**
 * Folders: B-trees of names, in the order of the volume's own upper-case table. A name is found by going down, at most 32 deep; a list
 * goes through all blocks, each once.
 */
import { FormatError, UnsupportedError } from '../../../base/errors.ts';
import { toOffset } from '../../../base/ranges.ts';
import type { Disk } from '../../../disk/disk.ts';
import { viewOf } from '../registry/hive.ts';
import { withoutFixups } from './fixups.ts';
import type { Geometry } from './geometry.ts';
import {
  attributeTypes,
  dosNamespace,
  fileName,
  indexBlock,
  indexEntry,
  indexFlags,
  indexHeader,
  indexRootHeadBytes,
  maxFolderEntries,
  maxIndexDepth,
  maxVolumeBytes,
  recordNumbers,
  recordOf,
  strideBytes,
} from './layout.ts';
import { wrong, type Attribute, type Records } from './records.ts';
import { readRuns } from './run-reader.ts';

const indexName = '$I30';
const upCaseBytes = 0x1_0000 * 2;

interface Entry {
  /** Undefined in the last entry of a node. */
  readonly name: string | undefined;
  readonly namespace: number;
  readonly record: number;
  readonly child: number | undefined;
}

export class Folders {
  readonly #disk: Disk;
  readonly #geometry: Geometry;
  readonly #records: Records;
  #upCase: Uint16Array | undefined;

  constructor(disk: Disk, geometry: Geometry, records: Records) {
    this.#disk = disk;
    this.#geometry = geometry;
    this.#records = records;
  }

  /** The record of what has that name in a folder. */
  find(folder: number, name: string): number | undefined {
    let node = this.#root(folder);
    for (let depth = 0; depth < maxIndexDepth; depth++) {
      let child: number | undefined;
      for (const entry of node) {
        const order = entry.name === undefined ? 1 : this.#compare(entry.name, name);
        if (order === 0) return entry.record;
        if (order < 0) continue;
        child = entry.child;
        break;
      }
      if (child === undefined) return undefined;
      node = this.#block(folder, child);
    }
    throw wrong(folder, 'index', `is deeper than ${maxIndexDepth} levels`);
  }

  /** All names in a folder but the second ones in 8.3 form, in the order of the index. */
  names(folder: number): string[] {
    const names: string[] = [];
    const seen = new Set<number>();
    const walk = (node: readonly Entry[], depth: number): void => {
      if (depth > maxIndexDepth) throw wrong(folder, 'index', `is deeper than ${maxIndexDepth} levels`);
      for (const { child, name, namespace } of node) {
        if (child !== undefined) {
          if (seen.has(child)) throw wrong(folder, 'index', `block ${child} is there twice`);
          seen.add(child);
          walk(this.#block(folder, child), depth + 1);
        }
        if (name !== undefined && namespace !== dosNamespace) names.push(name);
        if (names.length > maxFolderEntries)
          throw new UnsupportedError(`a folder of more than ${maxFolderEntries} names is not listed`);
      }
    };
    walk(this.#root(folder), 0);
    return names;
  }

  #root(folder: number): Entry[] {
    const root = this.#records.attribute(folder, attributeTypes.indexRoot, indexName);
    if (root?.value === undefined) throw wrong(folder, 'index root', 'is missing');
    return [...entriesOf(root.value, indexRootHeadBytes, `NTFS index of record ${folder}`)];
  }

  #block(folder: number, cluster: number): Entry[] {
    const allocation = this.#records.attribute(folder, attributeTypes.indexAllocation, indexName);
    if (allocation === undefined || allocation.value !== undefined)
      throw wrong(folder, 'index allocation', 'is missing');
    const { clusterBytes, indexBlockBytes } = this.#geometry;
    const at = cluster * (clusterBytes <= indexBlockBytes ? clusterBytes : strideBytes);
    if (at + indexBlockBytes > allocation.sizeBytes)
      throw wrong(folder, 'index allocation', `has no block at byte ${at}`);
    const raw = new Uint8Array(indexBlockBytes);
    readRuns(this.#disk, clusterBytes, allocation, raw, at);
    const structure = `NTFS index block ${cluster} of record ${folder}`;
    indexBlock.parse(raw);
    const bytes = withoutFixups(raw, structure, at);
    if (indexBlock.parse(bytes).cluster !== BigInt(cluster))
      throw new FormatError(structure, 'cluster', at, 'is the block of another place');
    return [...entriesOf(bytes, indexBlock.sizeBytes, structure)];
  }

  /** Below 0 where a stands before b. */
  #compare(a: string, b: string): number {
    const table = (this.#upCase ??= readUpCase(this.#disk, this.#geometry, this.#records));
    const length = Math.min(a.length, b.length);
    for (let at = 0; at < length; at++) {
      const difference = (table[a.charCodeAt(at)] ?? 0) - (table[b.charCodeAt(at)] ?? 0);
      if (difference !== 0) return difference;
    }
    return a.length - b.length;
  }
}

/** The entries of a node whose index header stands at `start`. */
function* entriesOf(bytes: Uint8Array, start: number, structure: string): Generator<Entry> {
  const broken = (at: number, detail: string): FormatError => new FormatError(structure, 'entry', at, detail);
  const header = indexHeader.parse(bytes, start);
  const end = start + header.usedBytes;
  if (end > bytes.length) throw broken(start, `${header.usedBytes} bytes of entries in ${bytes.length}`);
  for (let at = start + header.entriesOffset; ;) {
    if (at % 8 !== 0 || at + indexEntry.sizeBytes > end) throw broken(at, `behind the last one at ${end}`);
    const { lengthBytes, keyBytes, flags, record } = indexEntry.parse(bytes, at);
    const last = (flags & indexFlags.last) !== 0;
    const hasChild = (flags & indexFlags.hasChild) !== 0;
    const needed = indexEntry.sizeBytes + (last ? 0 : keyBytes) + (hasChild ? 8 : 0);
    if (lengthBytes < needed || lengthBytes % 8 !== 0 || at + lengthBytes > end)
      throw broken(at, `${lengthBytes} bytes`);
    const child = hasChild
      ? toOffset(viewOf(bytes).getBigUint64(at + lengthBytes - 8, true), maxVolumeBytes, {
          structure,
          field: 'child',
          offset: at,
        })
      : undefined;
    if (last) {
      yield { name: undefined, namespace: 0, record: 0, child };
      return;
    }
    if (keyBytes < fileName.sizeBytes) throw broken(at, `a key of ${keyBytes} bytes`);
    const key = fileName.parse(bytes, at + indexEntry.sizeBytes);
    if (fileName.sizeBytes + key.nameLength * 2 > keyBytes) throw broken(at, `a name of ${key.nameLength} characters`);
    const nameAt = at + indexEntry.sizeBytes + fileName.sizeBytes;
    const name = Buffer.from(bytes.subarray(nameAt, nameAt + key.nameLength * 2)).toString('utf16le');
    yield { name, namespace: key.namespace, record: recordOf(record), child };
    at += lengthBytes;
  }
}

function readUpCase(disk: Disk, geometry: Geometry, records: Records): Uint16Array {
  const data: Attribute | undefined = records.attribute(recordNumbers.upCase, attributeTypes.data, '');
  if (data?.sizeBytes !== upCaseBytes || data.value !== undefined)
    throw wrong(recordNumbers.upCase, 'data', `is not a table of ${upCaseBytes} bytes`);
  const bytes = new Uint8Array(upCaseBytes);
  readRuns(disk, geometry.clusterBytes, data, bytes, 0);
  const view = viewOf(bytes);
  return Uint16Array.from({ length: upCaseBytes / 2 }, (_, index) => view.getUint16(index * 2, true));
}
