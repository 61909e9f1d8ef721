/** VHD disk files, fixed and dynamic. */
import { alignUp } from '../../base/ranges.ts';
import { namedGuid, nilGuid, type Guid } from '../../bytes/guid.ts';
import type { AllocatedRun } from '../allocation.ts';
import { computedTable } from '../computed-table.ts';
import type { DiskFacts, NativeFile, PlanOptions } from '../format.ts';
import {
  checkGeometry,
  checkGeometrySize,
  chooseLayout,
  chosenUnit,
  requireSmallSectors,
  sectorBytes,
} from '../geometry.ts';
import { planGrowing, plannedRuns, unitSegments, visitAllocated } from '../growing.ts';
import { SegmentMap, type Segment } from '../segment-map.ts';
import {
  batEntryBytes,
  bitmapBytes,
  blockOffset,
  blockSizes,
  checksumWithoutField,
  chsOf,
  defaultBlockBytes,
  diskType,
  dynamicHeader,
  dynamicHeaderOffset,
  fixedAlignmentBytes,
  footer,
  footerTimestamp,
  formatVersion,
  maxDiskBytes,
  noOffset,
  parentLocator,
  parentLocatorCount,
  parentNameBytes,
  tableBytes,
  tableOffset,
  unusedEntry,
  type DynamicGeometry,
  type DynamicHeader,
  type FixedGeometry,
  type VhdGeometry,
} from './layout.ts';

export const layouts = ['fixed', 'dynamic'] as const;

export function plan(disk: DiskFacts, options: PlanOptions): VhdGeometry {
  const layout = chooseLayout({ name: 'vhd', layouts }, disk, options, maxDiskBytes);
  requireSmallSectors('vhd', disk);
  const asked = chosenUnit('vhd', 'blocks', options, layout === 'fixed' ? [] : blockSizes);
  const common = { format: 'vhd', sizeBytes: disk.sizeBytes, identity: disk.identity } as const;
  if (layout === 'fixed') {
    return { ...common, layout, virtualSizeBytes: alignUp(disk.sizeBytes, fixedAlignmentBytes) };
  }
  const { unitBytes, allocation } = planGrowing(disk, [asked ?? defaultBlockBytes]);
  return { ...common, layout, blockBytes: unitBytes, allocation };
}

export function synthesize(geometry: VhdGeometry, fileName: string): readonly NativeFile[] {
  checkGeometry('vhd', 'layout', layouts.includes(geometry.layout), `"${geometry.layout}" is not a layout of it`);
  checkGeometrySize('vhd', geometry.sizeBytes, maxDiskBytes);
  const map = geometry.layout === 'fixed' ? synthesizeFixed(geometry) : synthesizeDynamic(geometry);
  return [{ name: fileName, map }];
}

function synthesizeFixed(geometry: FixedGeometry): SegmentMap {
  const { sizeBytes, virtualSizeBytes } = geometry;
  const rounded = alignUp(sizeBytes, fixedAlignmentBytes);
  checkGeometry('vhd', 'virtualSizeBytes', virtualSizeBytes === rounded, `${virtualSizeBytes} is not ${rounded}`);
  return new SegmentMap([
    { kind: 'disk', diskOffset: 0, lengthBytes: sizeBytes },
    { kind: 'zeros', lengthBytes: virtualSizeBytes - sizeBytes },
    { kind: 'bytes', bytes: footerBytes('fixed', virtualSizeBytes, geometry.identity) },
  ]);
}

function synthesizeDynamic(geometry: DynamicGeometry): SegmentMap {
  const { sizeBytes, blockBytes } = geometry;
  checkGeometry('vhd', 'blockBytes', blockSizes.includes(blockBytes), `${blockBytes} is not a block size`);
  const blockCount = Math.ceil(sizeBytes / blockBytes);
  const runs = plannedRuns('vhd', geometry.allocation, blockCount);
  const ends = footerBytes('dynamic', sizeBytes, geometry.identity);
  const tableEnd = tableOffset + tableBytes(blockCount);
  return new SegmentMap([
    { kind: 'bytes', bytes: ends },
    { kind: 'bytes', bytes: dynamicHeaderBytes(blockCount, blockBytes) },
    blockAllocationTable(blockCount, blockBytes, runs),
    ...blocks(runs, geometry, blockCount, tableEnd),
    { kind: 'bytes', bytes: ends },
  ]);
}

/**
 * Every allocated block: a gap, its bitmap, which says that all sectors are in this file, and its data. Two segments for each, because a
 * disk of 2040 GiB has a million blocks.
 */
function blocks(
  runs: readonly AllocatedRun[],
  geometry: DynamicGeometry,
  blockCount: number,
  tableEnd: number,
): Segment[] {
  const { sizeBytes, blockBytes } = geometry;
  const bitmapLength = bitmapBytes(blockBytes);
  const gapAndBitmap = (gapBytes: number): Segment => {
    const bytes = new Uint8Array(gapBytes + bitmapLength);
    return { kind: 'bytes', bytes: bytes.fill(0xff, gapBytes) };
  };
  const firstStart = blockOffset(blockCount, blockBytes, 0);
  const firstHead = gapAndBitmap(firstStart - tableEnd);
  const head = gapAndBitmap(blockOffset(blockCount, blockBytes, 1) - firstStart - bitmapLength - blockBytes);
  const segments: Segment[] = [];
  visitAllocated(runs, 0, blockCount, (block, rank) => {
    segments.push(rank === 0 ? firstHead : head);
    if (block < blockCount - 1)
      segments.push({ kind: 'disk', diskOffset: block * blockBytes, lengthBytes: blockBytes });
    else segments.push(...unitSegments(block, 1, blockBytes, sizeBytes));
  });
  return segments;
}

export function blockAllocationTable(blockCount: number, blockBytes: number, runs: readonly AllocatedRun[]): Segment {
  return computedTable(tableBytes(blockCount), batEntryBytes, (view, first, count) => {
    for (let index = 0; index < count; index++) view.setUint32(index * batEntryBytes, unusedEntry);
    visitAllocated(runs, first, Math.min(count, blockCount - first), (block, rank) => {
      view.setUint32((block - first) * batEntryBytes, blockOffset(blockCount, blockBytes, rank) / sectorBytes);
    });
  });
}

/** The footer, which in a growing disk stands at both ends. */
export function footerBytes(type: keyof typeof diskType, sizeBytes: number, identity: Guid): Uint8Array {
  const encoded = footer.encode({
    features: 2,
    fileFormatVersion: formatVersion,
    dataOffset: type === 'fixed' ? noOffset : BigInt(dynamicHeaderOffset),
    timestamp: footerTimestamp,
    // With a creator that it does not know, QEMU takes the size from cylinders, heads and sectors, and cuts the disk short.
    creatorApplication: 'win ',
    creatorVersion: 0x000a_0000,
    creatorHostOs: 'Wi2k',
    originalSize: BigInt(sizeBytes),
    currentSize: BigInt(sizeBytes),
    ...chsOf(sizeBytes),
    diskType: diskType[type],
    checksum: 0,
    uniqueId: uniqueIdOf(identity),
    savedState: 0,
  });
  return sealChecksum(encoded, footer.offsetOf('checksum'));
}

/** What a child knows its parent by. */
export function uniqueIdOf(identity: Guid): Guid {
  return namedGuid(identity, 'VHD unique id');
}

/** How a dynamic header names a parent. */
export type ParentFields = Pick<
  DynamicHeader,
  'parentUniqueId' | 'parentTimestamp' | 'parentUnicodeName' | 'parentLocators'
>;

const noParent: ParentFields = {
  parentUniqueId: nilGuid,
  parentTimestamp: 0,
  parentUnicodeName: new Uint8Array(parentNameBytes),
  parentLocators: new Uint8Array(parentLocator.sizeBytes * parentLocatorCount),
};

export function dynamicHeaderBytes(blockCount: number, blockBytes: number, parent = noParent): Uint8Array {
  const encoded = dynamicHeader.encode({
    dataOffset: noOffset,
    tableOffset: BigInt(tableOffset),
    headerVersion: formatVersion,
    maxTableEntries: blockCount,
    blockSize: blockBytes,
    checksum: 0,
    ...parent,
  });
  return sealChecksum(encoded, dynamicHeader.offsetOf('checksum'));
}

function sealChecksum(structure: Uint8Array, fieldOffset: number): Uint8Array {
  const view = new DataView(structure.buffer, structure.byteOffset, structure.byteLength);
  view.setUint32(fieldOffset, checksumWithoutField(structure, fieldOffset));
  return structure;
}
