/**
 * Reading and writing the map of a replacement disk file.
 *
 * Crash order of a flush:
 * 1. take the pages that changed, as they are now: every bit in them speaks of data that has been written
 * 2. fdatasync of the data file
 * 3. write the durable copies of those pages
 * 4. fdatasync of the map
 * Crash order of a header, of which there are two equal copies: 1. copy A, 2. fdatasync, 3. copy B, 4. fdatasync. A torn one leaves the
 * other; at rest they are equal, so that one which is damaged later is not replaced by an older truth.
 */
import * as fs from '../base/fs.ts';
import { FormatError } from '../base/errors.ts';
import { flushFile } from '../base/durable.ts';
import { readFully, writeFully } from '../base/full-io.ts';
import { toOffset } from '../base/ranges.ts';
import { checkCrc32c, sealCrc32c } from '../bytes/checksum.ts';
import type { Guid } from '../bytes/guid.ts';
import * as format from './layout.ts';
import { pageOf, type PresenceMap } from './presence-map.ts';

const unitsPerByte = 4;
const headerOffsets = [0, format.mapHeaderBytes] as const;

/** The identity of the running boot: another one means that power was lost, or the machine was shut down, since. */
export function currentBootId(): Guid {
  return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** The header that counts. The other copy is older, or damaged, after a crash between the two writes. */
export interface FoundHeader {
  readonly header: format.MapHeader;
  readonly otherIsOlder: boolean;
  readonly otherOffset: number;
}

/** @throws FormatError when neither copy is sound; UnavailableError when one cannot be read: the other may be older */
export function readHeader(fd: number, name: string): FoundHeader {
  const found: FoundHeader[] = [];
  let firstError: unknown;
  for (const at of headerOffsets) {
    const block = new Uint8Array(format.mapHeaderBytes);
    readFully(fd, block, at, name);
    try {
      const header = format.mapHeader.parse(block);
      checkCrc32c(block, format.mapHeader.offsetOf('crc32c'), `${name}: header`);
      found.push({ header, otherIsOlder: true, otherOffset: format.mapHeaderBytes - at });
    } catch (error) {
      firstError ??= error;
    }
  }
  const [newest, other] = found.sort((a, b) => (a.header.sequence < b.header.sequence ? 1 : -1));
  if (newest === undefined) throw new FormatError(name, 'header', 0, 'neither copy is sound', { cause: firstError });
  const { header, otherOffset } = newest;
  const version = format.mapVersions[header.sealed === 1 ? 'sealed' : 'plain'];
  if (header.version !== version || header.unitBytes !== format.unitBytes) {
    throw new FormatError(
      name,
      'version',
      8,
      `${header.version} with units of ${header.unitBytes} bytes is not one this Veneer knows`,
    );
  }
  const baseBytes = toOffset(header.baseBytes, format.maxFileBytes, {
    structure: name,
    field: 'base size',
    offset: 56,
  });
  toOffset(header.visibleBytes, baseBytes, { structure: name, field: 'visible size', offset: 64 });
  return { header, otherOffset, otherIsOlder: other?.header.sequence !== header.sequence };
}

/**
 * Makes the copies equal again after a crash between their two writes. Must come before anything is done that the older copy does not know
 * of: the next header is written over the newer one, and when that is torn, the older one counts.
 */
export function repairHeader(fd: number, { header, otherIsOlder, otherOffset }: FoundHeader, name: string): void {
  if (otherIsOlder) writeCopy(fd, header, otherOffset, name);
}

/** Writes both copies of the next header, durably. After a failure it may count, or the last one. */
export function writeHeader(fd: number, header: format.MapHeader, name: string): void {
  for (const at of headerOffsets) writeCopy(fd, header, at, name);
}

function writeCopy(fd: number, header: format.MapHeader, offset: number, name: string): void {
  const block = sealCrc32c(format.mapHeader.encode(header), format.mapHeader.offsetOf('crc32c'));
  writeFully(fd, block, offset, name);
  flushFile(fd, name);
}

/**
 * Fills the map in memory from the file: the live bits of this boot, or the durable ones of an earlier one.
 * Pages that the file does not have are all zero. Returns those that are not.
 */
export function loadPages(fd: number, map: PresenceMap, fromLive: boolean, name: string): number[] {
  const { size } = fs.fstatSync(fd);
  const loaded: number[] = [];
  const page = new Uint8Array(format.mapPageBytes);
  for (let index = 0; index < map.pageCount; index++) {
    const at = format.livePageOffset(index) + (fromLive ? 0 : format.mapPageBytes);
    if (at >= size) break;
    page.fill(0);
    readFully(fd, page.subarray(0, Math.min(page.length, size - at)), at, name);
    // Untouched pages stay unallocated.
    if (page.every((byte) => byte === 0)) continue;
    map.page(index).set(page);
    loaded.push(index);
  }
  return loaded;
}

/**
 * Sets bits of a unit: in the live page, so that a killed process finds them again, then in memory. In this order, so that no thread takes
 * for recorded what could not be written.
 */
export function recordBits(fd: number, map: PresenceMap, unit: number, bits: number, name: string): void {
  if ((map.get(unit) & bits) === bits) return;
  const page = pageOf(unit);
  // Two threads that write one byte must not leave the older value behind.
  map.locked('page', page, () => {
    const byteInPage = Math.floor((unit % format.unitsPerPage) / unitsPerByte);
    const byte = (map.page(page)[byteInPage] ?? 0) | (bits * 4 ** (unit % unitsPerByte));
    writeFully(fd, Uint8Array.of(byte), format.livePageOffset(page) + byteInPage, name);
    map.set(unit, bits);
  });
}

/** Bits for some units of a range that lies within one page and starts and ends at whole bytes of it, or at the end of the map. */
export interface RangeOfBits {
  readonly first: number;
  readonly end: number;
  readonly bits: number;
  readonly which: (unit: number) => boolean;
}

/** As recordBits, for many units in one write. The caller holds the locks of all units. */
export function recordRange(fd: number, map: PresenceMap, range: RangeOfBits, name: string): void {
  const { first, end, bits, which } = range;
  const page = pageOf(first);
  map.locked('page', page, () => {
    const from = (first % format.unitsPerPage) / unitsPerByte;
    const bytes = map.page(page).slice(from, from + Math.ceil((end - first) / unitsPerByte));
    const units: number[] = [];
    for (let unit = first; unit < end; unit++) {
      if (!which(unit)) continue;
      units.push(unit);
      const at = Math.floor((unit - first) / unitsPerByte);
      bytes[at] = (bytes[at] ?? 0) | (bits * 4 ** (unit % unitsPerByte));
    }
    writeFully(fd, bytes, format.livePageOffset(page) + from, name);
    for (const unit of units) map.set(unit, bits);
  });
}

/**
 * Clears all bits of some units of one page: in both copies of it, then, when `flush` has made that durable, in memory. The caller keeps
 * everybody else away.
 */
export function clearPage(
  fd: number,
  map: PresenceMap,
  page: number,
  units: readonly number[],
  name: string,
  flush: () => void,
): void {
  const clear = (bytes: Uint8Array): Uint8Array => {
    for (const unit of units) {
      const at = Math.floor((unit % format.unitsPerPage) / unitsPerByte);
      bytes[at] = (bytes[at] ?? 0) & ~(3 * 4 ** (unit % unitsPerByte));
    }
    return bytes;
  };
  const durable = new Uint8Array(format.mapPageBytes);
  const durableAt = format.livePageOffset(page) + format.mapPageBytes;
  const there = Math.max(0, Math.min(durable.length, fs.fstatSync(fd).size - durableAt));
  readFully(fd, durable.subarray(0, there), durableAt, name);
  writeFully(fd, clear(map.page(page).slice()), format.livePageOffset(page), name);
  writeFully(fd, clear(durable), durableAt, name);
  flush();
  for (const unit of units) map.clear(unit);
}

/** Writes all live pages that the file has as they are in memory: after a load from durable bits, the live ones may be wrong. */
export function writeLivePages(fd: number, map: PresenceMap, name: string): void {
  const { size } = fs.fstatSync(fd);
  for (let index = 0; index < map.pageCount && format.livePageOffset(index) < size; index++) {
    writeFully(fd, map.page(index), format.livePageOffset(index), name);
  }
}

/** What step 2 and step 4 do. */
interface Flushes {
  data(): void;
  map(): void;
}

/** The four steps above; the caller holds the flush lock. @throws whatever a step throws: the pages count as changed again then */
export function flushMap(fd: number, map: PresenceMap, flush: Flushes, name: string): void {
  const taken = map.takeDirtyPages();
  const copies = taken.map((page) => Uint8Array.from(map.page(page)));
  try {
    flush.data();
    for (const [index, page] of taken.entries()) {
      writeFully(fd, copies[index] ?? new Uint8Array(0), format.livePageOffset(page) + format.mapPageBytes, name);
    }
    if (taken.length > 0) flush.map();
  } catch (error) {
    map.markDirty(taken);
    throw error;
  }
}
