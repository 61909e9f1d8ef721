/** VMDK disk files: flat (a descriptor and the disk beside it) and sparse (all in one). */
import path from 'node:path';
import { assert, CapacityError } from '../../base/errors.ts';
import { formatBytes } from '../../base/units.ts';
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
import { encodeDescriptor, type DescriptorFacts } from './descriptor.ts';
import {
  descriptorSectors,
  descriptorStartSectors,
  entriesPerTable,
  entryBytes,
  grainSizes,
  maxFlatDiskBytes,
  maxSparseDiskBytes,
  maxSparseFileBytes,
  place,
  sparseFlags,
  sparseHeader,
  tableSectors,
  type FlatGeometry,
  type Placement,
  type SparseGeometry,
  type VmdkGeometry,
} from './layout.ts';

export const layouts = ['flat', 'sparse'] as const;

export function plan(disk: DiskFacts, options: PlanOptions): VmdkGeometry {
  const maxDiskBytes = options.layout === 'sparse' ? maxSparseDiskBytes : maxFlatDiskBytes;
  const layout = chooseLayout({ name: 'vmdk', layouts }, disk, options, maxDiskBytes);
  requireSmallSectors('vmdk', disk);
  const asked = chosenUnit('vmdk', 'grains', options, layout === 'flat' ? [] : grainSizes);
  const common = { format: 'vmdk', sizeBytes: disk.sizeBytes, identity: disk.identity } as const;
  if (layout === 'flat') return { ...common, layout };
  const { unitBytes, allocation } = planGrowing(disk, asked === undefined ? grainSizes : [asked]);
  const fileBytes = sparseFileBytes(disk.sizeBytes, unitBytes, allocatedCount(disk.allocatedRuns(unitBytes)));
  if (fileBytes > maxSparseFileBytes) {
    throw new CapacityError(
      `with its tables the disk makes a sparse vmdk of ${formatBytes(fileBytes)}, the limit is ` +
        `${formatBytes(maxSparseFileBytes)}; use --layout flat`,
    );
  }
  return { ...common, layout, grainBytes: unitBytes, allocation };
}

export function synthesize(geometry: VmdkGeometry, fileName: string): readonly NativeFile[] {
  checkGeometry('vmdk', 'layout', layouts.includes(geometry.layout), `"${geometry.layout}" is not a layout of it`);
  return geometry.layout === 'flat' ? synthesizeFlat(geometry, fileName) : synthesizeSparse(geometry, fileName);
}

const extentSuffix = '-flat';

/** The extent of `vm.vmdk` is `vm-flat.vmdk`. */
function extentNameOf(fileName: string): string {
  const { name, ext } = path.parse(fileName);
  return `${name}${extentSuffix}${ext}`;
}

/** The one file name whose extent would be called so; undefined where none would. */
export function describedBy(extentName: string): string | undefined {
  const { name, ext } = path.parse(extentName);
  const fileName = name.slice(0, -extentSuffix.length) + ext;
  return name.endsWith(extentSuffix) && extentNameOf(fileName) === extentName ? fileName : undefined;
}

function synthesizeFlat(geometry: FlatGeometry, fileName: string): NativeFile[] {
  const { sizeBytes, identity } = geometry;
  checkGeometrySize('vmdk', sizeBytes, maxFlatDiskBytes);
  const extentName = extentNameOf(fileName);
  const descriptor = encodeDescriptor({ createType: 'monolithicFlat', extentName, sizeBytes, identity });
  return [
    { name: fileName, map: new SegmentMap([{ kind: 'bytes', bytes: descriptor }]) },
    { name: extentName, map: new SegmentMap([{ kind: 'disk', diskOffset: 0, lengthBytes: sizeBytes }]) },
  ];
}

function synthesizeSparse(geometry: SparseGeometry, fileName: string): NativeFile[] {
  const { sizeBytes, grainBytes, identity } = geometry;
  checkGeometrySize('vmdk', sizeBytes, maxSparseDiskBytes);
  checkGeometry('vmdk', 'grainBytes', grainSizes.includes(grainBytes), `${grainBytes} is not a grain size`);
  const runs = plannedRuns('vmdk', geometry.allocation, Math.ceil(sizeBytes / grainBytes));
  const fileBytes = sparseFileBytes(sizeBytes, grainBytes, allocatedCount(runs));
  checkGeometry('vmdk', 'allocation', fileBytes <= maxSparseFileBytes, 'the grains do not fit 32-bit sector numbers');
  const map = new SegmentMap([
    ...sparseHead({ createType: 'monolithicSparse', extentName: fileName, sizeBytes, identity }, grainBytes, runs),
    ...runs.flatMap((run) => unitSegments(run.firstUnit, run.unitCount, grainBytes, sizeBytes)),
  ]);
  return [{ name: fileName, map }];
}

/** All of a sparse file before its first grain. */
export function sparseHead(facts: DescriptorFacts, grainBytes: number, runs: readonly AllocatedRun[]): Segment[] {
  const placement = place(facts.sizeBytes, grainBytes);
  const copyEnd = placement.directory + placement.directory - placement.redundantDirectory;
  return [
    { kind: 'bytes', bytes: headBytes(facts, grainBytes, placement) },
    grainDirectory(placement.redundantDirectory, placement),
    grainTables(placement, grainBytes, runs),
    grainDirectory(placement.directory, placement),
    grainTables(placement, grainBytes, runs),
    { kind: 'zeros', lengthBytes: (placement.overHead - copyEnd) * sectorBytes },
  ];
}

function sparseFileBytes(sizeBytes: number, grainBytes: number, grains: number): number {
  return place(sizeBytes, grainBytes).overHead * sectorBytes + grains * grainBytes;
}

/** The header and the embedded descriptor. */
function headBytes(facts: DescriptorFacts, grainBytes: number, placement: Placement): Uint8Array {
  const head = new Uint8Array(placement.redundantDirectory * sectorBytes);
  sparseHeader.encode(
    {
      version: 1,
      flags: sparseFlags.lineEndsValid + sparseFlags.redundantTable,
      capacity: BigInt(facts.sizeBytes / sectorBytes),
      grainSize: BigInt(grainBytes / sectorBytes),
      descriptorOffset: BigInt(descriptorStartSectors),
      descriptorSize: BigInt(descriptorSectors),
      numGTEsPerGT: entriesPerTable,
      rgdOffset: BigInt(placement.redundantDirectory),
      gdOffset: BigInt(placement.directory),
      overHead: BigInt(placement.overHead),
      uncleanShutdown: 0,
      compressAlgorithm: 0,
    },
    head,
  );
  const descriptor = encodeDescriptor(facts);
  assert(descriptor.length <= descriptorSectors * sectorBytes, 'a descriptor is longer than its place');
  head.set(descriptor, descriptorStartSectors * sectorBytes);
  return head;
}

/** The directory at sector `start`: the sectors of the tables right behind it. */
function grainDirectory(start: number, placement: Placement): Segment {
  return computedTable(placement.directorySectors * sectorBytes, entryBytes, (view, first, count) => {
    const end = Math.min(first + count, placement.grainTables);
    for (let table = first; table < end; table++) {
      view.setUint32((table - first) * entryBytes, start + placement.directorySectors + table * tableSectors, true);
    }
  });
}

/** All grain tables: the tables lie behind each other, so that entry n of them all is grain n. */
function grainTables(placement: Placement, grainBytes: number, runs: readonly AllocatedRun[]): Segment {
  const grainSectors = grainBytes / sectorBytes;
  const lengthBytes = placement.grainTables * tableSectors * sectorBytes;
  if (runs.length === 0) return { kind: 'zeros', lengthBytes };
  return computedTable(lengthBytes, entryBytes, (view, first, count) => {
    visitAllocated(runs, first, count, (grain, rank) => {
      view.setUint32((grain - first) * entryBytes, placement.overHead + rank * grainSectors, true);
    });
  });
}
