/**
 * Where a plugin file is now: its folder, held by a descriptor, and its name in there. Found from a descriptor of the plugin file, so that it
 * stays right when the file, or a folder above it, was moved since it was opened; and found again by looking: the name that the system tells
 * counts only where it leads, in that very folder, to that very file.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { isShortage, SeveralNamesError, systemErrorCode, UnavailableError } from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';
import type { BesideOwner } from '../plugin/beside.ts';
import { openPath } from '../base/open-path.ts';
import { isRecordName } from './record.ts';

/** While the file is looked for, it may be moved. */
const maxTries = 4;

export class PluginHome implements Closable {
  /** Of the plugin file. */
  readonly name: string;
  /** Of the folder, for messages. */
  readonly path: string;
  /** Of the folder, for system calls. */
  readonly at: string;
  readonly owner: BesideOwner;
  readonly #pluginFd: number;
  readonly #folderFd: number;

  private constructor(pluginFd: number, folderFd: number, folder: string, name: string, owner: BesideOwner) {
    this.#pluginFd = pluginFd;
    this.#folderFd = folderFd;
    this.at = `/proc/self/fd/${folderFd}`;
    this.path = folder;
    this.name = name;
    this.owner = owner;
  }

  /**
   * @param pluginFd of the plugin file; stays the caller's
   * @param within the folder that is served: what was moved out of it is not looked for
   * @param shown what messages call the file
   * @throws UnavailableError when it was removed, replaced or moved away; SeveralNamesError
   */
  static find(pluginFd: number, within: string, shown: string): PluginHome {
    for (let tries = 0; tries < maxTries; tries++) {
      const home = PluginHome.#look(pluginFd, within);
      if (home === undefined) continue;
      try {
        requireOneName(fs.fstatSync(pluginFd, { bigint: true }), home.at, home.name, shown);
        return home;
      } catch (error) {
        home.close();
        throw error;
      }
    }
    throw new UnavailableError(`${shown}: its plugin file was removed, replaced or moved away since it was opened`);
  }

  static #look(pluginFd: number, within: string): PluginHome | undefined {
    const found = fs.readlinkSync(`/proc/self/fd/${pluginFd}`);
    let folderFd: number;
    try {
      folderFd = openPath(path.dirname(found), true);
    } catch (error) {
      if (systemErrorCode(error) === undefined || isShortage(error)) throw error;
      return undefined;
    }
    const stat = fs.fstatSync(pluginFd);
    const owner = { uid: stat.uid, mode: stat.mode };
    const folder = fs.readlinkSync(`/proc/self/fd/${folderFd}`);
    const home = new PluginHome(pluginFd, folderFd, folder, path.basename(found), owner);
    if ((folder === within || folder.startsWith(within === '/' ? within : `${within}/`)) && home.isStillThere)
      return home;
    home.close();
    return undefined;
  }

  /** Whether the name in the folder still is that file. */
  get isStillThere(): boolean {
    const held = fs.fstatSync(this.#pluginFd, { bigint: true });
    const named = fs.lstatSync(`${this.at}/${this.name}`, { bigint: true, throwIfNoEntry: false });
    return named?.dev === held.dev && named.ino === held.ino;
  }

  close(): void {
    fs.closeSync(this.#folderFd);
  }
}

/**
 * What was written lies beside a file's name: of a file with several, nobody could tell beside which. The further names that a record of
 * `finalize` is do not count.
 * @param stat of the plugin file
 * @param folder where it has the name
 * @throws SeveralNamesError
 */
export function requireOneName(stat: fs.BigIntStats, folder: string, name: string, shown: string): void {
  if (stat.nlink <= 1n) return;
  const records = fs.readdirSync(folder).filter((other) => {
    if (other === name || !isRecordName(other)) return false;
    const there = fs.lstatSync(`${folder}/${other}`, { bigint: true, throwIfNoEntry: false });
    return there?.ino === stat.ino && there.dev === stat.dev;
  });
  if (stat.nlink - BigInt(records.length) <= 1n) return;
  throw new SeveralNamesError(
    `${shown}: its plugin file has several names (hard links), and what is written to a disk belongs to one; make a file of its own of each with cp`,
  );
}
