/**
 * Reading and writing the map of a replacement disk file.
 *
 * Crash order of a flush (the data file is flushed between 1 and 2 by the caller's `flushData`):
 * 1. take the pages that changed, as they are now: every bit in them speaks of data that has been written
 * 2. fdatasync of the data file
 * 3. write the durable copies of those pages
 * 4. fdatasync of the map
 * A header is written to the older of its two places, then fdatasync: a torn one leaves the other.
 */
import fs from 'node:fs';
import { FormatError } from '../base/errors.ts';
import { readFully, writeFully } from '../base/full-io.ts';
import { toOffset } from '../base/ranges.ts';
import { checkCrc32c, sealCrc32c } from '../bytes/checksum.ts';
import type { Guid } from '../bytes/guid.ts';
import * as format from './layout.ts';
import { pageOf, type PresenceMap } from './presence-map.ts';

/** The identity of the running boot: another one means that power was lost, or the machine was shut down, since. */
export function currentBootId(): Guid {
  return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** @throws FormatError when neither copy is sound */
export function readHeader(fd: number, name: string): format.MapHeader {
  const found: format.MapHeader[] = [];
  let firstError: unknown;
  for (const at of [0, format.mapHeaderBytes]) {
    try {
      const block = new Uint8Array(format.mapHeaderBytes);
      readFully(fd, block, at, name);
      const header = format.mapHeader.parse(block);
      checkCrc32c(block, format.mapHeader.offsetOf('crc32c'), `${name}: header`);
      found.push(header);
    } catch (error) {
      firstError ??= error;
    }
  }
  const newest = found.sort((a, b) => (a.sequence < b.sequence ? 1 : -1))[0];
  if (newest === undefined) throw new FormatError(name, 'header', 0, 'neither copy is sound', { cause: firstError });
  if (newest.version !== format.mapVersion || newest.unitBytes !== format.unitBytes) {
    throw new FormatError(
      name,
      'version',
      8,
      `${newest.version} with units of ${newest.unitBytes} bytes is not one this Veneer knows`,
    );
  }
  toOffset(newest.visibleBytes, format.maxFileBytes, { structure: name, field: 'visible size', offset: 64 });
  return newest;
}

/** Writes the next header, durably. */
export function writeHeader(fd: number, header: format.MapHeader, name: string): void {
  const block = sealCrc32c(format.mapHeader.encode(header), format.mapHeader.offsetOf('crc32c'));
  writeFully(fd, block, (Number(header.sequence) % 2) * format.mapHeaderBytes, name);
  fs.fdatasyncSync(fd);
}

/**
 * Fills the map in memory from the file: the live bits of this boot, or the durable ones of an earlier one.
 * Pages that the file does not have are all zero.
 */
export function loadPages(fd: number, map: PresenceMap, fromLive: boolean, name: string): void {
  const { size } = fs.fstatSync(fd);
  const page = new Uint8Array(format.mapPageBytes);
  for (let index = 0; index < map.pageCount; index++) {
    const at = format.livePageOffset(index) + (fromLive ? 0 : format.mapPageBytes);
    if (at >= size) break;
    page.fill(0);
    readFully(fd, page.subarray(0, Math.min(page.length, size - at)), at, name);
    // Untouched pages stay unallocated.
    if (page.some((byte) => byte !== 0)) map.page(index).set(page);
  }
}

/** Writes the live word that holds a unit's bits, so that a killed process finds it again. */
export function writeLiveBits(fd: number, map: PresenceMap, unit: number, name: string): void {
  const page = pageOf(unit);
  // Two threads that write one word must not leave the older value behind.
  map.locked('page', page, () => {
    const byteInPage = Math.floor(((unit % format.unitsPerPage) * 2) / 8);
    writeFully(fd, Uint8Array.of(map.page(page)[byteInPage] ?? 0), format.livePageOffset(page) + byteInPage, name);
  });
}

/** Writes live pages as they are in memory: after a load from durable bits, the live ones may be wrong. */
export function writeLivePages(fd: number, map: PresenceMap, name: string): void {
  const { size } = fs.fstatSync(fd);
  for (let index = 0; index < map.pageCount; index++) {
    const page = map.page(index);
    if (format.livePageOffset(index) < size || page.some((byte) => byte !== 0)) {
      writeFully(fd, page, format.livePageOffset(index), name);
    }
  }
}

/** The four steps above. @throws whatever a write or a flush throws: the pages count as changed again then */
export function flushMap(fd: number, map: PresenceMap, flushData: () => void, name: string): void {
  // One at a time: a second flush must not return before the first has made durable what it took.
  map.locked('flush', 0, () => flushTaken(fd, map, flushData, name));
}

function flushTaken(fd: number, map: PresenceMap, flushData: () => void, name: string): void {
  const taken = map.takeDirtyPages();
  const copies = taken.map((page) => Uint8Array.from(map.page(page)));
  try {
    flushData();
    for (const [index, page] of taken.entries()) {
      writeFully(fd, copies[index] ?? new Uint8Array(0), format.livePageOffset(page) + format.mapPageBytes, name);
    }
    if (taken.length > 0) fs.fdatasyncSync(fd);
  } catch (error) {
    map.markDirty(taken);
    throw error;
  }
}
