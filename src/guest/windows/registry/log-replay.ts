/**
 * What a hive holds once its transaction logs are replayed, as Windows does it when it loads the hive.
 *
 * - A hive is dirty when its base block fails its checksum or its two sequence numbers differ; logs of a clean hive mean nothing.
 * - New logs (Windows 8.1 and later): entries with two Marvin32 hashes, numbered without gaps from the log's own sequence number. A log
 *   applies when that number is not below the hive's secondary one; the other log follows if it goes on where the first one ended.
 * - Old logs: a bitmap of sectors and the sectors. A log applies when it is not older than the hive.
 * - A base block that fails its checksum is taken from the log: from the later one of two.
 *
 * The hive itself is not changed: the result is a copy. Source: "Windows registry file format specification", M. Suhanov.
 */
import { FormatError } from '../../../base/errors.ts';
import { alignUp } from '../../../base/ranges.ts';
import { viewOf } from '../../../bytes/view.ts';
import {
  baseBlock,
  binAlignmentBytes,
  binHeader,
  binsStartBytes,
  checksumOf,
  fileTypes,
  logEntry,
  logSectorBytes,
  maxHiveBytes,
  type BaseBlock,
} from './layout.ts';
import { marvin32 } from './marvin.ts';

export interface Replayed {
  readonly bytes: Uint8Array;
  readonly state: 'clean' | 'replayed' | 'dirty without logs';
  /** Of the logs given, those that were applied. */
  readonly applied: readonly number[];
}

interface Log {
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly base: BaseBlock;
}

/**
 * @param logs LOG1 and LOG2; an absent or empty one as an empty array
 * @throws FormatError when the hive is none, or neither it nor a log has a whole base block
 */
export function replayLogs(name: string, hive: Uint8Array, logs: readonly Uint8Array[]): Replayed {
  if (hive.length < binsStartBytes)
    throw new FormatError(name, 'length', 0, `${hive.length} bytes are no registry hive`);
  const valid = isWhole(hive);
  const base = baseBlock.parse(hive);
  if (valid && base.primarySequence === base.secondarySequence) return { bytes: hive, state: 'clean', applied: [] };
  const usable = logs.flatMap((bytes, index) => {
    const log = openLog(bytes, index);
    return log === undefined ? [] : [log];
  });
  const replayed =
    usable.find((log) => log.base.fileType === fileTypes.logOfEntries) === undefined
      ? replayOld(hive, valid, usable)
      : replayNew(
          hive,
          valid,
          usable.filter((log) => log.base.fileType === fileTypes.logOfEntries),
        );
  if (replayed !== undefined) return replayed;
  if (!valid) throw new FormatError(name, 'checksum', 508, 'is wrong, and no log can replace the base block');
  return { bytes: hive, state: 'dirty without logs', applied: [] };
}

function isWhole(bytes: Uint8Array): boolean {
  return viewOf(bytes).getUint32(baseBlock.offsetOf('checksum'), true) === checksumOf(bytes);
}

/** Undefined for what is no log that was written to its end. */
function openLog(bytes: Uint8Array, index: number): Log | undefined {
  if (bytes.length < 2 * logSectorBytes || Buffer.from(bytes.subarray(0, 4)).toString('latin1') !== 'regf')
    return undefined;
  if (!isWhole(bytes)) return undefined;
  const base = baseBlock.parse(bytes);
  const types: readonly number[] = [fileTypes.log, fileTypes.logOfVista, fileTypes.logOfEntries];
  if (!types.includes(base.fileType) || base.primarySequence !== base.secondarySequence) return undefined;
  if (base.binsLength % binAlignmentBytes !== 0 || base.binsLength > maxHiveBytes) return undefined;
  return { index, bytes, base };
}

/** The log whose numbers come first, also when they have passed 2^32. */
function inOrder(logs: readonly Log[]): readonly Log[] {
  const [first, second] = logs;
  if (first === undefined || second === undefined) return logs;
  const distance = (second.base.primarySequence - first.base.primarySequence + 2 ** 32) % 2 ** 32;
  return distance < 2 ** 31 && distance > 0 ? [first, second] : [second, first];
}

function replayNew(hive: Uint8Array, valid: boolean, logs: readonly Log[]): Replayed | undefined {
  const ordered = inOrder(logs);
  const target = new GrowingHive(hive);
  const applied: Log[] = [];
  let last: number | undefined;
  for (const log of valid ? ordered : ordered.slice(-1)) {
    const first = log.base.primarySequence;
    if (valid && first < baseBlock.parse(hive).secondarySequence) continue;
    if (last !== undefined && first !== (last + 1) % 2 ** 32) break;
    const end = target.applyEntries(log);
    if (end === undefined) break;
    last = end;
    applied.push(log);
  }
  const from = applied.at(-1);
  if (last === undefined || from === undefined) return undefined;
  return target.finish((last + 1) % 2 ** 32, valid, from, applied);
}

function replayOld(hive: Uint8Array, valid: boolean, logs: readonly Log[]): Replayed | undefined {
  const writtenAt = valid ? baseBlock.parse(hive).lastWritten : timestampOfFirstBin(hive);
  const log = logs.find(({ base }) => base.lastWritten >= writtenAt);
  if (log === undefined) return undefined;
  const target = new GrowingHive(hive);
  if (!target.applySectors(log)) return undefined;
  return target.finish(log.base.primarySequence, valid, log, [log]);
}

function timestampOfFirstBin(hive: Uint8Array): bigint {
  try {
    return binHeader.parse(hive, binsStartBytes).timestamp;
  } catch {
    return 0n;
  }
}

class GrowingHive {
  #bytes: Uint8Array;
  #binsLength: number | undefined;
  #flags: number | undefined;

  constructor(hive: Uint8Array) {
    this.#bytes = new Uint8Array(hive);
  }

  /** Applies a log's entries as far as they are whole. Returns the last sequence number, undefined where not even one is. */
  applyEntries(log: Log): number | undefined {
    let expected = log.base.primarySequence;
    let last: number | undefined;
    for (let at = logSectorBytes; at + logEntry.sizeBytes <= log.bytes.length;) {
      const sizeBytes = this.#applyEntry(log.bytes, at, expected);
      if (sizeBytes === undefined) break;
      last = expected;
      expected = (expected + 1) % 2 ** 32;
      at += sizeBytes;
    }
    return last;
  }

  #applyEntry(log: Uint8Array, at: number, expected: number): number | undefined {
    if (Buffer.from(log.subarray(at, at + 4)).toString('latin1') !== 'HvLE') return undefined;
    const entry = logEntry.parse(log, at);
    const { sizeBytes, binsLength, pageCount } = entry;
    const soundSize = sizeBytes >= logSectorBytes && sizeBytes % logSectorBytes === 0 && at + sizeBytes <= log.length;
    const soundBins = binsLength > 0 && binsLength % binAlignmentBytes === 0 && binsLength <= maxHiveBytes;
    if (!soundSize || !soundBins || entry.sequence !== expected) return undefined;
    if (marvin32(log.subarray(at, at + 32)) !== entry.hashOfHeader) return undefined;
    const body = log.subarray(at + logEntry.sizeBytes, at + sizeBytes);
    if (marvin32(body) !== entry.hashOfPages || pageCount === 0 || pageCount * 8 > body.length) return undefined;
    const pages = pagesOf(body, pageCount, binsLength);
    if (pages === undefined) return undefined;
    this.#grow(binsLength);
    for (const { offset, bytes } of pages) this.#bytes.set(bytes, binsStartBytes + offset);
    this.#flags = entry.flags;
    return sizeBytes;
  }

  /** Applies the sectors of an old log; false when the log ends before they do. */
  applySectors(log: Log): boolean {
    const { binsLength } = log.base;
    const mapBytes = binsLength / 512 / 8;
    const map = log.bytes.subarray(logSectorBytes + 4, logSectorBytes + 4 + mapBytes);
    if (Buffer.from(log.bytes.subarray(logSectorBytes, logSectorBytes + 4)).toString('latin1') !== 'DIRT') return false;
    if (map.length < mapBytes) return false;
    this.#grow(binsLength);
    let from = logSectorBytes + alignUp(4 + mapBytes, logSectorBytes);
    for (let sector = 0; sector < mapBytes * 8; sector++) {
      if ((((map[Math.floor(sector / 8)] ?? 0) >>> (sector % 8)) & 1) === 0) continue;
      if (from + logSectorBytes > log.bytes.length) return false;
      this.#bytes.set(log.bytes.subarray(from, from + logSectorBytes), binsStartBytes + sector * logSectorBytes);
      from += logSectorBytes;
    }
    return true;
  }

  /** Makes the base block say what has become of the hive. */
  finish(sequence: number, valid: boolean, from: Log, applied: readonly Log[]): Replayed {
    if (!valid) {
      this.#bytes.set(from.bytes.subarray(0, logSectorBytes));
      this.#put('fileType', fileTypes.primary);
    }
    this.#put('primarySequence', sequence);
    this.#put('secondarySequence', sequence);
    this.#put('binsLength', this.#binsLength ?? 0);
    this.#put('rootCell', from.base.rootCell);
    this.#put('minorVersion', from.base.minorVersion);
    if (this.#flags !== undefined) {
      const at = flagsOffsetBytes;
      this.#bytes[at] = ((this.#bytes[at] ?? 0) & ~1) | (this.#flags & 1);
    }
    viewOf(this.#bytes).setUint32(baseBlock.offsetOf('checksum'), checksumOf(this.#bytes), true);
    return { bytes: this.#bytes, state: 'replayed', applied: applied.map((log) => log.index) };
  }

  #put(field: string, value: number): void {
    viewOf(this.#bytes).setUint32(baseBlock.offsetOf(field), value, true);
  }

  #grow(binsLength: number): void {
    this.#binsLength = binsLength;
    if (binsStartBytes + binsLength <= this.#bytes.length) return;
    const grown = new Uint8Array(binsStartBytes + binsLength);
    grown.set(this.#bytes);
    this.#bytes = grown;
  }
}

/** Bit 0 of the base block's flags says that a transaction was under way; an entry of a log carries it on. */
const flagsOffsetBytes = 144;

/** The pages of an entry; undefined when one lies outside the bins or the entry. */
function pagesOf(
  body: Uint8Array,
  pageCount: number,
  binsLength: number,
): { offset: number; bytes: Uint8Array }[] | undefined {
  const view = viewOf(body);
  const pages: { offset: number; bytes: Uint8Array }[] = [];
  let from = pageCount * 8;
  for (let index = 0; index < pageCount; index++) {
    const offset = view.getUint32(index * 8, true);
    const lengthBytes = view.getUint32(index * 8 + 4, true);
    if (offset + lengthBytes > binsLength || from + lengthBytes > body.length) return undefined;
    pages.push({ offset, bytes: body.subarray(from, from + lengthBytes) });
    from += lengthBytes;
  }
  return pages;
}
