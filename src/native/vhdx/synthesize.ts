/**
 * VHDX files made on the fly: `plan` chooses a geometry, `synthesize` turns it into a segment map. Pure and deterministic.
 *
 * Fixed: every payload block lies at its arithmetic place, so that the disk is one segment. Dynamic: the blocks that may hold data
 * lie packed in guest order, one segment for each run. The BAT is made when it is read: at 64 TiB in blocks of 1 MiB it has 512 MiB.
 */
import { UsageError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import { namedGuid } from '../../bytes/guid.ts';
import type { AllocatedRun } from '../allocation.ts';
import { computedTable } from '../computed-table.ts';
import type { DiskFacts, NativeFile, PlanOptions } from '../format.ts';
import { checkGeometry, checkGeometrySize, chooseLayout, chosenUnit } from '../geometry.ts';
import { planGrowing, plannedRuns, unitSegments, visitAllocated } from '../growing.ts';
import { SegmentMap, type Segment } from '../segment-map.ts';
import { encodeHead } from './encode.ts';
import {
  batEntryBytes,
  batEntryCount,
  batIndexOfPayload,
  batOffset,
  guardBytes,
  batRegionBytes,
  blocksOf,
  chunkRatio,
  leaveBlocksAllocated,
  maxVirtualBytes,
  payloadBlockAt,
  payloadBlockCount,
  payloadBlockSizes,
  payloadState,
  putBatEntry,
  sectorSizes,
  type BlockGeometry,
  type VhdxGeometry,
} from './layout.ts';

/**
 * Both layouts: what Hyper-V itself writes. A fixed file's BAT then fits in one MiB up to 4 TiB, and the file reaches past the disk's
 * end by less than one block of zeros; a dynamic file's allocation fits a plugin file up to 10 TiB however scattered the data is.
 */
const defaultPayloadBlockBytes = 32 * MiB;

/**
 * A block that is not in the file. Of the states that mean so only this one promises zeros (2.5.1.1); for 0, which Hyper-V gives new
 * blocks, a reader may return anything.
 */
const absentState = payloadState.zero;

export const layouts = ['fixed', 'dynamic'] as const;

export function plan(disk: DiskFacts, options: PlanOptions): VhdxGeometry {
  const layout = chooseLayout({ name: 'vhdx', layouts }, disk, options, maxVirtualBytes);
  if (!sectorSizes.includes(disk.logicalSectorBytes)) {
    throw new UsageError(`vhdx has no sectors of ${disk.logicalSectorBytes} bytes, only of ${sectorSizes.join(', ')}`);
  }
  const chosen = chosenUnit('vhdx', 'payload blocks', options, payloadBlockSizes);
  const facts = {
    format: 'vhdx',
    layout,
    sizeBytes: disk.sizeBytes,
    logicalSectorBytes: disk.logicalSectorBytes,
    // Only a hint to the guest, which the format can give as 512 or 4096.
    physicalSectorBytes: Math.max(disk.logicalSectorBytes, disk.physicalSectorBytes) >= 4096 ? 4096 : 512,
    fileWriteGuid: namedGuid(disk.identity, 'vhdx file write'),
    dataWriteGuid: namedGuid(disk.identity, 'vhdx data write'),
    virtualDiskId: namedGuid(disk.identity, 'vhdx virtual disk'),
  } as const;
  if (layout === 'fixed') return { ...facts, payloadBlockBytes: chosen ?? defaultPayloadBlockBytes };
  const larger = payloadBlockSizes.filter((size) => size >= defaultPayloadBlockBytes);
  const { unitBytes, allocation } = planGrowing(disk, chosen === undefined ? larger : [chosen]);
  return { ...facts, payloadBlockBytes: unitBytes, allocation };
}

export function synthesize(geometry: VhdxGeometry, fileName: string): readonly NativeFile[] {
  return [{ name: fileName, map: mapOf(geometry) }];
}

function mapOf(geometry: VhdxGeometry): SegmentMap {
  checkFields(geometry);
  const blocks = blocksOf(geometry);
  const blockCount = payloadBlockCount(blocks);
  const batBytes = batRegionBytes(batEntryCount(blocks, false));
  const payloadOffset = batOffset + batBytes + guardBytes;
  const runs = allocatedBlocks(geometry, blockCount);
  const parameterFlags = geometry.layout === 'fixed' ? leaveBlocksAllocated : 0;
  const pieces = encodeHead({ ...geometry, ...blocks, parameterFlags }, batBytes);
  pieces.add(batTable(batBytes, blocks, runs, payloadOffset));
  pieces.zerosTo(payloadOffset);
  for (const run of runs) {
    const segments = unitSegments(run.firstUnit, run.unitCount, geometry.payloadBlockBytes, geometry.sizeBytes);
    for (const segment of segments) pieces.add(segment);
  }
  return new SegmentMap(pieces.segments);
}

function allocatedBlocks(geometry: VhdxGeometry, blockCount: number): readonly AllocatedRun[] {
  if (geometry.allocation === undefined) return [{ firstUnit: 0, unitCount: blockCount, rank: 0 }];
  return plannedRuns('vhdx', geometry.allocation, blockCount);
}

/** A plugin file may have been edited: nothing in it is trusted. */
function checkFields(geometry: VhdxGeometry): void {
  const { sizeBytes, logicalSectorBytes, physicalSectorBytes, payloadBlockBytes, layout, allocation } = geometry;
  const check = (field: string, holds: boolean, rule: string): void => checkGeometry('vhdx', field, holds, rule);
  check('layout', layouts.includes(layout), `"${layout}" is not a layout of it`);
  checkGeometrySize('vhdx', sizeBytes, maxVirtualBytes);
  check('logicalSectorBytes', sectorSizes.includes(logicalSectorBytes), `${logicalSectorBytes} is not 512 or 4096`);
  check('physicalSectorBytes', sectorSizes.includes(physicalSectorBytes), `${physicalSectorBytes} is not 512 or 4096`);
  const isBlockSize = payloadBlockSizes.includes(payloadBlockBytes);
  check('payloadBlockBytes', isBlockSize, `${payloadBlockBytes} is not a power of two from 1 MiB to 256 MiB`);
  const isComplete = (layout === 'dynamic') === (allocation !== undefined);
  check('allocation', isComplete, 'belongs to the dynamic layout, and only to that');
}

/** The BAT, made from arithmetic and the runs where it is read: cost goes with the range, not with the table. */
function batTable(
  lengthBytes: number,
  blocks: BlockGeometry,
  runs: readonly AllocatedRun[],
  payloadOffset: number,
): Segment {
  const ratio = chunkRatio(blocks);
  const blockCount = payloadBlockCount(blocks);
  return computedTable(lengthBytes, batEntryBytes, (view, first, count) => {
    const end = Math.min(first + count, batIndexOfPayload(blockCount - 1, ratio) + 1);
    for (let index = first; index < end; index++) {
      const isPayload = payloadBlockAt(index, ratio) !== undefined;
      if (isPayload) putBatEntry(view, (index - first) * batEntryBytes, absentState, 0);
    }
    // The bitmap entries of the range, if any, do not count as blocks.
    const firstBlock = first - Math.floor(first / (ratio + 1));
    const endBlock = Math.min(blockCount, first + count - Math.floor((first + count) / (ratio + 1)));
    visitAllocated(runs, firstBlock, Math.max(0, endBlock - firstBlock), (block, rank) => {
      const at = (batIndexOfPayload(block, ratio) - first) * batEntryBytes;
      putBatEntry(view, at, payloadState.fullyPresent, payloadOffset + rank * blocks.payloadBlockBytes);
    });
  });
}
