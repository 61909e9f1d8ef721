/**
 * Folders: B-trees of names, in the order of the volume's own upper-case table. A name is found by going down, at most 32 deep; a list
 * goes through all blocks, each once.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import { viewOf } from '../../bytes/view.ts';
import { withoutFixups } from './fixups.ts';
import type { Geometry } from './geometry.ts';
import { parseNode, type IndexEntry } from './index-node.ts';
import {
  attributeTypes,
  dosNamespace,
  indexBlock,
  indexRootHead,
  maxFolderEntries,
  maxIndexDepth,
  recordNumbers,
  strideBytes,
} from './layout.ts';
import { wrong, type Attribute, type Records } from './records.ts';
import { readRuns } from './run-reader.ts';

export const indexName = '$I30';
const upCaseBytes = 0x1_0000 * 2;

/** A node on the way down to a name. */
export interface Step {
  /** What its parent calls it; undefined for the root. */
  readonly block: number | undefined;
  readonly entries: readonly IndexEntry[];
  /** The first entry that does not stand before the name. */
  readonly at: number;
  /** Whether that is the name. */
  readonly found: boolean;
}

/** Blocks are numbered in these units. */
export function blockUnitBytes({ clusterBytes, indexBlockBytes }: Geometry): number {
  return clusterBytes <= indexBlockBytes ? clusterBytes : strideBytes;
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
    const last = this.descend(folder, name).at(-1);
    return last?.found === true ? last.entries[last.at]?.record : undefined;
  }

  /** The nodes from the root to the one that the name stands in, or would. */
  descend(folder: number, name: string): Step[] {
    const steps: Step[] = [];
    let block: number | undefined;
    let entries = this.#root(folder);
    while (steps.length < maxIndexDepth) {
      const orders = entries.map((entry) => (entry.name === undefined ? 1 : this.#compare(entry.name, name)));
      const at = orders.findIndex((order) => order >= 0);
      const found = orders[at] === 0;
      steps.push({ block, entries, at, found });
      const child = entries[at]?.child;
      if (found || child === undefined) return steps;
      block = child;
      entries = this.#block(folder, child);
    }
    throw wrong(folder, 'index', `is deeper than ${maxIndexDepth} levels`);
  }

  /** All names in a folder but the second ones in 8.3 form, in the order of the index, with the records of what has them. */
  entries(folder: number): { readonly name: string; readonly record: number }[] {
    const found: { name: string; record: number }[] = [];
    const seen = new Set<number>();
    const walk = (node: readonly IndexEntry[], depth: number): void => {
      if (depth > maxIndexDepth) throw wrong(folder, 'index', `is deeper than ${maxIndexDepth} levels`);
      for (const { child, name, namespace, record } of node) {
        if (child !== undefined) {
          if (seen.has(child)) throw wrong(folder, 'index', `block ${child} is there twice`);
          seen.add(child);
          walk(this.#block(folder, child), depth + 1);
        }
        if (name !== undefined && namespace !== dosNamespace) found.push({ name, record });
        if (found.length > maxFolderEntries)
          throw new UnsupportedError(`a folder of more than ${maxFolderEntries} names is not listed`);
      }
    };
    walk(this.#root(folder), 0);
    return found;
  }

  /** A block as it is meant: a copy with its bytes in place. */
  block(folder: number, block: number): Uint8Array {
    const allocation = this.#records.attribute(folder, attributeTypes.indexAllocation, indexName);
    if (allocation === undefined || allocation.value !== undefined)
      throw wrong(folder, 'index allocation', 'is missing');
    const { clusterBytes, indexBlockBytes } = this.#geometry;
    const at = block * blockUnitBytes(this.#geometry);
    if (at + indexBlockBytes > allocation.sizeBytes)
      throw wrong(folder, 'index allocation', `has no block at byte ${at}`);
    const raw = new Uint8Array(indexBlockBytes);
    readRuns(this.#disk, clusterBytes, allocation, raw, at);
    const structure = `NTFS index block ${block} of record ${folder}`;
    indexBlock.parse(raw);
    const bytes = withoutFixups(raw, structure, at);
    if (indexBlock.parse(bytes).cluster !== BigInt(block))
      throw new FormatError(structure, 'cluster', at, 'is the block of another place');
    return bytes;
  }

  #root(folder: number): IndexEntry[] {
    const root = this.#records.attribute(folder, attributeTypes.indexRoot, indexName);
    if (root?.value === undefined) throw wrong(folder, 'index root', 'is missing');
    return parseNode(root.value, indexRootHead.sizeBytes, `NTFS index of record ${folder}`);
  }

  #block(folder: number, block: number): IndexEntry[] {
    return parseNode(this.block(folder, block), indexBlock.sizeBytes, `NTFS index block ${block} of record ${folder}`);
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

function readUpCase(disk: Disk, geometry: Geometry, records: Records): Uint16Array {
  const data: Attribute | undefined = records.attribute(recordNumbers.upCase, attributeTypes.data, '');
  if (data?.sizeBytes !== upCaseBytes || data.value !== undefined)
    throw wrong(recordNumbers.upCase, 'data', `is not a table of ${upCaseBytes} bytes`);
  const bytes = new Uint8Array(upCaseBytes);
  readRuns(disk, geometry.clusterBytes, data, bytes, 0);
  const view = viewOf(bytes);
  return Uint16Array.from({ length: upCaseBytes / 2 }, (_, index) => view.getUint16(index * 2, true));
}
