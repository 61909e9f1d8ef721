/**
 * Making and opening a replacement disk file and its map, beside the plugin file: NAME.replacement and NAME.replacement-map.
 *
 * Crash order of making one:
 * 1. the data file, with its size, and fsync of it and of the folder
 * 2. the map as NAME.replacement-map.part, with its header, and its durable commit to NAME.replacement-map: from now on there is a replacement
 * A data file without a map is left over from a crash between the two and holds nothing that was acknowledged: it is made anew.
 * The data file is locked before anything is decided, and as long as the replacement is open.
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
import { FormatError, ReadOnlyError, systemErrorCode, UnavailableError, VeneerError } from '../base/errors.ts';
import { lockExclusively } from '../base/file-lock.ts';
import { writeFailure } from '../base/full-io.ts';
import { commitFile, flushFile, openUnfinished, resizeFile, syncFolder, unfinishedSuffix } from '../base/durable.ts';
import type { ThreadKey } from '../backup/seal.ts';
import { randomGuid, type Guid } from '../bytes/guid.ts';
import * as format from './layout.ts';
import { currentBootId, loadPages, readHeader, repairHeader, writeHeader, writeLivePages } from './map-file.ts';
import { newPresence, PresenceMap } from './presence-map.ts';
import { Balance } from './balance.ts';
import { HotUnits } from './hot-units.ts';
import { PlainFile } from './data-file.ts';
import { deriveSeal, requireKey, sealOf, type ReplacementSeal } from './replacement-seal.ts';
import { heldBytesOf, SealedFile, storedBytesOf } from './sealed-file.ts';
import { sealFields, shared, type SharedReplacement } from './shared.ts';
import { replacementStates } from './states.ts';

export interface ReplacementPlace {
  /** The native file's path behind the mount: its name, with a suffix, names data and map. */
  readonly path: string;
  readonly pluginId: Guid;
  /** Size of the synthesized file. */
  readonly baseBytes: number;
  /** Whether what is written is sealed at rest. */
  readonly isSealed: boolean;
}

const dataSuffix = '.replacement';
const mapSuffix = '.replacement-map';
/** What a sealed one is decrypted into, until it takes its place. */
const plainSuffix = '.replacement-plain';

/** Whether a name in the folder is a part of some replacement: such files are not shown under the mount. */
export function isReplacementName(name: string): boolean {
  return [dataSuffix, mapSuffix, mapSuffix + unfinishedSuffix, plainSuffix + unfinishedSuffix].some((suffix) =>
    name.endsWith(suffix),
  );
}

export function dataPathOf(filePath: string): string {
  return filePath + dataSuffix;
}

export function isMapName(name: string): boolean {
  return name.endsWith(mapSuffix);
}

export function fileNameOfMap(name: string): string {
  return name.slice(0, -mapSuffix.length);
}

export function plainPathOf(filePath: string): string {
  return filePath + plainSuffix;
}

export function mapPathOf(filePath: string): string {
  return filePath + mapSuffix;
}

/** The native files of a folder that have a map. */
export function mappedFiles(folder: string): string[] {
  const names = fs.readdirSync(folder).filter(isMapName);
  return names.map((name) => path.join(folder, fileNameOfMap(name)));
}

/** Units that a map has room for: a file may grow, as growing formats do. */
export function unitCountOf(baseBytes: number): number {
  return Math.ceil(Math.min(2 * baseBytes + format.growthRoomBytes, format.maxFileBytes) / format.unitBytes);
}

/** Whether writes have been kept for this native file. */
export function hasReplacement(filePath: string): boolean {
  return fs.existsSync(filePath + mapSuffix);
}

/**
 * Throws away what was written: `discard` mode, and `replacement drop`.
 * @throws UsageError when it is open; UnavailableError when a file cannot be removed
 */
export function removeReplacement(filePath: string): void {
  const dataPath = filePath + dataSuffix;
  const dataFd = fs.existsSync(dataPath) ? openToWrite(dataPath) : undefined;
  try {
    if (dataFd !== undefined) lockExclusively(dataFd, dataPath);
    unlinkReplacement(filePath);
  } finally {
    if (dataFd !== undefined) fs.closeSync(dataFd);
  }
}

/**
 * The same where it may be open: whoever has it open goes on with files that have no name any more.
 * @throws UnavailableError when a file cannot be removed
 */
export function unlinkReplacement(filePath: string): void {
  try {
    // The map first, durably: a data file without one is nothing.
    for (const name of [filePath + mapSuffix, filePath + dataSuffix]) {
      fs.rmSync(name, { force: true });
      syncFolder(path.dirname(filePath));
    }
  } catch (error) {
    throw error instanceof VeneerError ? error : writeFailure(filePath, 'remove what was written to it', error);
  }
}

/** Whether an open replacement still has its name: not when it was removed, or another was put in its place. */
export function isStillNamed({ parts }: OpenReplacement, filePath: string): boolean {
  const ours = fs.fstatSync(parts.mapFd, { bigint: true });
  const named = fs.statSync(filePath + mapSuffix, { bigint: true, throwIfNoEntry: false });
  return named?.dev === ours.dev && named.ino === ours.ino;
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
 * @throws UsageError when it is open elsewhere; CapacityError when the disk is full; ReadOnlyError, UnavailableError
 */
export function openReplacement(
  place: ReplacementPlace,
  key?: ThreadKey,
  bootId: Guid = currentBootId(),
): OpenReplacement {
  const mapPath = place.path + mapSuffix;
  const closers: Closable[] = [];
  if (place.isSealed) requireKey(key, place.path);
  removeLeftover(place);
  try {
    const dataFd = openData(place);
    closers.push({ close: () => fs.closeSync(dataFd) });
    if (!hasReplacement(place.path)) makeFiles(place, dataFd, key, bootId);
    const mapFd = openToWrite(mapPath);
    closers.push({ close: () => fs.closeSync(mapFd) });
    const parts = load(place, key, { mapFd, dataFd, mapPath, bootId });
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

/**
 * The map that another plugin file of this name has left, when its disk file took its place and a crash came before the map was removed:
 * then the data file has gone to be the disk file.
 */
function removeLeftover({ path: filePath, pluginId }: ReplacementPlace): void {
  const found = peekHeader(filePath);
  if (found === undefined || found.pluginId === pluginId || fs.existsSync(filePath + dataSuffix)) return;
  if (replacementStates[found.state] === 'final') unlinkReplacement(filePath);
}

/** The header of a native file's map, without opening it; undefined where there is none, or it is damaged. */
export function peekHeader(filePath: string): format.MapHeader | undefined {
  if (!hasReplacement(filePath)) return undefined;
  try {
    const fd = fs.openSync(filePath + mapSuffix, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
    try {
      return readHeader(fd, filePath + mapSuffix).header;
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    return undefined;
  }
}

/** The data file, locked; made when nothing was kept yet. */
function openData(place: ReplacementPlace): number {
  const dataPath = place.path + dataSuffix;
  const mayMake = !hasReplacement(place.path);
  if (!mayMake && !fs.existsSync(dataPath)) {
    throw new FormatError(dataPath, 'data', 0, `is missing, but the map beside it speaks of it; put it back`);
  }
  const dataFd = openToWrite(dataPath, mayMake ? fs.constants.O_CREAT : 0);
  try {
    lockExclusively(dataFd, dataPath);
    // Between opening and locking, it may have been removed or replaced.
    if (fs.fstatSync(dataFd, { bigint: true }).ino !== fs.statSync(dataPath, { bigint: true }).ino) {
      throw new UnavailableError(`${dataPath}: was replaced while it was opened; try again`, { retryable: true });
    }
    return dataFd;
  } catch (error) {
    fs.closeSync(dataFd);
    throw error;
  }
}

function openToWrite(filePath: string, moreFlags = 0): number {
  try {
    return fs.openSync(filePath, fs.constants.O_RDWR | fs.constants.O_NOFOLLOW | moreFlags, 0o600);
  } catch (error) {
    if (systemErrorCode(error) === 'EROFS') throw new ReadOnlyError(`${filePath}: its file system is read-only`);
    throw writeFailure(filePath, 'open it for writing', error);
  }
}

function makeFiles(place: ReplacementPlace, dataFd: number, key: ThreadKey | undefined, bootId: Guid): void {
  const dataPath = place.path + dataSuffix;
  resizeFile(dataFd, 0, dataPath);
  resizeFile(dataFd, place.isSealed ? storedBytesOf(place.baseBytes) : place.baseBytes, dataPath);
  flushFile(dataFd, dataPath);
  syncFolder(path.dirname(dataPath));
  const seal = place.isSealed ? deriveSeal(requireKey(key, place.path), place.pluginId, randomGuid()) : undefined;
  const mapPath = place.path + mapSuffix;
  const mapFd = openUnfinished(mapPath, 'empty', 0o600);
  try {
    writeHeader(mapFd, firstHeader(place, seal, bootId), mapPath);
    commitFile(mapFd, mapPath);
  } catch (error) {
    fs.rmSync(mapPath + unfinishedSuffix, { force: true });
    throw error;
  } finally {
    fs.closeSync(mapFd);
  }
}

function firstHeader(place: ReplacementPlace, seal: ReplacementSeal | undefined, bootId: Guid): format.MapHeader {
  return {
    version: format.mapVersions[seal === undefined ? 'plain' : 'sealed'],
    state: replacementStates.indexOf('intercepting'),
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

function checkBelongs(header: format.MapHeader, place: ReplacementPlace, mapPath: string): void {
  if (header.pluginId === place.pluginId && header.baseBytes === BigInt(place.baseBytes)) return;
  throw new FormatError(
    mapPath,
    'plugin file',
    16,
    'holds writes of another plugin file; move it and its .replacement away to start anew',
  );
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
  checkBelongs(found, place, mapPath);
  const seal = sealOf(found, place.isSealed, key, mapPath);
  const presence = newPresence(unitCountOf(place.baseBytes));
  const map = new PresenceMap(presence);
  const dataPath = place.path + dataSuffix;
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
  const state = replacementStates[header.state];
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

/** Size and times of the file as last written; undefined when nothing was. Asks the file system only. */
export function replacementStat({
  path: filePath,
  isSealed,
}: ReplacementPlace): { sizeBytes: number; mtimeNs: bigint; ctimeNs: bigint } | undefined {
  if (!hasReplacement(filePath)) return undefined;
  const stat = fs.statSync(filePath + dataSuffix, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  const stored = Number(stat.size);
  const { mtimeNs, ctimeNs } = stat;
  return { mtimeNs, ctimeNs, sizeBytes: isSealed ? heldBytesOf(stored) : stored };
}
