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
 * 5. the maps are removed, and then the sealed data files
 * After a crash before 4 the plugin file is still there, the replacement serves alone, and finalizing again goes on. After one behind 4 the
 * disk file is in place; finalizing again, or the next plugin file of that name, removes what step 5 has left.
 */
import fs from 'node:fs';
import path from 'node:path';
import { systemErrorCode, UsageError } from '../base/errors.ts';
import { syncFolder, unfinishedSuffix, writeFileDurably } from '../base/durable.ts';
import { writeFailure } from '../base/full-io.ts';
import { dataPathOf, mapPathOf, plainPathOf, unlinkReplacement } from './open.ts';
import { PresenceMap } from './presence-map.ts';
import { flushAll, type SharedReplacement } from './shared.ts';
import { changeState, requireWay, stateOf } from './states.ts';

/** What a plugin file is called once its disk file has taken its place. */
const recordSuffix = '.finalized';

export function isRecordName(name: string): boolean {
  return name.endsWith(recordSuffix);
}

/** One native file of the disk: where it is to be, and its replacement; undefined where an earlier attempt has put it in place. */
export interface FinalizedFile {
  readonly path: string;
  readonly parts: SharedReplacement | undefined;
}

/**
 * @param files the plugin file's own first
 * @returns the path of the record
 * @throws UsageError when a file is not complete: nothing is changed then; CapacityError, UnavailableError: it may be done again
 */
export function finalizeFiles(pluginPath: string, files: readonly FinalizedFile[]): string {
  for (const { parts } of files) if (parts !== undefined) requireFinalizable(parts);
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
  for (const { path: filePath, parts } of files) {
    if (parts?.seal === undefined) fs.rmSync(mapPathOf(filePath), { force: true });
    else unlinkReplacement(filePath);
  }
  syncFolder(folder);
  return record;
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
  const from = parts.seal === undefined ? dataPathOf(filePath) : plainPathOf(filePath) + unfinishedSuffix;
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
    const record = `${pluginPath}${number === 0 ? '' : `.${number}`}${recordSuffix}`;
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
      writeFileDurably(record, fs.readFileSync(pluginPath));
    }
    return record;
  }
}
