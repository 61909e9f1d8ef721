/** Which blocks a file has: extent trees and block maps, as runs in the order of the file. Holes and what was never written have no run. */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import type { VolumeReader } from '../volume-reader.ts';
import * as format from './layout.ts';

/** Blocks [file, file + count) of the file are blocks [disk, disk + count) of the volume. */
export interface BlockRun {
  readonly file: number;
  readonly disk: number;
  readonly count: number;
}

interface Place {
  readonly reader: VolumeReader;
  readonly blockBytes: number;
  /** The volume has so many. */
  readonly blockCount: number;
}

const maxRuns = 300_000;
/** The kernel's own limit for extent trees. */
const maxDepth = 5;
const directBlocks = 12;

/** @param root the 60 bytes in the inode */
export function extentRuns(place: Place, root: Uint8Array): BlockRun[] {
  const runs: BlockRun[] = [];
  const header = format.extentHeader.parse(root);
  if (header.depth > maxDepth) throw broken(0, 'depth', `${header.depth}, at most ${maxDepth}`);
  readNode(place, root, header.depth, 0, runs);
  return checkOrder(runs);
}

function readNode(place: Place, node: Uint8Array, depth: number, at: number, runs: BlockRun[]): void {
  const header = format.extentHeader.parse(node);
  const room = Math.floor((node.length - format.extentHeader.sizeBytes) / format.extentEntryBytes);
  if (header.magic !== format.extentMagic) throw broken(at, 'magic', 'is not that of an extent node');
  if (header.depth !== depth || header.entries > room)
    throw broken(
      at,
      'header',
      `${header.entries} entries at depth ${header.depth}, where ${room} fit at depth ${depth}`,
    );
  for (let index = 0; index < header.entries; index++) {
    const entry = format.extentHeader.sizeBytes + index * format.extentEntryBytes;
    if (depth > 0) {
      const { leafLow, leafHigh } = format.extentIndex.parse(node, entry);
      const child = leafLow + leafHigh * 2 ** 32;
      checkBlocks(place, child, 1, at);
      const bytes = place.reader.read(child * place.blockBytes, place.blockBytes, 'extent node');
      readNode(place, bytes, depth - 1, child * place.blockBytes, runs);
      continue;
    }
    const { block, length, startHigh, startLow } = format.extent.parse(node, entry);
    if (length === 0) throw broken(at, 'length', 'an extent of no blocks');
    if (length > format.maxWrittenLength) continue;
    const disk = startLow + startHigh * 2 ** 32;
    checkBlocks(place, disk, length, at);
    push(runs, { file: block, disk, count: length });
  }
}

/** Of ext2, ext3 and files made by them: 12 blocks, then blocks of block numbers, one to three deep. */
export function mappedRuns(place: Place, map: Uint8Array, fileBlocks: number): BlockRun[] {
  const runs: BlockRun[] = [];
  const pointers = place.blockBytes / 4;
  const view = new DataView(map.buffer, map.byteOffset, map.byteLength);
  let file = 0;
  for (let index = 0; index < 15 && file < fileBlocks; index++) {
    const level = Math.max(0, index - directBlocks + 1);
    file = readPointer(view.getUint32(index * 4, true), level, file);
  }
  return runs;

  /** Returns the file's block behind what the pointer covers. */
  function readPointer(block: number, level: number, from: number): number {
    const end = from + pointers ** level;
    if (block === 0) return end;
    checkBlocks(place, block, 1, 0);
    if (level === 0) {
      append(runs, { file: from, disk: block, count: 1 });
      return end;
    }
    const bytes = place.reader.read(block * place.blockBytes, place.blockBytes, 'block of block numbers');
    const children = new DataView(bytes.buffer);
    for (let index = 0, at = from; index < pointers && at < fileBlocks; index++)
      at = readPointer(children.getUint32(index * 4, true), level - 1, at);
    return end;
  }
}

function append(runs: BlockRun[], run: BlockRun): void {
  const last = runs.at(-1);
  if (last !== undefined && last.file + last.count === run.file && last.disk + last.count === run.disk)
    runs[runs.length - 1] = { ...last, count: last.count + run.count };
  else push(runs, run);
}

function push(runs: BlockRun[], run: BlockRun): void {
  if (runs.length >= maxRuns) throw new UnsupportedError(`ext4: a file in more than ${maxRuns} pieces; it is not read`);
  runs.push(run);
}

function checkOrder(runs: BlockRun[]): BlockRun[] {
  let end = 0;
  for (const run of runs) {
    if (run.file < end) throw broken(run.disk, 'order', 'two extents hold the same blocks of a file');
    end = run.file + run.count;
  }
  return runs;
}

function checkBlocks(place: Place, block: number, count: number, at: number): void {
  if (block === 0 || block + count > place.blockCount)
    throw broken(at, 'block', `${block} and ${count} blocks are not inside a volume of ${place.blockCount}`);
}

function broken(at: number, field: string, detail: string): FormatError {
  return new FormatError('ext4 block map', field, at, detail);
}
