/**
 * What lies beside a plugin file and belongs to it: names, and who may have made it. The names of one native file's replacement come from the
 * native file's own; all of these are longer than it, and so cut where a name would be too long (base/suffixed.ts).
 *
 *   NAME.replacement                 what was written (data)
 *   NAME.replacement-map             which parts of it (map); .veneer-part while it is made
 *   NAME.replacement-plain.veneer-part  a sealed one while it is decrypted
 *   NAME.discard.replacement...      the same of a mount that throws away at its end what was written
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { unfinishedSuffix } from '../base/durable.ts';
import { ForbiddenError } from '../base/errors.ts';
import { openRegular } from '../base/regular-file.ts';
import { lengthBytes, shortened } from '../base/suffixed.ts';

const dataSuffix = '.replacement';
const mapSuffix = '.replacement-map';
const plainSuffix = '.replacement-plain';
/** What is thrown away at unmount is kept apart from what an earlier mount kept. */
export const discardSuffix = '.discard';
/** Longer names would be too long with the suffix of a map that is being made. */
const maxWholeBytes = 234;
/** What is left of a longer one: short enough for every suffix. */
const shortenedBytes = 217;

/** What a stem that was shortened begins with; undefined for one that cannot have been. */
export function startOfShortened(stem: string): string | undefined {
  const found = /^(.*)~[0-9a-f]{16}$/.exec(stem)?.[1];
  return found !== undefined && lengthBytes(stem) > shortenedBytes - 4 ? found : undefined;
}

/** What data, map and plain file of a native file are called but for their suffixes. */
export function stemOf(filePath: string): string {
  const name = path.basename(filePath);
  if (lengthBytes(name) <= maxWholeBytes) return filePath;
  return path.join(path.dirname(filePath), shortened(name, shortenedBytes));
}

export function dataPathOf(filePath: string): string {
  return stemOf(filePath) + dataSuffix;
}

export function mapPathOf(filePath: string): string {
  return stemOf(filePath) + mapSuffix;
}

export function plainPathOf(filePath: string): string {
  return stemOf(filePath) + plainSuffix;
}

/** The native file's path as it names what is thrown away. */
export function discardedPathOf(filePath: string): string {
  return filePath + discardSuffix;
}

/** The stems of a folder that have a map. */
export function mappedStems(folder: string): string[] {
  const names = fs.readdirSync(folder).filter((name) => name.endsWith(mapSuffix));
  return names.map((name) => path.join(folder, name.slice(0, -mapSuffix.length)));
}

/** Whether something is there that would be the map of what was written to this native file. */
export function hasReplacement(filePath: string): boolean {
  return fs.lstatSync(mapPathOf(filePath), { throwIfNoEntry: false }) !== undefined;
}

const partSuffixes = [dataSuffix, mapSuffix, mapSuffix + unfinishedSuffix, plainSuffix + unfinishedSuffix];

/** A name that may be a part of a replacement, taken apart; undefined for nearly all names, at once. */
export function partOf(name: string): { readonly stem: string; readonly isMap: boolean } | undefined {
  if (!name.includes(dataSuffix)) return undefined;
  const suffix = partSuffixes.find((candidate) => name.endsWith(candidate));
  if (suffix === undefined) return undefined;
  return { stem: name.slice(0, -suffix.length), isMap: suffix === mapSuffix };
}

/** Whether a native file's replacement, or what a mount is to throw away of it, has this stem. */
export function hasStem(fileName: string, stem: string): boolean {
  return stemOf(fileName) === stem || stemOf(discardedPathOf(fileName)) === stem;
}

/** Of a plugin file: what lies beside it may be its owner's, and written by nobody who may not write to it. */
export interface BesideOwner {
  readonly uid: number;
  readonly mode: number;
}

const othersWrite = 0o022;

/**
 * Opens a file that lies beside a plugin file. It is the server's own, or root's, or the plugin file's owner's, who else can write to it could
 * write to the plugin file as well, and it has no other name.
 * @param shown what messages call it
 * @throws ForbiddenError for anything else, without opening it; the system's error
 */
export function openBeside(filePath: string, flags: number, owner: BesideOwner | undefined, shown: string): number {
  const fd = openRegular(filePath, flags, shown);
  try {
    requireOwned(fs.fstatSync(fd), owner, shown);
    return fd;
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

function requireOwned(stat: fs.Stats, owner: BesideOwner | undefined, shown: string): void {
  const owners = [process.geteuid?.(), 0, owner?.uid];
  if (!owners.includes(stat.uid))
    throw new ForbiddenError(
      `${shown}: belongs to user ${stat.uid}, and not to who owns its plugin file; chown it or move it away`,
    );
  if ((stat.mode & othersWrite & ~(owner?.mode ?? 0)) !== 0)
    throw new ForbiddenError(`${shown}: may be written by others than its plugin file; chmod go-w it or move it away`);
  if (stat.nlink > 1)
    throw new ForbiddenError(
      `${shown}: has further names (hard links), through which others may write to it; remove them or move it away`,
    );
}
