/** All that stands before the BAT of a VHDX of ours: file type identifier, headers, region tables, an empty log, the metadata. */
import { assert } from '../../base/errors.ts';
import { KiB } from '../../base/units.ts';
import { sealCrc32c } from '../../bytes/checksum.ts';
import { nilGuid, type Guid } from '../../bytes/guid.ts';
import type { Segment } from '../segment-map.ts';
import {
  batOffset,
  batRegionId,
  fileParameters,
  fileTypeIdentifier,
  header,
  headerBytes,
  headerOffsets,
  logBytes,
  logOffset,
  metadataBytes,
  metadataIsRequired,
  metadataIsVirtualDisk,
  metadataItems,
  metadataOffset,
  metadataRegionId,
  metadataTableBytes,
  metadataTableEntry,
  metadataTableHeader,
  regionTableBytes,
  regionTableEntry,
  regionTableHeader,
  regionTableOffsets,
  sectorSize,
  virtualDiskIdItem,
  virtualDiskSize,
  type BlockGeometry,
} from './layout.ts';

/** The sequence numbers of header 1 and 2: the second is current, as after Hyper-V's own creation. */
const sequenceNumbers = [1n, 2n] as const;

/** Header and region table, metadata table and metadata items: of each only as much is kept as is not zero. */
const keptBytes = 4 * KiB;

export interface HeadFacts extends BlockGeometry {
  readonly physicalSectorBytes: number;
  readonly fileWriteGuid: Guid;
  readonly dataWriteGuid: Guid;
  readonly virtualDiskId: Guid;
  /** Of the item "file parameters". */
  readonly parameterFlags: number;
  /** Of a differencing file. */
  readonly parentLocator?: Uint8Array;
}

/** The file up to its BAT, which follows with `batBytes`. */
export function encodeHead(facts: HeadFacts, batBytes: number): SegmentList {
  const pieces = new SegmentList();
  pieces.bytesAt(0, fileTypeIdentifier.encode({ creator: 'Veneer' }));
  for (const [index, at] of headerOffsets.entries())
    pieces.bytesAt(at, encodeHeader(facts, sequenceNumbers[index] ?? 0n));
  const regionTable = encodeRegionTable(batBytes);
  for (const at of regionTableOffsets) pieces.bytesAt(at, regionTable);
  pieces.zerosTo(logOffset + logBytes); // An empty log is all zeros, and its header's LogGuid nil (2.3).
  const items = encodeMetadataItems(facts);
  pieces.bytesAt(metadataOffset, items.table);
  pieces.bytesAt(metadataOffset + metadataTableBytes, items.contents);
  pieces.zerosTo(batOffset);
  return pieces;
}

function encodeHeader(facts: HeadFacts, sequenceNumber: bigint): Uint8Array {
  const encoded = header.encode({
    checksum: 0,
    sequenceNumber,
    fileWriteGuid: facts.fileWriteGuid,
    dataWriteGuid: facts.dataWriteGuid,
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
  return sealCrc32c(table, regionTableHeader.offsetOf('checksum')).slice(0, keptBytes);
}

/** The metadata table and its items, in Hyper-V's order and without gaps between them. */
function encodeMetadataItems(facts: HeadFacts): { table: Uint8Array; contents: Uint8Array } {
  const { payloadBlockBytes, parameterFlags, virtualBytes, parentLocator } = facts;
  const ofFile = metadataIsRequired;
  const ofDisk = metadataIsRequired + metadataIsVirtualDisk;
  const items: Array<readonly [Guid, number, Uint8Array]> = [
    [
      metadataItems.fileParameters,
      ofFile,
      fileParameters.encode({ blockBytes: payloadBlockBytes, flags: parameterFlags }),
    ],
    [metadataItems.virtualDiskSize, ofDisk, virtualDiskSize.encode({ sizeBytes: BigInt(virtualBytes) })],
    [metadataItems.logicalSectorSize, ofDisk, sectorSize.encode({ sizeBytes: facts.logicalSectorBytes })],
    [metadataItems.physicalSectorSize, ofDisk, sectorSize.encode({ sizeBytes: facts.physicalSectorBytes })],
    [metadataItems.virtualDiskId, ofDisk, virtualDiskIdItem.encode({ id: facts.virtualDiskId })],
  ];
  if (parentLocator !== undefined) items.push([metadataItems.parentLocator, ofFile, parentLocator]);
  const table = metadataTableHeader.encode({ entryCount: items.length }, new Uint8Array(keptBytes));
  const contents = new Uint8Array(keptBytes);
  let at = 0;
  for (const [index, [itemId, itemFlags, item]] of items.entries()) {
    const entry = { itemId, offset: metadataTableBytes + at, lengthBytes: item.length, flags: itemFlags };
    metadataTableEntry.encode(entry, table, metadataTableHeader.sizeBytes + index * metadataTableEntry.sizeBytes);
    contents.set(item, at);
    at += item.length;
  }
  return { table, contents };
}

/** Segments in file order, zeros where nothing else is placed. */
export class SegmentList {
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
