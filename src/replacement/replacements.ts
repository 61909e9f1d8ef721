/**
 * The replacement disk files that are open in a mount: each opened once, by the main thread, and used by all threads.
 *
 * Which one belongs to a plugin file is a matter of files and not of names or ids: it is the one that was opened for that very plugin file
 * (device and inode), or else the one whose map lies beside it now. Two plugin files with one id are two disks; one that was written anew
 * under its name, with its id, is the same.
 *
 * Order in which one is made, while no names of plugin files change (disk-signals.ts):
 * 1. the folder of the plugin file is found from its descriptor, as it is now, and held
 * 2. the replacement is made in that folder, durably
 * 3. the plugin file still has its name there; else what was made goes again
 * 4. it is said to all threads
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import type { ThreadKey } from '../backup/crypto/seal.ts';
import { FormatError, UnavailableError, UsageError, VeneerError } from '../base/errors.ts';
import { closeAll, type Closable } from '../base/ownership.ts';
import { discardedPathOf, mapPathOf } from '../plugin/beside.ts';
import { currentPath, openPath } from '../base/open-path.ts';
import { dataOf, isKept, mapOf, mayBeMap, belongs, requireBelongs, type ReplacementPlace } from './beside.ts';
import { openReplacement, removeReplacement, unlinkReplacement, type OpenReplacement } from './open.ts';
import { Replacement, type SharedReplacement } from './replacement.ts';
import { DiskSignals, markOf } from './disk-signals.ts';
import { PluginHome } from './plugin-home.ts';
import { fileLimit } from '../base/system-calls.ts';

/** Which native file it is whose writes are kept: plain values. */
export interface KeptFile {
  /** As the plugin file was called when it was looked at. */
  readonly place: ReplacementPlace;
  readonly pluginName: string;
  readonly fileName: string;
  /** Which of the plugin file's native files. */
  readonly index: number;
  /** Whether the synthesized bytes hold the plugin file's name: then they are others under another name. */
  readonly holdsName: boolean;
  /** Whether what is written is thrown away when the mount ends. */
  readonly discard: boolean;
}

export interface AskedReplacement extends KeptFile {
  /** Of the plugin file; open in this process until the answer is there. */
  readonly pluginFd: number;
  /** Whether one is made where there is none. */
  readonly makes: boolean;
}

export interface Replacements {
  readonly signals: DiskSignals;
  /**
   * The replacement of a native file, opened or made at the first call.
   * @param sealingKey asked for only where it is sealed
   * @returns undefined where there is none, and none is made
   * @throws as openReplacement and PluginHome.find do, and as `sealingKey` does
   */
  acquire(asked: AskedReplacement, sealingKey: () => ThreadKey): SharedReplacement | undefined;
}

/**
 * Where a native file's replacement lies, or would: beside its plugin file, where that is now.
 * @returns undefined where the plugin file was given a name under which its native files are others
 */
export function placeIn(home: PluginHome, file: KeptFile): ReplacementPlace | undefined {
  const isMoved = home.name !== file.pluginName;
  if (isMoved && file.holdsName) return undefined;
  const name = isMoved ? home.name : file.fileName;
  const [shown, at] = [path.join(home.path, name), `${home.at}/${name}`];
  const { owner } = home;
  return file.discard
    ? { ...file.place, path: discardedPathOf(shown), at: discardedPathOf(at), owner }
    : { ...file.place, path: shown, at, owner };
}

const reservedFiles = 64;

interface Entry {
  readonly open: OpenReplacement;
  readonly place: ReplacementPlace;
  readonly discard: boolean;
  /** Held: of what it was opened for, so that no other file gets the plugin file's number, and its folder for what is to be done at the end. */
  readonly held: Closable[];
}

/** Keeps them in this thread. */
export class OpenReplacements implements Replacements, Closable {
  readonly signals: DiskSignals;
  readonly #rootFd: number;
  /** By plugin file and which of its files; by map. */
  readonly #byPlugin = new Map<string, Entry>();
  readonly #byMap = new Map<string, Entry>();
  readonly #entries = new Set<Entry>();
  #isClosed = false;

  /** @param folder that is served */
  constructor(folder: string, signals: DiskSignals = new DiskSignals()) {
    this.signals = signals;
    this.#rootFd = openPath(folder, true);
  }

  acquire(asked: AskedReplacement, sealingKey: () => ThreadKey): SharedReplacement | undefined {
    if (this.#isClosed) throw new UnavailableError(`${asked.place.path}: the mount has ended`);
    const plugin = fs.fstatSync(asked.pluginFd, { bigint: true });
    const known = this.#known(asked, plugin);
    if (known !== undefined) return known;
    // Before the names are held: an image may have to be opened for it.
    const chainKey = asked.place.isSealed ? sealingKey() : undefined;
    return this.signals.whileNamesStay(() => this.#find(asked, plugin, chainKey));
  }

  /**
   * Flushes all that is kept, and throws away what is not.
   * @param isLast whether no thread uses them any more: else descriptors stay open, lest their numbers come to mean other files
   */
  close(isLast = true): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const entries = [...this.#entries];
    this.#entries.clear();
    closeAll([
      { close: () => fs.closeSync(this.#rootFd) },
      ...entries.map((entry) => ({ close: () => closeOne(entry, isLast) })),
    ]);
  }

  /** What was opened for this very plugin file. Of one that is gone, it goes on without a name; where only its own files are gone, it ends. */
  #known(asked: AskedReplacement, plugin: fs.BigIntStats): SharedReplacement | undefined {
    const key = diskKey(plugin, asked.index);
    const entry = this.#byPlugin.get(key);
    if (entry === undefined) return undefined;
    const { parts } = entry.open;
    // A plugin file that was written over is another disk, though it is the same file.
    const isSame = belongs(belongingOf(parts), asked.place);
    if (isSame && (fs.fstatSync(parts.mapFd).nlink > 0 || !this.#isThere(asked))) return parts;
    this.#byPlugin.delete(key);
    return undefined;
  }

  #isThere(asked: AskedReplacement): boolean {
    const home = this.#home({ ...asked, makes: false });
    home?.close();
    return home !== undefined;
  }

  #find(
    asked: AskedReplacement,
    plugin: fs.BigIntStats,
    chainKey: ThreadKey | undefined,
  ): SharedReplacement | undefined {
    const home = this.#home(asked);
    if (home === undefined) return undefined;
    const pluginFd = openPath(`/proc/self/fd/${asked.pluginFd}`, true);
    const held: Closable[] = [home, { close: () => fs.closeSync(pluginFd) }];
    try {
      const place = placeIn(home, asked);
      if (place === undefined) {
        if (!asked.makes) return undefined;
        throw new UnavailableError(`${asked.place.path}: has another name by now; close it and open it again`);
      }
      const entry = this.#at(place) ?? this.#open(asked, place, home, chainKey);
      if (entry === undefined) return undefined;
      entry.held.push(...held.splice(0));
      this.#byPlugin.set(diskKey(plugin, asked.index), entry);
      this.signals.note(markOf(plugin));
      return entry.open.parts;
    } finally {
      closeAll(held);
    }
  }

  /** Undefined where it is nowhere, and only looked for. */
  #home(asked: AskedReplacement): PluginHome | undefined {
    try {
      return PluginHome.find(asked.pluginFd, currentPath(this.#rootFd), asked.place.path);
    } catch (error) {
      if (!asked.makes && error instanceof VeneerError) return undefined;
      throw error;
    }
  }

  #open(
    asked: AskedReplacement,
    place: ReplacementPlace,
    home: PluginHome,
    chainKey: ThreadKey | undefined,
  ): Entry | undefined {
    if (asked.discard) removeDiscarded(place);
    const isThere = isKept(place);
    if (!isThere && !asked.makes) return undefined;
    requireFiles(place.path);
    const open = openReplacement(place, chainKey);
    if (!home.isStillThere) {
      open.close();
      if (!isThere) unlinkReplacement(place);
      throw new UnavailableError(`${asked.place.path}: its plugin file was moved or removed a moment ago`);
    }
    const entry: Entry = { open, place, discard: asked.discard, held: [] };
    this.#entries.add(entry);
    this.#byMap.set(fileKey(fs.fstatSync(open.parts.mapFd, { bigint: true })), entry);
    return entry;
  }

  /** What is open of the files that lie there now. @throws FormatError when they are of another disk, or do not belong together */
  #at(place: ReplacementPlace): Entry | undefined {
    const map = fs.lstatSync(mapOf(place).at, { bigint: true, throwIfNoEntry: false });
    const entry = map === undefined ? undefined : this.#byMap.get(fileKey(map));
    if (entry === undefined) return undefined;
    const { parts } = entry.open;
    requireBelongs(belongingOf(parts), place, mapOf(place).shown);
    const data = fs.lstatSync(dataOf(place).at, { bigint: true, throwIfNoEntry: false });
    if (data === undefined || fileKey(data) !== fileKey(fs.fstatSync(parts.dataFd, { bigint: true })))
      throw new FormatError(
        dataOf(place).shown,
        'data',
        0,
        'was replaced while it was in use; put it back, or unmount',
      );
    return entry;
  }
}

/**
 * What a replacement has open stays open: so many files are left for all else that a mount does.
 * @throws UnavailableError
 */
function requireFiles(shown: string): void {
  const { soft } = fileLimit();
  const left = soft - fs.readdirSync('/proc/self/fd').length;
  if (left >= reservedFiles) return;
  throw new UnavailableError(
    `${shown}: no further disk can be opened for what was written to it, for this mount may have ${soft} files open; allow more (ulimit -n), or unmount others`,
  );
}

/** Numbers of a file that is held open are given to no other. */
function fileKey({ dev, ino }: fs.BigIntStats): string {
  return `${dev}:${ino}`;
}

/** What a native file's replacement is known by in this mount. @param index which of the plugin file's native files */
export function diskKey(plugin: fs.BigIntStats, index: number): string {
  return `${fileKey(plugin)}:${index}`;
}

function belongingOf({ pluginId, baseBytes }: SharedReplacement): Parameters<typeof requireBelongs>[0] {
  return { pluginId, baseBytes: BigInt(baseBytes), state: 0 };
}

/** What a mount that died was to throw away. A plugin file may have just the name that such files have; its writes are its own. */
function removeDiscarded(place: ReplacementPlace): void {
  const { at = place.path } = place;
  if (fs.lstatSync(at, { throwIfNoEntry: false }) !== undefined)
    throw new UsageError(`${place.path}: is in the way of what is written and thrown away later; give it another name`);
  const isThere = fs.lstatSync(mapPathOf(at), { throwIfNoEntry: false }) !== undefined;
  if (!isThere || mayBeMap(mapPathOf(at))) removeReplacement(place);
}

function closeOne({ open, place, discard, held }: Entry, isLast: boolean): void {
  try {
    try {
      if (!discard) new Replacement(open.parts, { sizeBytes: 0, read: () => undefined }).sync();
    } finally {
      const isNamed = fs.fstatSync(open.parts.mapFd).nlink > 0;
      if (isLast) open.close();
      // Of one that is still open nobody takes the lock.
      if (discard && isNamed) (isLast ? removeReplacement : unlinkReplacement)(place);
    }
  } finally {
    if (isLast) closeAll(held);
  }
}
