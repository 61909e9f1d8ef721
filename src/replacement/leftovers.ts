/**
 * What a crash has left of a `finalize` whose disk file is in its place already (finalize.ts, behind step 4): a map that says `final`, and of
 * a sealed replacement its data file. Nothing under a mount shows these, and nobody reads them any more.
 *
 * Removed only where all of this says so: the map is final; a record of its plugin file is there, and that plugin file is not; a disk file
 * has its name; and of a sealed one the plain file was renamed. Crash order: 1. the data file, durably; 2. the map.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { syncFolder, unfinishedPathOf } from '../base/durable.ts';
import { VeneerError } from '../base/errors.ts';
import { tryLock } from '../base/file-lock.ts';
import { openRegular } from '../base/regular-file.ts';
import type { Guid } from '../bytes/guid.ts';
import { dataPathOf, mapPathOf, mappedStems, plainPathOf, stemOf } from '../plugin/beside.ts';
import { maxPluginFileBytes, readPluginFile } from '../plugin/plugin-file.ts';
import { ownContentIn } from '../source/own-content.ts';
import { peekHeader } from './beside.ts';
import { replacementStates } from './layout.ts';
import { isRecordName, recordPathOf } from './record.ts';

/**
 * Removes them from a folder.
 * @returns the disk files beside which they were
 * @throws the system's error when they cannot be removed
 */
export function removeLeftovers(folder: string): string[] {
  return leftoversIn(folder, mappedStems(folder)).filter(remove);
}

/**
 * The same of one of them.
 * @param stem that its data and map have
 * @returns whether it is one: also where a mount is still at it
 * @throws as removeLeftovers
 */
export function removeLeftover(folder: string, stem: string): boolean {
  const found = leftoversIn(folder, [path.join(folder, stem)]);
  for (const filePath of found) remove(filePath);
  return found.length > 0;
}

function leftoversIn(folder: string, stems: readonly string[]): string[] {
  const finals = stems.flatMap((stem) => {
    const header = peekHeader(stem);
    if (header === undefined || replacementStates[header.state] !== 'final') return [];
    const named = path.join(folder, header.fileName);
    return [{ filePath: stemOf(named) === stem ? named : stem, header }];
  });
  if (finals.length === 0) return [];
  const { living, recorded } = pluginIdsIn(folder);
  return finals
    .filter(({ header }) => recorded.has(header.pluginId) && !living.has(header.pluginId))
    .filter(({ filePath, header }) => isDiskFile(filePath) && (header.sealed === 1 ? isRenamed : isMoved)(filePath))
    .map(({ filePath }) => filePath);
}

/** The record of a disk file that is in its plugin file's place; undefined where it is none. */
export function recordOf(filePath: string): string | undefined {
  if (!isDiskFile(filePath)) return undefined;
  let last: string | undefined;
  for (let number = 0; fs.existsSync(recordPathOf(filePath, number)); number++) last = recordPathOf(filePath, number);
  return last;
}

/** Of a sealed one; what is no file in the data file's place is nothing that finalize has left. */
function isRenamed(filePath: string): boolean {
  const data = fs.lstatSync(dataPathOf(filePath), { throwIfNoEntry: false });
  return data?.isFile() !== false && !fs.existsSync(unfinishedPathOf(plainPathOf(filePath)));
}

function isMoved(filePath: string): boolean {
  return !fs.existsSync(dataPathOf(filePath));
}

/** @returns false where a mount is at it: it has the lock of the data file, or of the disk file that this has become */
function remove(filePath: string): boolean {
  const dataPath = dataPathOf(filePath);
  const isSealed = fs.existsSync(dataPath);
  const fd = openRegular(isSealed ? dataPath : filePath, fs.constants.O_RDONLY);
  try {
    if (tryLock(fd, 'exclusive') === 'taken') return false;
    if (isSealed) {
      fs.rmSync(dataPath);
      syncFolder(path.dirname(filePath));
    }
  } finally {
    fs.closeSync(fd);
  }
  fs.rmSync(mapPathOf(filePath), { force: true });
  syncFolder(path.dirname(filePath));
  return true;
}

/** A file, and no plugin file, sound or not. */
function isDiskFile(filePath: string): boolean {
  if (fs.lstatSync(filePath, { throwIfNoEntry: false })?.isFile() !== true) return false;
  const fd = fs.openSync(filePath, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK);
  try {
    return ownContentIn(fd) !== 'plugin file';
  } finally {
    fs.closeSync(fd);
  }
}

/** Ids of the plugin files of a folder, and of those that are only a record any more. */
function pluginIdsIn(folder: string): { living: ReadonlySet<Guid>; recorded: ReadonlySet<Guid> } {
  const living = new Set<Guid>();
  const recorded = new Set<Guid>();
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const id = entry.isFile() ? pluginIdOf(path.join(folder, entry.name)) : undefined;
    if (id !== undefined) (isRecordName(entry.name) ? recorded : living).add(id);
  }
  return { living, recorded };
}

function pluginIdOf(file: string): Guid | undefined {
  try {
    return fs.statSync(file).size > maxPluginFileBytes ? undefined : readPluginFile(file).id;
  } catch (error) {
    if (error instanceof VeneerError || (error instanceof Error && 'syscall' in error)) return undefined;
    throw error;
  }
}
