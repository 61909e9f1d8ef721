/**
 * The last step: the replacement takes the plugin file's place in the folder. What is left is an ordinary disk file, and the plugin file
 * beside it as a record, under a name that no mount takes for a disk. Of a sealed replacement it is the plain file that was made of it first
 * (decrypt.ts), and nobody writes any more.
 *
 * Crash order:
 * 1. all files of the disk are flushed; then each one's header says `final`, durably
 * 2. files that only the mount had (a VMDK's extent) get their names, and the folder is flushed
 * 3. the plugin file gets a second name, that of the record, and the folder is flushed
 * 4. the main file is renamed over the plugin file: one name, at every moment whole; the folder is flushed
 * 5. the sealed data files are removed, the folder is flushed, and then the maps
 * After a crash before 4 the plugin file is still there, the replacement serves alone, and finalizing again goes on. After one behind 4 the
 * disk file is in place; finalizing again, or the next mount, removes what step 5 has left: as long as anything is, a map says so
 * (leftovers.ts).
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { systemErrorCode, UsageError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { syncFolder, unfinishedPathOf, writeFileDurably } from '../base/durable.ts';
import { writeFailure } from '../base/full-io.ts';
import { suffixed } from '../base/suffixed.ts';
import { dataPathOf, mapPathOf, plainPathOf } from '../plugin/beside.ts';
import { recordSuffix } from '../plugin/plugin-file.ts';
import { peekHeader } from './beside.ts';
import { PresenceMap } from './presence-map.ts';
import { flushAll, type SharedReplacement } from './shared.ts';
import { changeState, replacementStates, requireWay, stateOf } from './states.ts';

export function isRecordName(name: string): boolean {
  return name.endsWith(recordSuffix);
}

/** @param number of the records of this name that there were before */
export function recordPathOf(pluginPath: string, number: number): string {
  return suffixed(pluginPath, `${number === 0 ? '' : `.${number}`}${recordSuffix}`);
}

/** One native file of the disk: where it is to be, and its replacement; undefined where it is in place (`isInPlace`). */
export interface FinalizedFile {
  readonly path: string;
  readonly parts: SharedReplacement | undefined;
}

/**
 * @param files the plugin file's own first
 * @returns the path of the record
 * @throws UsageError when a file is not complete, or another has its name: nothing is changed then; CapacityError, UnavailableError: it may be
 *   done again
 */
export function finalizeFiles(pluginPath: string, files: readonly FinalizedFile[]): string {
  for (const { parts } of files) if (parts !== undefined) requireFinalizable(parts);
  for (const file of files) requireFreePlace(file, pluginPath);
  for (const { parts } of files) {
    if (parts === undefined) continue;
    const map = new PresenceMap(parts.presence);
    map.locked('flush', 0, () => flushAll(parts, map));
    changeState(parts, map, 'final');
  }
  const folder = path.dirname(pluginPath);
  const owner = fs.statSync(pluginPath);
  for (const file of files.filter(({ path: filePath }) => filePath !== pluginPath)) putInPlace(file, owner, folder);
  const record = keepRecord(pluginPath, folder);
  for (const file of files.filter(({ path: filePath }) => filePath === pluginPath)) putInPlace(file, owner, folder);
  for (const { path: filePath, parts } of files)
    removeSealed(filePath, parts === undefined || parts.seal !== undefined);
  for (const { path: filePath } of files) fs.rmSync(mapPathOf(filePath), { force: true });
  syncFolder(folder);
  return record;
}

/** Durably, before the map goes that tells of it. */
function removeSealed(filePath: string, isSealed: boolean): void {
  if (!isSealed || !fs.existsSync(dataPathOf(filePath))) return;
  fs.rmSync(dataPathOf(filePath));
  syncFolder(path.dirname(filePath));
}

/** Whether an interrupted attempt has put a file in its place that only the mount had: not for the plugin file's own. */
export function isInPlace(filePath: string): boolean {
  const header = peekHeader(filePath);
  return header !== undefined && replacementStates[header.state] === 'final' && fs.existsSync(filePath);
}

/** Before anything is changed, nothing may have the name of a file that only the mount has. */
function requireFreePlace({ path: filePath, parts }: FinalizedFile, pluginPath: string): void {
  if (parts === undefined || filePath === pluginPath || !fs.existsSync(filePath)) return;
  throw new UsageError(`${filePath}: is in the way of the disk file that is to be there; move it away`);
}

/** @throws UsageError when it is not complete */
export function requireFinalizable(parts: SharedReplacement): void {
  const state = stateOf(parts);
  if (state === 'final') return;
  if (state === 'filling') throw new UsageError(`${parts.name}: is still being filled; see: veneer fill status`);
  requireWay(parts.name, state, 'final');
}

/** The disk file belongs to whom the plugin file belonged, and may be read and written by the same. */
function putInPlace({ path: filePath, parts }: FinalizedFile, owner: fs.Stats, folder: string): void {
  if (parts === undefined) return;
  const from = parts.seal === undefined ? dataPathOf(filePath) : unfinishedPathOf(plainPathOf(filePath));
  try {
    const fd = fs.openSync(from, fs.constants.O_RDWR | fs.constants.O_NOFOLLOW);
    try {
      fs.fchownSync(fd, owner.uid, owner.gid);
      fs.fchmodSync(fd, owner.mode & 0o777);
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    fs.renameSync(from, filePath);
  } catch (error) {
    throw writeFailure(filePath, 'put the disk file in its place', error);
  }
  syncFolder(folder);
}

/** A further name for the plugin file. One that an interrupted attempt has given it is taken. */
function keepRecord(pluginPath: string, folder: string): string {
  const { ino } = fs.statSync(pluginPath, { bigint: true });
  for (let number = 0; ; number++) {
    const record = recordPathOf(pluginPath, number);
    const there = fs.statSync(record, { bigint: true, throwIfNoEntry: false });
    if (there?.ino === ino) return record;
    if (there !== undefined) continue;
    try {
      fs.linkSync(pluginPath, record);
      syncFolder(folder);
    } catch (error) {
      const code = systemErrorCode(error);
      // A file system without links gets a copy.
      if (code !== 'EPERM' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS')
        throw writeFailure(record, 'keep the plugin file as a record', error);
      writeFileDurably(record, fs.readFileSync(pluginPath), fileModes.pluginFile);
    }
    return record;
  }
}
