/**
 * Whose writes lie beside a native file. A disk's writes belong to a folder, a file name and a plugin file: data and map are known by the
 * native file's name, and the map says to which plugin file, and to a native file of which size, they belong. Where that is another one,
 * nothing of them is used and nothing of them shows: a copy, or a plugin file that took another's place, never reads or writes what is not
 * its own.
 */
import * as fs from '../base/fs.ts';
import { LRUCache } from 'lru-cache';
import path from 'node:path';
import { FormatError, ForbiddenError, isShortage, systemErrorCode, UnavailableError } from '../base/errors.ts';
import { openRegular } from '../base/regular-file.ts';
import type { Guid } from '../bytes/guid.ts';
import { namesWithFile } from '../native/formats.ts';
import {
  dataPathOf,
  discardSuffix,
  hasReplacement,
  hasStem,
  mapPathOf,
  mappedStems,
  openBeside,
  startOfShortened,
  type BesideOwner,
} from '../plugin/beside.ts';
import { mapHeaderBytes, mapMagic, replacementStates, type MapHeader } from './layout.ts';
import { readHeader } from './map-file.ts';
import { heldBytesOf } from './sealed-file.ts';

export interface ReplacementPlace {
  /** The native file's path behind the mount, for messages; its name, with a suffix, names data and map. */
  readonly path: string;
  /** The same for system calls, where that is another: through a descriptor of the folder, which leads there whatever becomes of its path. */
  readonly at?: string;
  readonly pluginId: Guid;
  /** Size of the synthesized file. */
  readonly baseBytes: number;
  /** Whether what is written is sealed at rest. */
  readonly isSealed: boolean;
  /** Of the plugin file. Absent: what lies beside it must be the server's own. */
  readonly owner?: BesideOwner;
}

export type NamedBeside = Pick<ReplacementPlace, 'path' | 'at'>;

/** Where a part of a replacement is: for system calls, and as messages call it. */
export interface BesidePath {
  readonly at: string;
  readonly shown: string;
}

export function dataOf({ path: shown, at = shown }: NamedBeside): BesidePath {
  return { at: dataPathOf(at), shown: dataPathOf(shown) };
}

export function mapOf({ path: shown, at = shown }: NamedBeside): BesidePath {
  return { at: mapPathOf(at), shown: mapPathOf(shown) };
}

/** To whom a map says that it belongs. */
type Belonging = Pick<MapHeader, 'pluginId' | 'baseBytes' | 'state'>;

/** Of a map that is as it was. Its first bytes are not read again for each look at a file's size. */
const known = new LRUCache<string, Belonging>({ max: 4096 });

/**
 * Whether writes to this native file are kept.
 * @throws FormatError when what lies there belongs to another plugin file, or is no sound map; ForbiddenError when it is not to be trusted;
 *   UnavailableError
 */
export function isKept(place: ReplacementPlace): boolean {
  const map = mapOf(place);
  const stat = fs.lstatSync(map.at, { bigint: true, throwIfNoEntry: false });
  const belonging = stat === undefined ? undefined : belongingOf(map, stat, place.owner);
  if (belonging === undefined || isLeftover(place, belonging)) return false;
  requireBelongs(belonging, place, map.shown);
  return true;
}

/** The same where it makes no difference why they are not this file's. */
export function isOwnKept(place: ReplacementPlace): boolean {
  try {
    return isKept(place);
  } catch (error) {
    if (isShortage(error)) throw error;
    if (error instanceof FormatError || error instanceof ForbiddenError || error instanceof UnavailableError)
      return false;
    throw error;
  }
}

/**
 * Whether a map is what another plugin file of this name has left, when its disk file took its place and a crash came before the map was
 * removed: then the data file has gone to be the disk file.
 */
function isLeftover(place: ReplacementPlace, { pluginId, state }: Belonging): boolean {
  if (pluginId === place.pluginId || replacementStates[state] !== 'final') return false;
  return fs.lstatSync(dataOf(place).at, { throwIfNoEntry: false }) === undefined;
}

export function belongs(header: Belonging, place: ReplacementPlace): boolean {
  return header.pluginId === place.pluginId && header.baseBytes === BigInt(place.baseBytes);
}

/** @throws FormatError that says what to do */
export function requireBelongs(header: Belonging, place: ReplacementPlace, shown: string): void {
  if (belongs(header, place)) return;
  throw new FormatError(
    shown,
    'plugin file',
    16,
    'holds writes of another plugin file; move it and its .replacement away to start anew',
  );
}

/** Of a folder as it was: the stems of maps whose native file is not there. */
const strays = new LRUCache<string, readonly string[]>({ max: 256 });

/**
 * A disk whose plugin file was renamed with no mount that would see it has its writes under the old name. It would read as if it had none.
 * @throws UnavailableError where writes of this very plugin file lie in its folder under a name that nothing there has
 */
export function requireNotRenamed({ path: shown, at = shown, pluginId, owner }: ReplacementPlace): void {
  const folder = path.dirname(at);
  const found = straysIn(folder).find((stem) => {
    const map = mapOf({ path: path.join(path.dirname(shown), stem), at: `${folder}/${stem}` });
    try {
      const stat = fs.lstatSync(map.at, { bigint: true, throwIfNoEntry: false });
      const belonging = stat === undefined ? undefined : belongingOf(map, stat, owner);
      return belonging?.pluginId === pluginId && replacementStates[belonging.state] !== 'final';
    } catch (error) {
      if (isShortage(error)) throw error;
      // Somebody else's, or nobody's.
      return false;
    }
  });
  if (found === undefined) return;
  const [data, map] = [path.basename(dataPathOf(found)), path.basename(mapPathOf(found))];
  throw new UnavailableError(
    `${shown}: its plugin file was renamed, and what was written to it is still called ${data} and ${map}; rename these in the same way, or move them away to start anew`,
  );
}

function straysIn(folder: string): readonly string[] {
  const { dev, ino, mtimeNs, ctimeNs } = fs.statSync(folder, { bigint: true });
  const key = `${dev}:${ino}:${mtimeNs}:${ctimeNs}`;
  const remembered = strays.get(key);
  if (remembered !== undefined) return remembered;
  const stems = mappedStems(folder).map((stem) => path.basename(stem));
  const names = stems.length === 0 ? [] : fs.readdirSync(folder);
  const found = stems.filter((stem) => {
    if (stem.endsWith(discardSuffix)) return false;
    const owners = [stem, ...namesWithFile(stem)];
    const isShortened = startOfShortened(stem) !== undefined;
    return !names.some((name) => owners.includes(name) || (isShortened && hasStem(name, stem)));
  });
  strays.set(key, found);
  return found;
}

/** Undefined when it went this moment. */
function belongingOf(map: BesidePath, stat: fs.BigIntStats, owner: BesideOwner | undefined): Belonging | undefined {
  const key = `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}:${owner?.uid}:${owner?.mode}`;
  const remembered = known.get(key);
  if (remembered !== undefined) return remembered;
  try {
    const { pluginId, baseBytes, state } = readMapHeader(map, owner);
    const found = { pluginId, baseBytes, state };
    known.set(key, found);
    return found;
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    if (code === 'ENOENT') return undefined;
    throw new UnavailableError(`${map.shown}: cannot be opened`, { cause: error });
  }
}

function readMapHeader(map: BesidePath, owner: BesideOwner | undefined): MapHeader {
  const fd = openBeside(map.at, fs.constants.O_RDONLY, owner, map.shown);
  try {
    if (!startsAsMap(fd))
      throw new FormatError(map.shown, 'magic', 0, 'is no map of what was written to a disk file; move it away');
    return readHeader(fd, map.shown).header;
  } finally {
    fs.closeSync(fd);
  }
}

/** Whether one of the two headers claims to be one. */
function startsAsMap(fd: number): boolean {
  const magic = Buffer.alloc(mapMagic.length);
  return [0, mapHeaderBytes].some((at) => {
    const length = fs.readSync(fd, magic, 0, magic.length, at);
    return magic.toString('latin1', 0, length) === mapMagic;
  });
}

/** Whether a file is a map, whosever. What cannot be looked at may be one. */
export function mayBeMap(filePath: string): boolean {
  try {
    const fd = openRegular(filePath, fs.constants.O_RDONLY);
    try {
      return startsAsMap(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    return !(error instanceof ForbiddenError);
  }
}

/** The header of a native file's map, without opening it; undefined where there is none, or it is damaged. */
export function peekHeader(filePath: string): MapHeader | undefined {
  if (!hasReplacement(filePath)) return undefined;
  const at = mapPathOf(filePath);
  try {
    // Only looked at: whoever uses it asks whose it is.
    return readMapHeader({ at, shown: at }, fs.lstatSync(at));
  } catch (error) {
    if (isShortage(error)) throw error;
    return undefined;
  }
}

/** Size and times of the file as last written; undefined when nothing was. Asks the file system only, and a map once. */
export function replacementStat(
  place: ReplacementPlace,
): { sizeBytes: number; mtimeNs: bigint; ctimeNs: bigint } | undefined {
  if (!isOwnKept(place)) return undefined;
  const stat = fs.lstatSync(dataOf(place).at, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  const stored = Number(stat.size);
  const { mtimeNs, ctimeNs } = stat;
  return { mtimeNs, ctimeNs, sizeBytes: place.isSealed ? heldBytesOf(stored) : stored };
}
