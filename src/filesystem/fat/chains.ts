/** Chains of clusters in the file allocation table: followed with an end, changed in all copies of the table. */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import { viewOf } from '../../bytes/view.ts';
import type { StagedWrites } from '../edit/staged-writes.ts';
import { infoSector } from './layout.ts';
import type { FatGeometry } from './geometry.ts';

export const firstCluster = 2;
const endMark = 0x0fff_ffff;
/** Of a table that is searched for free clusters: that of a volume of 8 GiB in clusters of 4 KiB. */
const maxSearchedBytes = 8 * MiB;
/** Of a file that is looked up at all. */
const maxChain = 1_000_000;

/** Reads a range of the volume. */
export type ReadRange = (offset: number, lengthBytes: number) => Uint8Array;

/**
 * The clusters of a chain, at most `limit`.
 * @throws FormatError when it leaves the volume or does not end, UnsupportedError when it may be too long
 */
export function chainFrom(read: ReadRange, geometry: FatGeometry, first: number, limit: number): number[] {
  if (limit > maxChain) throw new UnsupportedError(`FAT: a file of ${limit} clusters is not read`);
  const clusters: number[] = [];
  for (let cluster = first; ;) {
    if (cluster < firstCluster || cluster >= geometry.clusterCount + firstCluster)
      throw new FormatError('FAT', 'cluster', cluster, `is not one of ${geometry.clusterCount}`);
    clusters.push(cluster);
    if (clusters.length > limit) throw new FormatError('FAT', 'chain', first, `has more than ${limit} clusters`);
    const next = nextOf(read, geometry, cluster);
    if (isEnd(geometry, next)) return clusters;
    cluster = next;
  }
}

/** Where a cluster lies on the volume. */
export function offsetOfCluster(geometry: FatGeometry, cluster: number): number {
  return geometry.dataStartBytes + (cluster - firstCluster) * geometry.clusterBytes;
}

function nextOf(read: ReadRange, { bits, fatStartBytes }: FatGeometry, cluster: number): number {
  if (bits === 32) return viewOf(read(fatStartBytes + cluster * 4, 4)).getUint32(0, true) % 0x1000_0000;
  if (bits === 16) return viewOf(read(fatStartBytes + cluster * 2, 2)).getUint16(0, true);
  const pair = viewOf(read(fatStartBytes + Math.floor((cluster * 3) / 2), 2)).getUint16(0, true);
  return cluster % 2 === 0 ? pair % 0x1000 : Math.floor(pair / 16);
}

function isEnd({ bits }: FatGeometry, next: number): boolean {
  return next >= { 12: 0xff8, 16: 0xfff8, 32: 0x0fff_fff8 }[bits];
}

/**
 * Takes free clusters for a new chain, in all copies of the table.
 * @throws UnsupportedError when there are not as many, or on FAT12
 */
export function allocateChain(writes: StagedWrites, geometry: FatGeometry, count: number): number[] {
  const { bits, clusterCount, fatBytes } = geometry;
  if (fatBytes > maxSearchedBytes)
    throw new UnsupportedError(`a file is not added to a FAT volume whose table has ${fatBytes} bytes`);
  if (bits === 12) throw new UnsupportedError('a file is not added to a FAT12 volume');
  const read: ReadRange = (offset, lengthBytes) => writes.read(offset, lengthBytes);
  const found: number[] = [];
  for (let cluster = firstCluster; cluster < clusterCount + firstCluster && found.length < count; cluster++)
    if (nextOf(read, geometry, cluster) === 0) found.push(cluster);
  if (found.length < count)
    throw new UnsupportedError(`FAT: ${count} free clusters are needed, and there are ${found.length}`);
  for (const [index, cluster] of found.entries()) setNext(writes, geometry, cluster, found[index + 1] ?? endMark);
  countTaken(writes, geometry, count);
  return found;
}

function setNext(
  writes: StagedWrites,
  { bits, fatStartBytes, fatBytes, fatCount }: FatGeometry,
  cluster: number,
  next: number,
): void {
  const width = bits / 8;
  for (let copy = 0; copy < fatCount; copy++) {
    const at = fatStartBytes + copy * fatBytes + cluster * width;
    const entry = writes.read(at, width);
    if (width === 2) viewOf(entry).setUint16(0, next % 0x1_0000, true);
    else viewOf(entry).setUint32(0, next, true);
    writes.write(at, entry);
  }
}

const freeCountOffset = infoSector.offsetOf('freeClusters');
const unknownCount = 0xffff_ffff;

/** FAT32 keeps a count of free clusters. */
function countTaken(writes: StagedWrites, { infoOffset }: FatGeometry, count: number): void {
  if (infoOffset === undefined) return;
  const field = writes.read(infoOffset + freeCountOffset, 4);
  const free = viewOf(field).getUint32(0, true);
  if (free === unknownCount || free < count) return;
  viewOf(field).setUint32(0, free - count, true);
  writes.write(infoOffset + freeCountOffset, field);
}
