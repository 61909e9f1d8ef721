/** qcow2 disk files. Every used cluster is referenced exactly once, so that `qemu-img check` finds nothing and writes go in place. */
import { assert } from '../../base/errors.ts';
import { bytesOfName } from '../../base/names.ts';
import { alignUp } from '../../base/ranges.ts';
import { allocatedCount, type AllocatedRun } from '../allocation.ts';
import { computedTable } from '../computed-table.ts';
import type { DiskFacts, NativeFile, PlanOptions } from '../format.ts';
import { checkGeometry, checkGeometrySize, chooseLayout, chosenUnit } from '../geometry.ts';
import { coarserRuns, planGrowing, plannedRuns, unitSegments, visitAllocated } from '../growing.ts';
import { SegmentMap, type Segment } from '../segment-map.ts';
import {
  backingFormatExtension,
  clusterSizes,
  entriesPerTable,
  entryBytes,
  extensionAlignment,
  fileHeader,
  fullClusterBytes,
  headerExtension,
  headerLengthBytes,
  headerVersion3,
  maxBackingNameBytes,
  maxDiskBytes,
  place,
  refcountBytes,
  refcountOrder,
  type Placement,
  type Qcow2Geometry,
} from './layout.ts';

export const layouts = ['compact', 'full'] as const;

export function plan(disk: DiskFacts, options: PlanOptions): Qcow2Geometry {
  const layout = chooseLayout({ name: 'qcow2', layouts }, disk, options, maxDiskBytes);
  const asked = chosenUnit('qcow2', 'clusters', options, clusterSizes);
  const common = { format: 'qcow2', sizeBytes: disk.sizeBytes } as const;
  if (layout === 'full') return { ...common, layout, clusterBytes: asked ?? fullClusterBytes };
  const { unitBytes, allocation } = planGrowing(disk, asked === undefined ? clusterSizes : [asked]);
  return { ...common, layout, clusterBytes: unitBytes, allocation };
}

export function synthesize(geometry: Qcow2Geometry, fileName: string): readonly NativeFile[] {
  const { sizeBytes, clusterBytes } = geometry;
  checkGeometry('qcow2', 'layout', layouts.includes(geometry.layout), `"${geometry.layout}" is not a layout of it`);
  checkGeometrySize('qcow2', sizeBytes, maxDiskBytes);
  checkGeometry('qcow2', 'clusterBytes', clusterSizes.includes(clusterBytes), `${clusterBytes} is not a cluster size`);
  return [{ name: fileName, map: synthesizeMap(geometry) }];
}

function synthesizeMap(geometry: Qcow2Geometry): SegmentMap {
  const { sizeBytes, clusterBytes } = geometry;
  const clusters = Math.ceil(sizeBytes / clusterBytes);
  const runs: readonly AllocatedRun[] =
    geometry.layout === 'full'
      ? [{ firstUnit: 0, unitCount: clusters, rank: 0 }]
      : plannedRuns('qcow2', geometry.allocation, clusters);
  const tables = coarserRuns(runs, entriesPerTable(clusterBytes));
  const placement = place(sizeBytes, clusterBytes, allocatedCount(tables), allocatedCount(runs));
  return new SegmentMap([
    { kind: 'bytes', bytes: headerCluster(sizeBytes, clusterBytes, placement) },
    l1Table(placement, tables, clusterBytes),
    refcountTable(placement, clusterBytes),
    refcountBlocks(placement, clusterBytes),
    ...l2Tables(placement, tables, runs, clusterBytes),
    ...runs.flatMap((run) => unitSegments(run.firstUnit, run.unitCount, clusterBytes, sizeBytes)),
  ]);
}

/** The first cluster: the header, its extensions, and the name of the backing file if there is one. */
export function headerCluster(
  sizeBytes: number,
  clusterBytes: number,
  placement: Placement,
  backing?: { readonly name: string; readonly qemuFormat: string },
): Uint8Array {
  const cluster = new Uint8Array(clusterBytes);
  const name = bytesOfName(backing?.name ?? '');
  assert(name.length <= maxBackingNameBytes, 'the name of a backing file is too long');
  // Extensions end with one of type 0 and length 0: the zeros that are there.
  const format = Buffer.from(backing?.qemuFormat ?? '');
  const extensionBytes = headerExtension.sizeBytes + alignUp(format.length, extensionAlignment);
  const nameOffset = headerLengthBytes + extensionBytes + headerExtension.sizeBytes;
  if (backing !== undefined) {
    headerExtension.encode({ type: backingFormatExtension, lengthBytes: format.length }, cluster, headerLengthBytes);
    cluster.set(format, headerLengthBytes + headerExtension.sizeBytes);
    cluster.set(name, nameOffset);
  }
  fileHeader.encode(
    {
      version: 3,
      backingFileOffset: backing === undefined ? 0n : BigInt(nameOffset),
      backingFileSize: name.length,
      clusterBits: Math.log2(clusterBytes),
      size: BigInt(sizeBytes),
      cryptMethod: 0,
      l1Size: placement.l1Entries,
      l1TableOffset: BigInt(placement.l1 * clusterBytes),
      refcountTableOffset: BigInt(placement.refcountTable * clusterBytes),
      refcountTableClusters: placement.refcountTableClusters,
      nbSnapshots: 0,
      snapshotsOffset: 0n,
    },
    cluster,
  );
  headerVersion3.encode(
    {
      incompatibleFeatures: 0n,
      compatibleFeatures: 0n,
      autoclearFeatures: 0n,
      refcountOrder,
      headerLength: headerLengthBytes,
    },
    cluster,
    fileHeader.sizeBytes,
  );
  return cluster;
}

/** Writes an entry for a cluster that is referenced once: its offset with the COPIED flag, bit 63. */
function setCopied(view: DataView, at: number, offsetBytes: number): void {
  view.setUint32(at, Math.floor(offsetBytes / 2 ** 32) + 2 ** 31);
  view.setUint32(at + 4, offsetBytes % 2 ** 32);
}

export function l1Table(placement: Placement, tables: readonly AllocatedRun[], clusterBytes: number): Segment {
  const lengthBytes = alignUp(placement.l1Entries * entryBytes, clusterBytes);
  return computedTable(lengthBytes, entryBytes, (view, first, count) => {
    visitAllocated(tables, first, count, (table, rank) => {
      setCopied(view, (table - first) * entryBytes, (placement.l2 + rank) * clusterBytes);
    });
  });
}

export function refcountTable(placement: Placement, clusterBytes: number): Segment {
  return computedTable(placement.refcountTableClusters * clusterBytes, entryBytes, (view, first, count) => {
    const end = Math.min(first + count, placement.refcountBlockCount);
    for (let index = first; index < end; index++) {
      const offset = (placement.refcountBlocks + index) * clusterBytes;
      view.setBigUint64((index - first) * entryBytes, BigInt(offset));
    }
  });
}

export function refcountBlocks(placement: Placement, clusterBytes: number): Segment {
  return computedTable(placement.refcountBlockCount * clusterBytes, refcountBytes, (view, first, count) => {
    const end = Math.min(first + count, placement.totalClusters);
    for (let cluster = first; cluster < end; cluster++) view.setUint16((cluster - first) * refcountBytes, 1);
  });
}

/** One segment for each run of neighbouring L2 tables: inside it, entries and disk clusters are neighbours too. */
function l2Tables(
  placement: Placement,
  tables: readonly AllocatedRun[],
  runs: readonly AllocatedRun[],
  clusterBytes: number,
): Segment[] {
  const perTable = entriesPerTable(clusterBytes);
  return tables.map((tableRun) =>
    computedTable(tableRun.unitCount * clusterBytes, entryBytes, (view, first, count) => {
      const firstCluster = tableRun.firstUnit * perTable + first;
      visitAllocated(runs, firstCluster, count, (cluster, rank) => {
        setCopied(view, (cluster - firstCluster) * entryBytes, (placement.data + rank) * clusterBytes);
      });
    }),
  );
}
