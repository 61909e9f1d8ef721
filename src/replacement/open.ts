/**
 * Making and opening a replacement disk file and its map, beside the plugin file: NAME.replacement and NAME.replacement-map.
 *
 * Crash order of making one:
 * 1. the data file, with its size, and fsync of it and of the folder
 * 2. the map as NAME.replacement-map.veneer-part, with its header, and its durable commit to NAME.replacement-map: from now on there is a replacement
 * A data file without a map is left over from a crash between the two and holds nothing: it is made anew. Each is a new file, so that nobody
 * has it open who should not; what is there is used only where it is trusted (plugin/beside.ts) and belongs to this file (beside.ts).
 * The data file is locked as long as the replacement is open.
 *
 * Crash order of opening one:
 * 1. the copies of the header are made equal, if a crash came between their two writes
 * 2. a cut that a crash interrupted is finished: the data file, and fdatasync
 * 3. after a power loss the live pages are made equal to the durable ones, and fdatasync
 * 4. the header: no cut is under way, and the live pages are this boot's
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { closeAll, type Closable } from '../base/ownership.ts';
import { FormatError, VeneerError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { lockExclusively } from '../base/file-lock.ts';
import { writeFailure } from '../base/full-io.ts';
import { commitFile, flushFile, openUnfinished, resizeFile, syncFolder, unfinishedPathOf } from '../base/durable.ts';
import type { ThreadKey } from '../backup/crypto/seal.ts';
import { randomGuid, type Guid } from '../bytes/guid.ts';
import { dataOf, isKept, mapOf, requireBelongs, type NamedBeside, type ReplacementPlace } from './beside.ts';
import { makeData, openData, openToWrite } from './files.ts';
import * as format from './layout.ts';
import { currentBootId, loadPages, readHeader, repairHeader, writeHeader, writeLivePages } from './map-file.ts';
import { newPresence, PresenceMap } from './presence-map.ts';
import { Balance } from './balance.ts';
import { HotUnits } from './hot-units.ts';
import { PlainFile } from './data-file.ts';
import { deriveSeal, requireKey, sealOf, type ReplacementSeal } from './replacement-seal.ts';
import { SealedFile, storedBytesOf } from './sealed-file.ts';
import { sealFields, shared, type SharedReplacement } from './shared.ts';

export type { ReplacementPlace } from './beside.ts';

/** Units that a map has room for: a file may grow, as growing formats do. */
export function unitCountOf(baseBytes: number): number {
  return Math.ceil(Math.min(2 * baseBytes + format.growthRoomBytes, format.maxFileBytes) / format.unitBytes);
}

/**
 * Throws away what was written: `discard` mode, and `replacement drop`.
 * @throws BusyError when it is open; ForbiddenError when something else lies there; UnavailableError when a file cannot be removed
 */
export function removeReplacement(place: RemovedPlace): void {
  const data = dataOf(place);
  const isThere = fs.lstatSync(data.at, { throwIfNoEntry: false }) !== undefined;
  const dataFd = isThere ? openToWrite(data, place.owner) : undefined;
  try {
    if (dataFd !== undefined) lockExclusively(dataFd, data.shown);
    unlinkReplacement(place);
  } finally {
    if (dataFd !== undefined) fs.closeSync(dataFd);
  }
}

/** What is to be removed may be of any plugin file. */
export type RemovedPlace = NamedBeside & Pick<ReplacementPlace, 'owner'>;

/**
 * The same where it may be open: whoever has it open goes on with files that have no name any more.
 * @throws UnavailableError when a file cannot be removed
 */
export function unlinkReplacement(place: RemovedPlace): void {
  try {
    // The map first, durably: a data file without one is nothing.
    for (const { at } of [mapOf(place), dataOf(place)]) {
      fs.rmSync(at, { force: true });
      syncFolder(path.dirname(at), path.dirname(place.path));
    }
  } catch (error) {
    throw error instanceof VeneerError ? error : writeFailure(place.path, 'remove what was written to it', error);
  }
}

/** An open replacement: what threads need of it, and its descriptors, which this owns. */
export interface OpenReplacement extends Closable {
  readonly parts: SharedReplacement;
  /** Gives the files back. Flushes nothing: `Replacement.sync` does. */
  close(): void;
}

/**
 * Opens the replacement of a native file, or makes one.
 * @param key of the image's chain, for one that is sealed
 * @param bootId other than the current one only in tests of power loss
 * @throws FormatError when it belongs to another plugin file or its map is damaged: nothing is changed then
 * @throws ForbiddenError when it is sealed, and the key is missing or another one
 * @throws BusyError when it is open elsewhere; CapacityError when the disk is full; ReadOnlyError, UnavailableError
 */
export function openReplacement(
  place: ReplacementPlace,
  key?: ThreadKey,
  bootId: Guid = currentBootId(),
): OpenReplacement {
  const closers: Closable[] = [];
  if (place.isSealed) requireKey(key, place.path);
  try {
    const isThere = isKept(place);
    const dataFd = isThere ? openData(place) : makeData(place);
    closers.push({ close: () => fs.closeSync(dataFd) });
    if (!isThere) makeFiles(place, dataFd, key, bootId);
    const map = mapOf(place);
    const mapFd = openToWrite(map, place.owner);
    closers.push({ close: () => fs.closeSync(mapFd) });
    const parts = load(place, key, { mapFd, dataFd, mapPath: map.shown, bootId });
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

function makeFiles(place: ReplacementPlace, dataFd: number, key: ThreadKey | undefined, bootId: Guid): void {
  const data = dataOf(place);
  resizeFile(dataFd, place.isSealed ? storedBytesOf(place.baseBytes) : place.baseBytes, data.shown);
  flushFile(dataFd, data.shown);
  syncFolder(path.dirname(data.at), path.dirname(data.shown));
  const seal = place.isSealed ? deriveSeal(requireKey(key, place.path), place.pluginId, randomGuid()) : undefined;
  const map = mapOf(place);
  const mapFd = openUnfinished(map.at, 'empty', fileModes.replacementMap, map.shown);
  try {
    writeHeader(mapFd, firstHeader(place, seal, bootId), map.shown);
    commitFile(mapFd, map.at, map.shown);
  } catch (error) {
    fs.rmSync(unfinishedPathOf(map.at), { force: true });
    throw error;
  } finally {
    fs.closeSync(mapFd);
  }
}

function firstHeader(place: ReplacementPlace, seal: ReplacementSeal | undefined, bootId: Guid): format.MapHeader {
  return {
    version: format.mapVersions[seal === undefined ? 'plain' : 'sealed'],
    state: format.replacementStates.indexOf('intercepting'),
    cutting: 0,
    unitBytes: format.unitBytes,
    pluginId: place.pluginId,
    bootId,
    sequence: 0n,
    baseBytes: BigInt(place.baseBytes),
    visibleBytes: BigInt(place.baseBytes),
    fileName: path.basename(place.path),
    direct: 0,
    suspect: 0,
    ...sealFields(seal),
    cutBytes: 0n,
    crc32c: 0,
  };
}

interface Files {
  readonly mapFd: number;
  readonly dataFd: number;
  readonly mapPath: string;
  readonly bootId: Guid;
}

function load(place: ReplacementPlace, key: ThreadKey | undefined, files: Files): SharedReplacement {
  const { mapFd, dataFd, mapPath, bootId } = files;
  const copies = readHeader(mapFd, mapPath);
  const found = copies.header;
  requireBelongs(found, place, mapPath);
  const seal = sealOf(found, place.isSealed, key, mapPath);
  const presence = newPresence(unitCountOf(place.baseBytes));
  const map = new PresenceMap(presence);
  const dataPath = dataOf(place).shown;
  const file = seal === undefined ? new PlainFile(dataFd, dataPath) : new SealedFile(dataFd, dataPath, seal.key, map);
  checkLength(dataPath, file instanceof SealedFile ? file.settledBytes : file.sizeBytes, found);
  repairHeader(mapFd, copies, mapPath);
  const sameBoot = found.bootId === bootId;
  const loaded = loadPages(mapFd, map, sameBoot, mapPath);
  settleData(file, found, files);
  const header = settle(found, map, files);
  // Bits that no flush has covered yet.
  if (sameBoot) map.markDirty(loaded);
  const numbers = new BigInt64Array(new SharedArrayBuffer(shared.count * 8));
  numbers[shared.sizeBytes] = BigInt(file.sizeBytes);
  numbers[shared.visibleBytes] = header.visibleBytes;
  numbers[shared.sequence] = header.sequence;
  numbers[shared.state] = BigInt(header.state);
  numbers[shared.direct] = BigInt(header.direct);
  numbers[shared.suspect] = BigInt(header.suspect);
  return {
    name: path.basename(place.path),
    pluginId: place.pluginId,
    bootId,
    baseBytes: place.baseBytes,
    dataFd,
    mapFd,
    seal,
    presence,
    numbers: numbers.buffer,
    hot: HotUnits.allocate(),
    speeds: Balance.allocate(),
    backing: new SharedArrayBuffer(8),
  };
}

/**
 * The data file is never shorter than what still shows of the synthesized one: it is made as long, and cut after the header says so. Where it
 * serves alone, its length is the disk's, whoever cut it.
 */
function checkLength(dataPath: string, size: number, header: format.MapHeader): void {
  const state = format.replacementStates[header.state];
  if (state === 'complete' || state === 'final' || BigInt(size) >= header.visibleBytes) return;
  const detail = `is ${size} bytes, but was at least ${header.visibleBytes}; was it truncated?`;
  throw new FormatError(dataPath, 'length', 0, detail);
}

/** Finishes a cut, and makes true again what is to hold of a sealed file. */
function settleData(file: PlainFile | SealedFile, found: format.MapHeader, { dataFd, mapPath }: Files): void {
  if (file instanceof SealedFile) {
    file.settle(found.cutting === 0 ? undefined : Number(found.cutBytes));
  } else if (found.cutting !== 0) {
    file.resize(Number(found.visibleBytes));
    flushFile(dataFd, mapPath);
  }
}

/** What else a crash has left to do, in the order above. Returns the header that holds from now on. */
function settle(found: format.MapHeader, map: PresenceMap, { mapFd, mapPath, bootId }: Files): format.MapHeader {
  const sameBoot = found.bootId === bootId;
  if (sameBoot && found.cutting === 0) return found;
  if (!sameBoot) {
    writeLivePages(mapFd, map, mapPath);
    flushFile(mapFd, mapPath);
  }
  // Of units that were copied but not written, the bits may be older than the data now.
  const suspect = sameBoot ? found.suspect : 1;
  const header = { ...found, cutting: 0, cutBytes: 0n, bootId, suspect, sequence: found.sequence + 1n };
  writeHeader(mapFd, header, mapPath);
  return header;
}
