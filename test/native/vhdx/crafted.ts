/** VHDX files in memory, changed byte by byte: differencing ones, dirty logs, broken fields. Built with the declared structures. */
import { MiB } from '../../../src/base/units.ts';
import { sealCrc32c } from '../../../src/bytes/checksum.ts';
import type { Guid } from '../../../src/bytes/guid.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import {
  batIndexOfBitmap,
  batIndexOfPayload,
  batOffset,
  chunkRatio,
  fileParameters,
  header,
  headerBytes,
  headerOffsets,
  logOffset,
  metadataIsRequired,
  metadataItems,
  metadataOffset,
  metadataTableBytes,
  metadataTableEntry,
  metadataTableHeader,
  parentLocatorEntry,
  parentLocatorHeader,
  payloadState,
  putBatEntry,
  regionTableBytes,
  regionTableHeader,
  regionTableOffsets,
  vhdxLocatorType,
  type Header,
} from '../../../src/native/vhdx/layout.ts';
import {
  descriptorSectors,
  logDataDescriptor,
  logDataSector,
  logDescriptorBytes,
  logEntryHeader,
  logSectorBytes,
  logZeroDescriptor,
} from '../../../src/native/vhdx/log.ts';
import { vhdx } from '../../../src/native/vhdx/format.ts';
import { factsOf } from './disk-file.ts';

const unitBytes = MiB;
const ratio = chunkRatio({ logicalSectorBytes: 512, payloadBlockBytes: unitBytes });
const logGuid: Guid = '11111111-2222-4333-8444-555555555555';

/** All bytes of the file that `vhdx` synthesizes over a disk, in payload blocks of 1 MiB. */
export function synthesized(disk: Disk, layout: 'fixed' | 'dynamic', identity?: Guid): Buffer {
  const facts = identity === undefined ? factsOf(disk) : { ...factsOf(disk), identity };
  const [file] = vhdx.synthesize(vhdx.plan(facts, { layout, unitBytes }), 'disk.vhdx');
  if (file === undefined) throw new Error('no file');
  const bytes = Buffer.alloc(file.map.sizeBytes);
  file.map.read(bytes, 0, () => disk);
  return bytes;
}

/** Changes fields of both headers and seals them again. */
export function editHeaders(file: Buffer, edit: (parsed: Header, index: number) => Partial<Header>): void {
  for (const [index, at] of headerOffsets.entries()) {
    const parsed = header.parse(file, at);
    header.encode({ ...parsed, ...edit(parsed, index) }, file, at);
    sealCrc32c(file.subarray(at, at + headerBytes), header.offsetOf('checksum'));
  }
}

/** Gives headers and region tables checksums that fit their bytes. */
export function reseal(file: Buffer): void {
  for (const at of headerOffsets) sealCrc32c(file.subarray(at, at + headerBytes), header.offsetOf('checksum'));
  for (const at of regionTableOffsets) {
    sealCrc32c(file.subarray(at, at + regionTableBytes), regionTableHeader.offsetOf('checksum'));
  }
}

export function setPayloadEntry(file: Buffer, block: number, state: number, offset: number): void {
  putBatEntry(viewOf(file), batOffset + batIndexOfPayload(block, ratio) * 8, state, offset);
}

export function setBitmapEntry(file: Buffer, chunk: number, state: number, offset: number): void {
  putBatEntry(viewOf(file), batOffset + batIndexOfBitmap(chunk, ratio) * 8, state, offset);
}

function viewOf(file: Buffer): DataView {
  return new DataView(file.buffer, file.byteOffset, file.byteLength);
}

/** Adds one metadata item behind those that are there. */
export function addMetadataItem(file: Buffer, itemId: Guid, flags: number, contents: Uint8Array): void {
  const { entryCount } = metadataTableHeader.parse(file, metadataOffset);
  metadataTableHeader.encode({ entryCount: entryCount + 1 }, file, metadataOffset);
  const offset = metadataTableBytes + 4096 * entryCount;
  const at = metadataOffset + metadataTableHeader.sizeBytes + entryCount * metadataTableEntry.sizeBytes;
  metadataTableEntry.encode({ itemId, offset, lengthBytes: contents.length, flags }, file, at);
  file.set(contents, metadataOffset + offset);
}

/** 2.6.2.6, as Hyper-V writes it. */
export function encodeParentLocator(
  entries: Readonly<Record<string, string>>,
  locatorType = vhdxLocatorType,
): Uint8Array {
  const list = Object.entries(entries);
  const texts = Buffer.alloc(4096);
  let end = parentLocatorHeader.sizeBytes + list.length * parentLocatorEntry.sizeBytes;
  parentLocatorHeader.encode({ locatorType, keyValueCount: list.length }, texts);
  const place = (text: string): { offset: number; length: number } => {
    const offset = end;
    const length = texts.write(text, offset, 'utf16le');
    end += length;
    return { offset, length };
  };
  for (const [index, [key, value]] of list.entries()) {
    const [k, v] = [place(key), place(value)];
    const entry = { keyOffset: k.offset, keyLengthBytes: k.length, valueOffset: v.offset, valueLengthBytes: v.length };
    parentLocatorEntry.encode(entry, texts, parentLocatorHeader.sizeBytes + index * parentLocatorEntry.sizeBytes);
  }
  return texts.subarray(0, end);
}

export interface ChildBlock {
  readonly block: number;
  readonly contents: Buffer;
  /** Sectors of the block that are in the child; all of them when absent. */
  readonly sectors?: readonly number[];
}

/** A differencing file over a parent with that DataWriteGuid. */
export function differencing(
  disk: Disk,
  options: { parentLinkage: Guid; parentPath: string; blocks: readonly ChildBlock[]; identity: Guid },
): Buffer {
  const empty = synthesized(
    { ...disk, extents: () => [{ offset: 0, length: disk.sizeBytes, kind: 'zero' }] },
    'dynamic',
    options.identity,
  );
  const bitmapOffset = empty.length;
  const file = Buffer.concat([empty, Buffer.alloc(MiB + options.blocks.length * unitBytes)]);
  const parameters = fileParameters.parse(file, metadataOffset + metadataTableBytes);
  fileParameters.encode({ ...parameters, flags: 2 }, file, metadataOffset + metadataTableBytes);
  const locator = encodeParentLocator({
    parent_linkage: `{${options.parentLinkage}}`,
    parent_linkage2: '{00000000-0000-0000-0000-000000000000}',
    relative_path: options.parentPath,
    absolute_win32_path: `C:\\${options.parentPath}`,
  });
  addMetadataItem(file, metadataItems.parentLocator, metadataIsRequired, locator);
  for (let block = 0; block * unitBytes < disk.sizeBytes; block++)
    setPayloadEntry(file, block, payloadState.notPresent, 0);
  setBitmapEntry(file, 0, 6, bitmapOffset);
  for (const [index, { block, contents, sectors }] of options.blocks.entries()) {
    const offset = bitmapOffset + MiB + index * unitBytes;
    file.set(contents, offset);
    setPayloadEntry(
      file,
      block,
      sectors === undefined ? payloadState.fullyPresent : payloadState.partiallyPresent,
      offset,
    );
    for (const sector of sectors ?? []) {
      const at = bitmapOffset + block * (unitBytes / 512 / 8) + Math.floor(sector / 8);
      file.writeUInt8(file.readUInt8(at) | (1 << (sector % 8)), at);
    }
  }
  return file;
}

export type LogWrite =
  { readonly offset: number; readonly data: Uint8Array } | { readonly offset: number; readonly zeroBytes: number };

export interface EntryOptions {
  readonly sequenceNumber: bigint;
  /** Offset in the log of the first entry that is needed. */
  readonly tail: number;
  readonly writes: readonly LogWrite[];
  readonly flushedFileOffset: number;
  readonly lastFileOffset?: number;
}

/** 2.3.1: a whole entry, sealed. */
export function encodeLogEntry(options: EntryOptions): Buffer {
  const { sequenceNumber, writes } = options;
  const dataCount = writes.filter((write) => 'data' in write).length;
  let dataAt = descriptorSectors(writes.length) * logSectorBytes;
  const entry = Buffer.alloc(dataAt + dataCount * logSectorBytes);
  const entryHeader = {
    checksum: 0,
    entryBytes: entry.length,
    tail: options.tail,
    sequenceNumber,
    descriptorCount: writes.length,
    logGuid,
    flushedFileOffset: BigInt(options.flushedFileOffset),
    lastFileOffset: BigInt(options.lastFileOffset ?? options.flushedFileOffset),
  };
  logEntryHeader.encode(entryHeader, entry);
  for (const [index, write] of writes.entries()) {
    const at = logEntryHeader.sizeBytes + index * logDescriptorBytes;
    const fileOffset = BigInt(write.offset);
    if ('zeroBytes' in write) {
      logZeroDescriptor.encode({ zeroBytes: BigInt(write.zeroBytes), fileOffset, sequenceNumber }, entry, at);
      continue;
    }
    const [leadingBytes, data, trailingBytes] = [
      write.data.slice(0, 8),
      write.data.slice(8, 4092),
      write.data.slice(4092),
    ];
    logDataDescriptor.encode({ leadingBytes, trailingBytes, fileOffset, sequenceNumber }, entry, at);
    const [sequenceHigh, sequenceLow] = [Number(sequenceNumber / 2n ** 32n), Number(sequenceNumber % 2n ** 32n)];
    logDataSector.encode({ data, sequenceHigh, sequenceLow }, entry, dataAt);
    dataAt += logSectorBytes;
  }
  sealCrc32c(entry, logEntryHeader.offsetOf('checksum'));
  return entry;
}

/** Puts an entry into the log, around its end where it does not fit; returns where the next one belongs. */
export function putLogEntry(file: Buffer, at: number, entry: Buffer): number {
  const room = Math.min(entry.length, MiB - at);
  entry.copy(file, logOffset + at, 0, room);
  entry.copy(file, logOffset, room);
  return (at + entry.length) % MiB;
}

/** Marks the log as one that must be replayed. */
export function makeDirty(file: Buffer): void {
  editHeaders(file, () => ({ logGuid }));
}
