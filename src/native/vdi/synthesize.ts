/** VDI disk files. Static is the default: VirtualBox never grows such a file, and its blocks lie as in the guest's disk. */
import { namedGuid, nilGuid } from '../../bytes/guid.ts';
import { allocatedCount, type AllocatedRun } from '../allocation.ts';
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
  blockBytes,
  dataOffset,
  fileInfo,
  freeEntry,
  header,
  headerSize,
  imageType,
  mapBytes,
  mapEntryBytes,
  mapOffset,
  maxDiskBytes,
  version,
  type VdiGeometry,
} from './layout.ts';

export const layouts = ['static', 'dynamic'] as const;

export function plan(disk: DiskFacts, options: PlanOptions): VdiGeometry {
  const layout = chooseLayout({ name: 'vdi', layouts }, disk, options, maxDiskBytes);
  requireSmallSectors('vdi', disk);
  chosenUnit('vdi', 'blocks', options, [blockBytes]);
  const common = { format: 'vdi', sizeBytes: disk.sizeBytes, identity: disk.identity } as const;
  if (layout === 'static') return { ...common, layout };
  return { ...common, layout, allocation: planGrowing(disk, [blockBytes]).allocation };
}

export function synthesize(geometry: VdiGeometry, fileName: string): readonly NativeFile[] {
  const { sizeBytes } = geometry;
  checkGeometry('vdi', 'layout', layouts.includes(geometry.layout), `"${geometry.layout}" is not a layout of it`);
  checkGeometrySize('vdi', sizeBytes, maxDiskBytes);
  const blockCount = Math.ceil(sizeBytes / blockBytes);
  const runs: readonly AllocatedRun[] =
    geometry.layout === 'static'
      ? [{ firstUnit: 0, unitCount: blockCount, rank: 0 }]
      : plannedRuns('vdi', geometry.allocation, blockCount);
  const map = new SegmentMap([
    { kind: 'bytes', bytes: headerBytes(geometry, blockCount, allocatedCount(runs)) },
    blockMap(blockCount, runs),
    ...runs.flatMap((run) => unitSegments(run.firstUnit, run.unitCount, blockBytes, sizeBytes)),
  ]);
  return [{ name: fileName, map }];
}

/** Entry n is the number of block n in the file. Behind the last entry follow zeros up to the first block. */
function blockMap(blockCount: number, runs: readonly AllocatedRun[]): Segment {
  return computedTable(mapBytes(blockCount), mapEntryBytes, (view, first, count) => {
    const used = Math.min(count, blockCount - first);
    for (let index = 0; index < used; index++) view.setUint32(index * mapEntryBytes, freeEntry, true);
    visitAllocated(runs, first, used, (block, rank) => {
      view.setUint32((block - first) * mapEntryBytes, rank, true);
    });
  });
}

function headerBytes(geometry: VdiGeometry, blockCount: number, blocksAllocated: number): Uint8Array {
  const { sizeBytes, identity } = geometry;
  const heads = 255;
  const sectors = 63;
  const cylinders = Math.min(Math.floor(sizeBytes / sectorBytes / heads / sectors), 1024);
  return header.encode(
    {
      fileInfo,
      version,
      headerSize,
      imageType: imageType[geometry.layout],
      flags: 0,
      comment: '',
      blocksOffset: mapOffset,
      dataOffset: dataOffset(blockCount),
      legacyCylinders: 0,
      legacyHeads: 0,
      legacySectors: 0,
      legacySectorSize: sectorBytes,
      diskSize: BigInt(sizeBytes),
      blockSize: blockBytes,
      blockExtraSize: 0,
      blockCount,
      blocksAllocated,
      uuidCreate: namedGuid(identity, 'VDI creation'),
      uuidModify: namedGuid(identity, 'VDI modification'),
      uuidLinkage: nilGuid,
      uuidParentModify: nilGuid,
      cylinders,
      heads,
      sectors,
      sectorSize: sectorBytes,
    },
    new Uint8Array(mapOffset),
  );
}
