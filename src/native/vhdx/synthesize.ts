/**
 * VHDX files made on the fly: `plan` chooses a geometry, `synthesize` turns it into a segment map. Pure and deterministic.
 *
 * Fixed: every payload block lies at its arithmetic place, so that the disk is one segment. Dynamic: the blocks that may hold data
 * lie packed in guest order, one segment for each run. The BAT is made when it is read: at 64 TiB in blocks of 1 MiB it has 512 MiB.
 */
import { assert, CapacityError, FormatError, UnsupportedError, UsageError } from '../../base/errors.ts';
import { alignUp, isPowerOfTwo } from '../../base/ranges.ts';
import { formatBytes, KiB, MiB } from '../../base/units.ts';
import { sealCrc32c } from '../../bytes/checksum.ts';
import { namedGuid, nilGuid } from '../../bytes/guid.ts';
import { allocatedCount, decodeRuns, encodeRuns, runAtOrAfter, type AllocatedRun } from '../allocation.ts';
import type { DiskFacts, NativeFormat, PlanOptions } from '../format.ts';
import { SegmentMap, type Segment } from '../segment-map.ts';
import {
  batEntryBytes,
  batEntryCount,
  batOffset,
  guardBytes,
  batRegionBytes,
  batRegionId,
  chunkRatio,
  fileParameters,
  fileTypeIdentifier,
  header,
  headerBytes,
  headerOffsets,
  leaveBlocksAllocated,
  logBytes,
  logOffset,
  maxPayloadBlockBytes,
  maxVirtualBytes,
  metadataBytes,
  metadataIsRequired,
  metadataIsVirtualDisk,
  metadataItems,
  metadataOffset,
  metadataRegionId,
  metadataTableBytes,
  metadataTableEntry,
  metadataTableHeader,
  minPayloadBlockBytes,
  payloadBlockAt,
  payloadBlockCount,
  payloadState,
  putBatEntry,
  regionTableBytes,
  regionTableEntry,
  regionTableHeader,
  regionTableOffsets,
  sectorSize,
  sectorSizes,
  virtualDiskIdItem,
  virtualDiskSize,
  type BlockGeometry,
  type VhdxGeometry,
} from './layout.ts';

/**
 * Both layouts: what Hyper-V itself writes. A fixed file's BAT then fits in one MiB up to 4 TiB, and the file reaches past the disk's
 * end by less than one block of zeros; a dynamic file's allocation fits a plugin file up to 10 TiB however scattered the data is.
 */
const defaultPayloadBlockBytes = 32 * MiB;

/** The sequence numbers of header 1 and 2: the second is current, as after Hyper-V's own creation. */
const sequenceNumbers = [1n, 2n] as const;

/**
 * A block that is not in the file. Of the states that mean so only this one promises zeros (2.5.1.1); for 0, which Hyper-V gives new
 * blocks, a reader may return anything.
 */
const absentState = payloadState.zero;

const layouts = ['fixed', 'dynamic'] as const;

export const vhdx: NativeFormat<VhdxGeometry> = {
  name: 'vhdx',
  extensions: ['vhdx'],
  layouts,
  plan,
  synthesize(geometry, fileName) {
    return [{ name: fileName, map: synthesize(geometry) }];
  },
};

function plan(disk: DiskFacts, options: PlanOptions): VhdxGeometry {
  const layout = layouts.find((name) => name === (options.layout ?? 'fixed'));
  if (layout === undefined) throw new UsageError(`VHDX has no layout "${options.layout}"; use fixed or dynamic`);
  if (disk.sizeBytes === 0) throw new UsageError('a VHDX needs a disk of at least one sector');
  if (!sectorSizes.includes(disk.logicalSectorBytes)) {
    throw new UnsupportedError(`VHDX has no logical sectors of ${disk.logicalSectorBytes} bytes, only of 512 or 4096`);
  }
  if (alignUp(disk.sizeBytes, disk.logicalSectorBytes) > maxVirtualBytes) {
    throw new CapacityError(
      `a VHDX holds at most ${formatBytes(maxVirtualBytes)}; this disk has ${formatBytes(disk.sizeBytes)}`,
    );
  }
  const blockBytes = options.unitBytes ?? defaultPayloadBlockBytes;
  if (!isPayloadBlockSize(blockBytes)) {
    throw new UsageError(`a VHDX payload block is a power of two from 1 MiB to 256 MiB, not ${blockBytes} bytes`);
  }
  const geometry: VhdxGeometry = {
    format: 'vhdx',
    layout,
    sizeBytes: disk.sizeBytes,
    logicalSectorBytes: disk.logicalSectorBytes,
    // Only a hint to the guest, which the format can give as 512 or 4096.
    physicalSectorBytes: Math.max(disk.logicalSectorBytes, disk.physicalSectorBytes) >= 4096 ? 4096 : 512,
    payloadBlockBytes: blockBytes,
    fileWriteGuid: namedGuid(disk.identity, 'vhdx file write'),
    dataWriteGuid: namedGuid(disk.identity, 'vhdx data write'),
    virtualDiskId: namedGuid(disk.identity, 'vhdx virtual disk'),
  };
  return layout === 'fixed' ? geometry : withAllocation(geometry, disk, options.unitBytes === undefined);
}

/** Doubles the payload blocks, where that is free to us, until the allocation fits a plugin file. */
function withAllocation(geometry: VhdxGeometry, disk: DiskFacts, mayStepUp: boolean): VhdxGeometry {
  for (let blockBytes = geometry.payloadBlockBytes; ; blockBytes *= 2) {
    const sized = { ...geometry, payloadBlockBytes: blockBytes };
    try {
      return { ...sized, allocation: encodeRuns(disk.allocatedRuns(blockBytes), payloadBlockCount(blocksOf(sized))) };
    } catch (error) {
      if (!(error instanceof CapacityError) || !mayStepUp || blockBytes >= maxPayloadBlockBytes) throw error;
    }
  }
}

function synthesize(geometry: VhdxGeometry): SegmentMap {
  checkGeometry(geometry);
  const blocks = blocksOf(geometry);
  const blockCount = payloadBlockCount(blocks);
  const batBytes = batRegionBytes(batEntryCount(blocks, false));
  const payloadOffset = batOffset + batBytes + guardBytes;
  const runs = allocatedBlocks(geometry, blockCount);
  const pieces = new SegmentList();

  pieces.bytesAt(0, fileTypeIdentifier.encode({ creator: 'Veneer' }));
  for (const [index, at] of headerOffsets.entries())
    pieces.bytesAt(at, encodeHeader(geometry, sequenceNumbers[index] ?? 0n));
  const regionTable = encodeRegionTable(batBytes);
  for (const at of regionTableOffsets) pieces.bytesAt(at, regionTable);
  pieces.zerosTo(logOffset + logBytes); // An empty log is all zeros, and its header's LogGuid nil (2.3).
  const items = encodeMetadataItems(geometry, blocks);
  pieces.bytesAt(metadataOffset, items.table);
  pieces.bytesAt(metadataOffset + metadataTableBytes, items.contents);
  pieces.zerosTo(batOffset);
  pieces.add({ kind: 'computed', lengthBytes: batBytes, fill: batFiller(blocks, runs, payloadOffset) });
  pieces.zerosTo(payloadOffset);
  for (const run of runs) {
    const start = run.firstUnit * geometry.payloadBlockBytes;
    const lengthBytes = run.unitCount * geometry.payloadBlockBytes;
    // Only in the file's last block does the disk end first.
    const diskBytes = Math.min(lengthBytes, geometry.sizeBytes - start);
    pieces.add({ kind: 'disk', lengthBytes: diskBytes, diskOffset: start });
    pieces.add({ kind: 'zeros', lengthBytes: lengthBytes - diskBytes });
  }
  return new SegmentMap(pieces.segments);
}

function blocksOf(geometry: VhdxGeometry): BlockGeometry {
  const { logicalSectorBytes, payloadBlockBytes } = geometry;
  return { virtualBytes: alignUp(geometry.sizeBytes, logicalSectorBytes), logicalSectorBytes, payloadBlockBytes };
}

function allocatedBlocks(geometry: VhdxGeometry, blockCount: number): readonly AllocatedRun[] {
  if (geometry.layout === 'fixed') return [{ firstUnit: 0, unitCount: blockCount, rank: 0 }];
  const runs = decodeRuns(geometry.allocation ?? '', blockCount);
  assert(allocatedCount(runs) <= blockCount, 'more payload blocks are allocated than there are');
  return runs;
}

/** A plugin file may have been edited: nothing in it is trusted. */
function checkGeometry(geometry: VhdxGeometry): void {
  const { sizeBytes, logicalSectorBytes, physicalSectorBytes, payloadBlockBytes, layout, allocation } = geometry;
  const reject = (field: string, detail: string): never => {
    throw new FormatError('VHDX geometry', field, 0, detail);
  };
  if (!layouts.includes(layout)) reject('layout', `"${layout}" is not one of ${layouts.join(', ')}`);
  if (!sectorSizes.includes(logicalSectorBytes))
    reject('logicalSectorBytes', `${logicalSectorBytes} is not 512 or 4096`);
  if (!sectorSizes.includes(physicalSectorBytes))
    reject('physicalSectorBytes', `${physicalSectorBytes} is not 512 or 4096`);
  if (!isPayloadBlockSize(payloadBlockBytes)) {
    reject('payloadBlockBytes', `${payloadBlockBytes} is not a power of two from 1 MiB to 256 MiB`);
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes > maxVirtualBytes) {
    reject('sizeBytes', `${sizeBytes} is not between 1 and ${maxVirtualBytes}`);
  }
  if ((layout === 'dynamic') !== (allocation !== undefined)) {
    reject('allocation', `a ${layout} file ${layout === 'dynamic' ? 'needs one' : 'has none'}`);
  }
}

function isPayloadBlockSize(bytes: number): boolean {
  return isPowerOfTwo(bytes) && bytes >= minPayloadBlockBytes && bytes <= maxPayloadBlockBytes;
}

function encodeHeader(geometry: VhdxGeometry, sequenceNumber: bigint): Uint8Array {
  const encoded = header.encode({
    checksum: 0,
    sequenceNumber,
    fileWriteGuid: geometry.fileWriteGuid,
    dataWriteGuid: geometry.dataWriteGuid,
    logGuid: nilGuid,
    logVersion: 0,
    version: 1,
    logLengthBytes: logBytes,
    logOffset: BigInt(logOffset),
  });
  assert(encoded.length === headerBytes, 'a VHDX header has another size');
  return sealCrc32c(encoded, header.offsetOf('checksum'));
}

/** The checksum covers all 64 KiB; only the part that is not zero is kept. */
function encodeRegionTable(batBytes: number): Uint8Array {
  const regions = [
    { regionId: batRegionId, fileOffset: BigInt(batOffset), lengthBytes: batBytes, required: 1 },
    { regionId: metadataRegionId, fileOffset: BigInt(metadataOffset), lengthBytes: metadataBytes, required: 1 },
  ];
  const table = new Uint8Array(regionTableBytes);
  regionTableHeader.encode({ checksum: 0, entryCount: regions.length }, table);
  for (const [index, region] of regions.entries()) {
    regionTableEntry.encode(region, table, regionTableHeader.sizeBytes + index * regionTableEntry.sizeBytes);
  }
  return sealCrc32c(table, regionTableHeader.offsetOf('checksum')).slice(0, 4 * KiB);
}

/** The metadata table and its items, in Hyper-V's order and without gaps between them. */
function encodeMetadataItems(
  geometry: VhdxGeometry,
  blocks: BlockGeometry,
): { table: Uint8Array; contents: Uint8Array } {
  const ofFile = metadataIsRequired;
  const ofDisk = metadataIsRequired + metadataIsVirtualDisk;
  const flags = geometry.layout === 'fixed' ? leaveBlocksAllocated : 0;
  const items = [
    [metadataItems.fileParameters, ofFile, fileParameters.encode({ blockBytes: geometry.payloadBlockBytes, flags })],
    [metadataItems.virtualDiskSize, ofDisk, virtualDiskSize.encode({ sizeBytes: BigInt(blocks.virtualBytes) })],
    [metadataItems.logicalSectorSize, ofDisk, sectorSize.encode({ sizeBytes: geometry.logicalSectorBytes })],
    [metadataItems.physicalSectorSize, ofDisk, sectorSize.encode({ sizeBytes: geometry.physicalSectorBytes })],
    [metadataItems.virtualDiskId, ofDisk, virtualDiskIdItem.encode({ id: geometry.virtualDiskId })],
  ] as const;
  const table = metadataTableHeader.encode({ entryCount: items.length }, new Uint8Array(4 * KiB));
  const contents = new Uint8Array(4 * KiB);
  let at = 0;
  for (const [index, [itemId, itemFlags, item]] of items.entries()) {
    const entry = { itemId, offset: metadataTableBytes + at, lengthBytes: item.length, flags: itemFlags };
    metadataTableEntry.encode(entry, table, metadataTableHeader.sizeBytes + index * metadataTableEntry.sizeBytes);
    contents.set(item, at);
    at += item.length;
  }
  return { table, contents };
}

/** Fills any byte range of the BAT from arithmetic and the runs: cost goes with the range, not with the table. */
function batFiller(blocks: BlockGeometry, runs: readonly AllocatedRun[], payloadOffset: number) {
  const ratio = chunkRatio(blocks);
  const blockCount = payloadBlockCount(blocks);
  let run: AllocatedRun | undefined;

  const putEntry = (view: DataView, at: number, index: number): void => {
    const block = payloadBlockAt(index, ratio);
    if (block === undefined || block >= blockCount) return putBatEntry(view, at, 0, 0);
    // Entries are asked for in ascending order within one read: most lie in the run of the one before.
    if (run === undefined || block < run.firstUnit || block >= run.firstUnit + run.unitCount)
      run = runAtOrAfter(runs, block);
    if (run === undefined || block < run.firstUnit) return putBatEntry(view, at, absentState, 0);
    const rank = run.rank + (block - run.firstUnit);
    putBatEntry(view, at, payloadState.fullyPresent, payloadOffset + rank * blocks.payloadBlockBytes);
  };

  return (target: Uint8Array, offset: number): void => {
    const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
    const end = offset + target.length;
    const scratch = new Uint8Array(batEntryBytes);
    const scratchView = new DataView(scratch.buffer);
    for (let index = Math.floor(offset / batEntryBytes); index * batEntryBytes < end; index++) {
      const at = index * batEntryBytes - offset;
      if (at >= 0 && at + batEntryBytes <= target.length) {
        putEntry(view, at, index);
        continue;
      }
      // The range begins or ends within an entry.
      putEntry(scratchView, 0, index);
      const from = Math.max(at, 0);
      target.set(scratch.subarray(from - at, Math.min(at + batEntryBytes, target.length) - at), from);
    }
  };
}

/** Segments in file order, zeros where nothing else is placed. */
class SegmentList {
  readonly segments: Segment[] = [];
  #end = 0;

  add(segment: Segment): void {
    this.segments.push(segment);
    this.#end += segment.kind === 'bytes' ? segment.bytes.length : segment.lengthBytes;
  }

  zerosTo(offset: number): void {
    assert(offset >= this.#end, 'two parts of a VHDX overlap');
    this.add({ kind: 'zeros', lengthBytes: offset - this.#end });
  }

  bytesAt(offset: number, bytes: Uint8Array): void {
    this.zerosTo(offset);
    this.add({ kind: 'bytes', bytes });
  }
}
