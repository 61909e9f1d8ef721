/**
 * Making and opening a replacement disk file and its map, beside the plugin file: NAME.replacement and NAME.map.
 *
 * Crash order of making one:
 * 1. the data file, with its size, and fsync
 * 2. the map as NAME.map.part, with its header, and its durable commit to NAME.map: from now on there is a replacement
 * A data file without a map is left over from a crash between the two and holds nothing that was acknowledged: it is made anew.
 */
import fs from 'node:fs';
import path from 'node:path';
import { closeAll, type Closable } from '../base/ownership.ts';
import { FormatError, ReadOnlyError, systemErrorCode } from '../base/errors.ts';
import { lockExclusively } from '../base/file-lock.ts';
import { syncFolder, unfinishedSuffix } from '../base/durable.ts';
import type { Guid } from '../bytes/guid.ts';
import * as format from './layout.ts';
import { currentBootId, loadPages, readHeader, writeHeader, writeLivePages } from './map-file.ts';
import { newPresence, PresenceMap } from './presence-map.ts';
import { shared, type SharedReplacement } from './replacement.ts';

export interface ReplacementPlace {
  /** The native file's path behind the mount: its name, with a suffix, names data and map. */
  readonly path: string;
  readonly pluginId: Guid;
  /** Size of the synthesized file. */
  readonly baseBytes: number;
}

const dataSuffix = '.replacement';
const mapSuffix = '.map';

/** Whether a name in the folder is a part of some replacement: such files are not shown under the mount. */
export function isReplacementName(name: string): boolean {
  return [dataSuffix, mapSuffix, mapSuffix + unfinishedSuffix].some((suffix) => name.endsWith(suffix));
}

/** Whether writes have been kept for this native file. */
export function hasReplacement(filePath: string): boolean {
  return fs.existsSync(filePath + mapSuffix);
}

/** Throws away what was written: `discard` mode, and `replacement drop`. */
export function removeReplacement(filePath: string): void {
  // The map first: a data file without one is nothing.
  fs.rmSync(filePath + mapSuffix, { force: true });
  fs.rmSync(filePath + dataSuffix, { force: true });
  syncFolder(path.dirname(filePath));
}

/** An open replacement: what threads need of it, and its descriptors, which this owns. */
export interface OpenReplacement extends Closable {
  readonly parts: SharedReplacement;
}

/**
 * Opens the replacement of a native file, or makes one.
 * @param bootId other than the current one only in tests of power loss
 * @throws FormatError when it belongs to another plugin file or its map is damaged: nothing is changed then
 * @throws UsageError when another process has it open; CapacityError when the disk is full
 */
export function openReplacement(place: ReplacementPlace, bootId: Guid = currentBootId()): OpenReplacement {
  if (!hasReplacement(place.path)) makeFiles(place, bootId);
  const mapPath = place.path + mapSuffix;
  const mapFd = fs.openSync(mapPath, 'r+');
  const closers: Closable[] = [{ close: () => fs.closeSync(mapFd) }];
  try {
    lockExclusively(mapFd, mapPath);
    const header = readHeader(mapFd, mapPath);
    checkBelongs(header, place, mapPath);
    const dataFd = openData(place.path + dataSuffix, header);
    closers.push({ close: () => fs.closeSync(dataFd) });
    const parts = load(place, header, { mapFd, dataFd, mapPath, bootId });
    let closed = false;
    return {
      parts,
      close() {
        if (closed) return;
        closed = true;
        closeAll(closers);
      },
    };
  } catch (error) {
    closeAll(closers);
    throw error;
  }
}

function makeFiles(place: ReplacementPlace, bootId: Guid): void {
  const dataFd = fs.openSync(place.path + dataSuffix, 'w', 0o600);
  try {
    fs.ftruncateSync(dataFd, place.baseBytes);
    fs.fsyncSync(dataFd);
  } finally {
    fs.closeSync(dataFd);
  }
  const mapPath = place.path + mapSuffix;
  const mapFd = fs.openSync(mapPath + unfinishedSuffix, 'w', 0o600);
  try {
    writeHeader(mapFd, firstHeader(place, bootId), mapPath);
    fs.ftruncateSync(mapFd, format.firstPageOffset);
    fs.fsyncSync(mapFd);
    fs.renameSync(mapPath + unfinishedSuffix, mapPath);
    syncFolder(path.dirname(mapPath));
  } catch (error) {
    fs.rmSync(mapPath + unfinishedSuffix, { force: true });
    throw error;
  } finally {
    fs.closeSync(mapFd);
  }
}

function firstHeader(place: ReplacementPlace, bootId: Guid): format.MapHeader {
  return {
    version: format.mapVersion,
    state: format.replacementStates.indexOf('intercepting'),
    unitBytes: format.unitBytes,
    pluginId: place.pluginId,
    bootId,
    sequence: 0n,
    baseBytes: BigInt(place.baseBytes),
    visibleBytes: BigInt(place.baseBytes),
    fileName: path.basename(place.path),
    crc32c: 0,
  };
}

function checkBelongs(header: format.MapHeader, place: ReplacementPlace, mapPath: string): void {
  if (header.pluginId === place.pluginId && header.baseBytes === BigInt(place.baseBytes)) return;
  throw new FormatError(
    mapPath,
    'plugin file',
    16,
    'holds writes of another plugin file; move it and its .replacement away to start anew',
  );
}

function openData(dataPath: string, header: format.MapHeader): number {
  try {
    return fs.openSync(dataPath, 'r+');
  } catch (error) {
    if (systemErrorCode(error) === 'EROFS') throw new ReadOnlyError(`${dataPath}: its file system is read-only`);
    throw new FormatError(
      dataPath,
      'data',
      0,
      `is missing, but the map of ${header.fileName} speaks of it; put it back`,
      { cause: error },
    );
  }
}

interface Files {
  readonly mapFd: number;
  readonly dataFd: number;
  readonly mapPath: string;
  readonly bootId: Guid;
}

function load(place: ReplacementPlace, header: format.MapHeader, files: Files): SharedReplacement {
  const { mapFd, dataFd, mapPath, bootId } = files;
  const maxBytes = Math.min(2 * place.baseBytes + format.growthRoomBytes, format.maxFileBytes);
  const presence = newPresence(Math.ceil(maxBytes / format.unitBytes));
  const map = new PresenceMap(presence);
  const sameBoot = header.bootId === bootId;
  loadPages(mapFd, map, sameBoot, mapPath);
  let sequence = header.sequence;
  if (!sameBoot) {
    // The live bits of an earlier boot are not to be trusted: they become the durable ones, and then this boot's.
    writeLivePages(mapFd, map, mapPath);
    fs.fdatasyncSync(mapFd);
    sequence += 1n;
    writeHeader(mapFd, { ...header, bootId, sequence }, mapPath);
  } else {
    // Bits that no flush has covered yet.
    map.markDirty(
      Array.from({ length: map.pageCount }, (_, page) => page).filter((page) =>
        map.page(page).some((byte) => byte !== 0),
      ),
    );
  }
  const numbers = new BigInt64Array(new SharedArrayBuffer(shared.count * 8));
  numbers[shared.sizeBytes] = BigInt(fs.fstatSync(dataFd).size);
  numbers[shared.visibleBytes] = header.visibleBytes;
  numbers[shared.sequence] = sequence;
  numbers[shared.state] = BigInt(header.state);
  const { pluginId } = place;
  return {
    name: path.basename(place.path),
    pluginId,
    bootId,
    dataFd,
    mapFd,
    presence,
    numbers: numbers.buffer as SharedArrayBuffer,
  };
}
