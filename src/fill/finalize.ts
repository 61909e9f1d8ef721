/**
 * The last step: the replacement takes the plugin file's place in the folder. What is left is an ordinary disk file, and the plugin file
 * beside it as a record (record.ts). Of a sealed replacement it is the plain file that was made of it first (decrypt.ts), and nobody writes any
 * more.
 *
 * At every moment, after any kill or power loss, the name of the disk reads as the disk and takes writes into it.
 *
 * Crash order:
 * 1. all files of the disk are flushed; then each one's header says `final`, durably
 * 2. the plugin file is copied to its record, durably
 * 3. files that only the mount had (a VMDK's extent) are renamed to their names, and the folder is flushed
 * 4. the main file is renamed over the plugin file: one name, at every moment whole; the folder is flushed
 * 5. (`clearAway`) the sealed data files are removed, the folder is flushed, and then the maps
 * After a crash before 4 the plugin file is still there, under its own name and no other: the replacement serves alone, those of step 3 are
 * in their places, and finalizing again goes on. After one behind 4 the disk file is in place; finalizing again, or the next mount, removes
 * what step 5 has left: as long as anything is, a map says so (leftovers.ts).
 *
 * A mount that shows these files takes part in each rename (`Placement`): what is open, and what the kernel knows, goes on with the disk file.
 * Between 4 and 5 it waits until no thread is at a request that began before.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { UsageError } from '../base/errors.ts';
import { syncFolder, unfinishedPathOf } from '../base/durable.ts';
import { copyAccessList } from '../base/access-list.ts';
import { writeFailure } from '../base/full-io.ts';
import type { Guid } from '../bytes/guid.ts';
import { dataPathOf, mapPathOf, plainPathOf } from '../plugin/beside.ts';
import { peekHeader } from '../replacement/beside.ts';
import { replacementStates } from '../replacement/layout.ts';
import { PresenceMap } from '../replacement/presence-map.ts';
import { keepRecord } from '../replacement/record.ts';
import { flushAll, shared, type SharedReplacement } from '../replacement/shared.ts';
import { changeState, requireWay, stateOf } from '../replacement/states.ts';

/** One native file of the disk: where it is to be, and its replacement; undefined where it is in place (`isInPlace`). */
export interface FinalizedFile {
  readonly path: string;
  readonly parts: SharedReplacement | undefined;
}

/** A disk file that takes the place of a native file. */
export interface PlacedFile {
  /** The plugin file. */
  readonly plugin: fs.BigIntStats;
  /** Which of its files: '' for the one that has its name. */
  readonly part: string;
  /** Of the disk file: open for reading and writing, until `Placing` returns. */
  readonly fd: number;
  readonly parts: SharedReplacement;
}

/** Runs `rename`, with which the file has its place, once. What throws has changed nothing. */
export type Placing = (file: PlacedFile, rename: () => void) => void;

/** What a mount that shows the files does while they take their places. */
export interface Placement {
  readonly place: Placing;
  /**
   * Runs `action` while no name of a plugin file changes.
   * @throws UnavailableError where the plugin file has another name by then: nothing is done
   */
  whileNamesStay<T>(action: () => T): T;
}

const alone: Placement = { place: (_file, rename) => rename(), whileNamesStay: (action) => action() };

export interface Placed {
  /** The path of the record. */
  readonly record: string;
  /** Removes what is not needed any more, once nobody looks for it. */
  readonly clearAway: () => void;
}

/**
 * @param files the plugin file's own first
 * @returns when the disk files are in their places
 * @throws UsageError when a file is not complete, or another has its name: nothing is changed then; CapacityError, UnavailableError: it may be
 *   done again
 */
export function finalizeFiles(pluginPath: string, files: readonly FinalizedFile[], placement = alone): Placed {
  for (const { parts } of files) if (parts !== undefined) requireFinalizable(parts);
  for (const file of files) requireFreePlace(file, pluginPath);
  for (const { parts } of files) {
    if (parts === undefined) continue;
    const map = new PresenceMap(parts.presence);
    map.locked('flush', 0, () => flushAll(parts, map));
    changeState(parts, map, 'final');
  }
  const isOwn = ({ path: filePath }: FinalizedFile): boolean => filePath === pluginPath;
  const record = placement.whileNamesStay(() => {
    const kept = keepRecord(pluginPath);
    for (const file of [...files.filter((each) => !isOwn(each)), ...files.filter(isOwn)])
      putInPlace(file, pluginPath, placement.place);
    return kept;
  });
  const clearAway = (): void => {
    for (const { path: filePath, parts } of files)
      removeSealed(filePath, parts === undefined || parts.seal !== undefined);
    for (const { path: filePath } of files) fs.rmSync(mapPathOf(filePath), { force: true });
    syncFolder(path.dirname(pluginPath));
  };
  return { record, clearAway };
}

/** Durably, before the map goes that tells of it. */
function removeSealed(filePath: string, isSealed: boolean): void {
  if (!isSealed || !fs.existsSync(dataPathOf(filePath))) return;
  fs.rmSync(dataPathOf(filePath));
  syncFolder(path.dirname(filePath));
}

/** Whether an interrupted attempt has put a file in its place that only the mount had: not for the plugin file's own. */
export function isInPlace(filePath: string, pluginId: Guid): boolean {
  const header = peekHeader(filePath);
  if (header?.pluginId !== pluginId || replacementStates[header.state] !== 'final') return false;
  return fs.lstatSync(filePath, { throwIfNoEntry: false })?.isFile() === true;
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
function giveAs(pluginPath: string, fd: number): void {
  const plugin = fs.openSync(pluginPath, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
  try {
    const owner = fs.fstatSync(plugin);
    fs.fchownSync(fd, owner.uid, owner.gid);
    // With a list, the mode's bits for the group are an upper bound, and no right of the group's.
    const mode = owner.mode & 0o777;
    fs.fchmodSync(fd, copyAccessList(plugin, fd) ? mode : mode & 0o700);
  } finally {
    fs.closeSync(plugin);
  }
}

function putInPlace({ path: filePath, parts }: FinalizedFile, pluginPath: string, placing: Placing): void {
  if (parts === undefined) return;
  const from = parts.seal === undefined ? dataPathOf(filePath) : unfinishedPathOf(plainPathOf(filePath));
  try {
    const fd = fs.openSync(from, fs.constants.O_RDWR | fs.constants.O_NOFOLLOW);
    try {
      giveAs(pluginPath, fd);
      fs.fsyncSync(fd);
      const plugin = fs.statSync(pluginPath, { bigint: true });
      const part = filePath === pluginPath ? '' : path.basename(filePath);
      placing({ plugin, part, fd, parts }, () => {
        // Whoever still comes through the replacement sees what others write, and how long the file is.
        Atomics.store(new BigInt64Array(parts.numbers), shared.direct, 1n);
        fs.renameSync(from, filePath);
      });
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    throw writeFailure(filePath, 'put the disk file in its place', error);
  }
  syncFolder(path.dirname(filePath));
}
