/**
 * The log of a VHDX ([MS-VHDX] 2.3), replayed in memory: a file that its writer did not close reads as it would after a repair, and
 * stays as it is.
 *
 * The log is a ring of sectors of 4 KiB. An entry is a header with descriptors, then one data sector for each data descriptor:
 *
 *     [ header desc desc ... ][ desc ... ]...[ data ][ data ]...
 *
 * Entries that follow each other with ascending sequence numbers form a sequence. The active one is that whose last entry has the
 * highest number and names a member of the sequence as its tail; what it holds from the tail on is replayed. Entries that are torn,
 * or that an earlier use of the log has left, fall out by checksum, GUID and number: they are ignored, as 2.3.2 wants it.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { alignUp, toOffset } from '../../base/ranges.ts';
import { KiB, MiB, TiB } from '../../base/units.ts';
import { crc32cWithoutField } from '../../bytes/checksum.ts';
import type { Guid } from '../../bytes/guid.ts';
import { ascii, bytes, guid, layout, reserved, u32le, u64le, type Decoded } from '../../bytes/layout.ts';
import type { Disk } from '../../disk/disk.ts';
import { overlaidDisk, type Overlay } from './overlay.ts';

export const logSectorBytes = 4 * KiB;
/** A log is read into memory to be replayed. Hyper-V's and QEMU's have 1 MiB. */
const maxReplayedLogBytes = 16 * MiB;
/** A replay makes no file longer than this: a disk of 64 TiB with its tables, and as much again. */
const maxFileBytes = 128 * TiB;
/** Checksums of entries that turn out invalid cost at most this many times the log, however entries claim to overlap. */
const maxScans = 16;

/** 2.3.1.1 */
export const logEntryHeader = layout('VHDX log entry', 64, {
  signature: ascii(0, 'loge'),
  checksum: u32le(4), // CRC-32C of the whole entry, this field as zero
  entryBytes: u32le(8), // a multiple of 4 KiB
  tail: u32le(12), // offset in the log of the first entry that is still needed
  sequenceNumber: u64le(16), // not zero
  descriptorCount: u32le(24),
  reserved: reserved(28, 4),
  logGuid: guid(32), // equal to the header's, or the entry is of an earlier log
  flushedFileOffset: u64le(48), // the file had at least this size when the entry was written
  lastFileOffset: u64le(56), // the file has at least this size after the replay
});

export const logDescriptorBytes = 32;
/** 2.3.1.2 */
export const logZeroDescriptor = layout('VHDX log zero descriptor', logDescriptorBytes, {
  signature: ascii(0, 'zero'),
  reserved: reserved(4, 4),
  zeroBytes: u64le(8), // a multiple of 4 KiB
  fileOffset: u64le(16), // a multiple of 4 KiB
  sequenceNumber: u64le(24),
});
/** 2.3.1.3 */
export const logDataDescriptor = layout('VHDX log data descriptor', logDescriptorBytes, {
  signature: ascii(0, 'desc'),
  trailingBytes: bytes(4, 4), // the last 4 of the 4 KiB
  leadingBytes: bytes(8, 8), // the first 8
  fileOffset: u64le(16), // a multiple of 4 KiB
  sequenceNumber: u64le(24),
});
/** 2.3.1.4: its own marks stand where the bytes are that the descriptor keeps. */
export const logDataSector = layout('VHDX log data sector', logSectorBytes, {
  signature: ascii(0, 'data'),
  sequenceHigh: u32le(4),
  data: bytes(8, 4084),
  sequenceLow: u32le(4092),
});

type EntryHeader = Decoded<typeof logEntryHeader>;

/** A valid entry: where it lies in the log, and what its descriptors write. */
interface LogEntry {
  readonly header: EntryHeader;
  readonly offset: number;
  readonly writes: readonly Overlay[];
}

/** Where the log lies in the file, and the GUID of the header that counts. */
export interface LogPlace {
  readonly logGuid: Guid;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** A file with its log replayed, and which ranges of it the log has written. */
export interface ReplayedFile {
  readonly disk: Disk;
  readonly replayed: readonly { readonly offset: number; readonly length: number }[];
}

/**
 * The file as it reads after its log has been replayed. Changes nothing on disk; the disk owns `file`.
 * @throws FormatError when the log has no valid sequence, or the file is shorter than the log knows it to be
 * @throws UnsupportedError when the log is larger than 16 MiB
 */
export function replayLog(file: Disk, place: LogPlace): ReplayedFile {
  if (place.lengthBytes > maxReplayedLogBytes) {
    throw new UnsupportedError(
      `a VHDX log of ${place.lengthBytes} bytes must be replayed; at most ${maxReplayedLogBytes} can be`,
    );
  }
  const log = new Uint8Array(place.lengthBytes);
  file.read(log, place.offset);
  const entries = activeSequence(new LogRing(log, place.logGuid));
  const newest = entries.at(-1);
  if (newest === undefined) {
    throw new FormatError(
      'VHDX log',
      'sequence',
      place.offset,
      'no valid entry, though the header says that there is one',
    );
  }
  const at = place.offset + newest.offset;
  if (newest.header.flushedFileOffset > BigInt(file.sizeBytes)) {
    throw new FormatError('VHDX log entry', 'flushedFileOffset', at, 'the file has been truncated since');
  }
  const where = { structure: 'VHDX log entry', field: 'lastFileOffset', offset: at };
  let sizeBytes = Math.max(file.sizeBytes, toOffset(newest.header.lastFileOffset, maxFileBytes, where));
  const writes = entries.flatMap((entry) => entry.writes);
  for (const write of writes) sizeBytes = Math.max(sizeBytes, write.offset + write.lengthBytes);
  // Whole MiB are what the specification writes; QEMU rounds up what is not.
  return {
    disk: overlaidDisk(file, sizeBytes === file.sizeBytes ? sizeBytes : alignUp(sizeBytes, MiB), writes),
    replayed: writes.map(({ offset, lengthBytes }) => ({ offset, length: lengthBytes })),
  };
}

/** 2.3.2: tries each place where a sequence may begin, and keeps the one with the newest end. */
function activeSequence(ring: LogRing): LogEntry[] {
  let best: LogEntry[] = [];
  for (let tail = 0; tail < ring.lengthBytes;) {
    const sequence = ring.sequenceFrom(tail);
    const last = sequence.at(-1);
    if (last === undefined) {
      tail += logSectorBytes;
      continue;
    }
    const first = sequence.findIndex((entry) => entry.offset === last.header.tail);
    const newest = best.at(-1)?.header.sequenceNumber ?? 0n;
    if (first >= 0 && last.header.sequenceNumber > newest) best = sequence.slice(first);
    const end = last.offset + last.header.entryBytes;
    // Where the sequence runs over the end of the ring, every place has been tried.
    if (end >= ring.lengthBytes || end <= tail) break;
    tail = end;
  }
  return best;
}

/** The log's bytes as a ring. */
class LogRing {
  readonly lengthBytes: number;
  readonly #log: Uint8Array;
  readonly #logGuid: Guid;
  #budgetBytes: number;

  constructor(log: Uint8Array, logGuid: Guid) {
    this.#log = log;
    this.#logGuid = logGuid;
    this.lengthBytes = log.length;
    this.#budgetBytes = maxScans * log.length;
  }

  /** The valid entries that follow each other from `tail` on; none when there is no valid entry. At most once around the ring. */
  sequenceFrom(tail: number): LogEntry[] {
    const entries: LogEntry[] = [];
    let takenBytes = 0;
    let expected: bigint | undefined;
    for (;;) {
      const entry = this.#entryAt((tail + takenBytes) % this.lengthBytes);
      if (entry === undefined || (expected !== undefined && entry.header.sequenceNumber !== expected)) return entries;
      takenBytes += entry.header.entryBytes;
      if (takenBytes > this.lengthBytes) return entries;
      entries.push(entry);
      expected = entry.header.sequenceNumber + 1n;
    }
  }

  /** The entry at `offset` when all of it is valid (2.3.1). */
  #entryAt(offset: number): LogEntry | undefined {
    if (!startsWith(this.#log, offset, 'loge')) return undefined;
    const header = logEntryHeader.parse(this.#log, offset);
    const { entryBytes, descriptorCount, sequenceNumber, tail } = header;
    if (header.logGuid !== this.#logGuid || sequenceNumber === 0n) return undefined;
    if (entryBytes === 0 || entryBytes % logSectorBytes !== 0 || entryBytes > this.lengthBytes) return undefined;
    if (tail % logSectorBytes !== 0 || tail >= this.lengthBytes) return undefined;
    if (descriptorSectors(descriptorCount) * logSectorBytes > entryBytes) return undefined;
    this.#budgetBytes -= entryBytes;
    if (this.#budgetBytes < 0) throw new FormatError('VHDX log', 'entries', offset, 'too many of them overlap');
    const entry = this.#slice(offset, entryBytes);
    if (crc32cWithoutField(entry, logEntryHeader.offsetOf('checksum')) !== header.checksum) return undefined;
    const writes = parseWrites(entry, header);
    return writes === undefined ? undefined : { header, offset, writes };
  }

  #slice(offset: number, lengthBytes: number): Uint8Array {
    const end = offset + lengthBytes;
    if (end <= this.lengthBytes) return this.#log.subarray(offset, end);
    const joined = new Uint8Array(lengthBytes);
    joined.set(this.#log.subarray(offset));
    joined.set(this.#log.subarray(0, end - this.lengthBytes), this.lengthBytes - offset);
    return joined;
  }
}

/** Sectors that the entry's header and descriptors take; data follows behind. */
export function descriptorSectors(descriptorCount: number): number {
  return Math.ceil((logEntryHeader.sizeBytes + descriptorCount * logDescriptorBytes) / logSectorBytes);
}

/** What an entry writes, in order; undefined when a descriptor or a data sector is not valid. */
function parseWrites(entry: Uint8Array, header: EntryHeader): Overlay[] | undefined {
  const writes: Overlay[] = [];
  let dataAt = descriptorSectors(header.descriptorCount) * logSectorBytes;
  for (let index = 0; index < header.descriptorCount; index++) {
    const at = logEntryHeader.sizeBytes + index * logDescriptorBytes;
    let write: Overlay | undefined;
    if (startsWith(entry, at, 'zero')) {
      const zero = logZeroDescriptor.parse(entry, at);
      if (zero.sequenceNumber !== header.sequenceNumber) return undefined;
      write = asOverlay(zero.fileOffset, zero.zeroBytes);
    } else if (startsWith(entry, at, 'desc')) {
      const data = logDataDescriptor.parse(entry, at);
      if (data.sequenceNumber !== header.sequenceNumber || dataAt + logSectorBytes > entry.length) return undefined;
      const sector = parseDataSector(entry, dataAt, data);
      dataAt += logSectorBytes;
      write = sector && asOverlay(data.fileOffset, BigInt(logSectorBytes), sector);
    }
    if (write === undefined) return undefined;
    if (write.lengthBytes > 0) writes.push(write);
  }
  return writes;
}

/** A write of whole sectors, perhaps behind the file's end: the replay makes the file longer (2.3.3). */
function asOverlay(fileOffset: bigint, lengthBytes: bigint, data?: Uint8Array): Overlay | undefined {
  const sector = BigInt(logSectorBytes);
  if (fileOffset % sector !== 0n || lengthBytes % sector !== 0n) return undefined;
  if (fileOffset + lengthBytes > BigInt(maxFileBytes)) return undefined;
  return {
    offset: Number(fileOffset),
    lengthBytes: Number(lengthBytes),
    ...(data === undefined ? {} : { bytes: data }),
  };
}

function parseDataSector(
  entry: Uint8Array,
  at: number,
  descriptor: Decoded<typeof logDataDescriptor>,
): Uint8Array | undefined {
  if (!startsWith(entry, at, 'data')) return undefined;
  const sector = logDataSector.parse(entry, at);
  const sequenceNumber = BigInt(sector.sequenceHigh) * 2n ** 32n + BigInt(sector.sequenceLow);
  if (sequenceNumber !== descriptor.sequenceNumber) return undefined;
  const whole = new Uint8Array(logSectorBytes);
  whole.set(descriptor.leadingBytes);
  whole.set(sector.data, descriptor.leadingBytes.length);
  whole.set(descriptor.trailingBytes, logSectorBytes - descriptor.trailingBytes.length);
  return whole;
}

function startsWith(bytesOfLog: Uint8Array, at: number, signature: string): boolean {
  return Buffer.from(bytesOfLog.buffer, bytesOfLog.byteOffset + at, signature.length).toString('latin1') === signature;
}
