/**
 * What may become of names under a mount. What was written to a disk lies beside its plugin file's name: neither gets away from the other, and a
 * disk has one name. Images, and names that only the mount has, stay as they are.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { ReadOnlyError, SeveralNamesError, type VeneerError } from '../base/errors.ts';
import { synthesizeFiles } from '../native/formats.ts';
import { hasReplacement } from '../plugin/beside.ts';
import type { DiskSignals } from '../replacement/disk-signals.ts';
import { unlinkReplacement } from '../replacement/open.ts';
import { requireOneName } from '../replacement/plugin-home.ts';
import type { Classifier, NativeSource } from './classify.ts';
import type { FolderTree } from './folder-tree.ts';
import type { Natives } from './natives.ts';
import type { Place } from './place.ts';

/** A rename that changes both names' files for each other. */
const renameExchange = 2;

export interface KeptNamesContext {
  readonly folders: FolderTree;
  readonly classifier: Classifier;
  readonly natives: Natives;
  readonly signals: DiskSignals;
  readonly nameOf: (place: Place) => string;
}

export class KeptNames {
  readonly #context: KeptNamesContext;

  constructor(context: KeptNamesContext) {
    this.#context = context;
  }

  /** @throws SeveralNamesError for a plugin file */
  link(from: Place, to: Place): void {
    const { folders, nameOf } = this.#context;
    if (this.#requireChangeable(from) !== undefined)
      throw new SeveralNamesError(`${nameOf(from)}: a plugin file has one name only; make a further disk with cp`);
    folders.makeLink(from, to);
  }

  /**
   * With a plugin file goes what was written to it.
   * @throws SeveralNamesError where it has writes, and another name that would be left without them
   */
  remove(place: Place): void {
    const { folders, natives, signals, nameOf } = this.#context;
    const plugin = this.#requireChangeable(place);
    if (plugin === undefined) {
      folders.removeFile(place);
      return;
    }
    signals.whileNamesStay(() => {
      const kept = natives.keptBeside(place, plugin);
      if (kept.length > 0) requireOneName(place.stat(), path.dirname(place.at), path.basename(place.at), nameOf(place));
      folders.removeFile(place);
      for (const file of kept) unlinkReplacement(file);
    });
  }

  /**
   * With a folder goes all that is in it.
   * @param flags of renameat2(2)
   */
  rename(from: Place, to: Place, flags: number): void {
    const { folders, signals, nameOf } = this.#context;
    const moved = this.#requireChangeable(from);
    const there = fs.lstatSync(to.at, { throwIfNoEntry: false });
    const replaced = there === undefined ? undefined : this.#requireChangeable(to);
    const isFolder = fs.lstatSync(from.at).isDirectory();
    if (moved === undefined && replaced === undefined && !isFolder) {
      folders.rename(from, to, flags);
      return;
    }
    signals.whileNamesStay(() => {
      if (moved !== undefined) this.#requireNothingKept(from, moved);
      if (replaced !== undefined) this.#requireNothingKept(to, replaced);
      const isExchange = (flags & renameExchange) !== 0;
      if (moved === undefined ? replaced !== undefined : isExchange && replaced === undefined)
        throw new ReadOnlyError(
          `${nameOf(moved === undefined ? to : from)}: is a disk, and only another takes its place; delete it first if that is meant`,
        );
      if (moved !== undefined) this.#requireNothingBeside(to, moved);
      if (isExchange && replaced !== undefined) this.#requireNothingBeside(from, replaced);
      folders.rename(from, to, flags);
    });
  }

  /** Of plugin files and images nothing changes but the name. */
  requirePlain(place: Place): void {
    const { kind } = this.#context.classifier.classify(place, place.stat());
    if (place.part !== '' || (kind !== 'plain' && kind !== 'unreadable')) throw this.#readOnly(place);
  }

  /** @returns of a plugin file, what it makes */
  #requireChangeable(place: Place): NativeSource | undefined {
    const found = this.#context.classifier.classify(place, place.stat());
    if (place.part !== '' || found.kind === 'image') throw this.#readOnly(place);
    return found.kind === 'plugin' ? found.source : undefined;
  }

  #requireNothingKept(place: Place, plugin: NativeSource): void {
    const { natives, nameOf } = this.#context;
    if (natives.keptBeside(place, plugin).length === 0) return;
    throw new ReadOnlyError(
      `${nameOf(place)}: has writes that are kept under its name; unmount, and rename all of its files`,
    );
  }

  /** Whatever lies beside the new name of a plugin file would be taken for its own. */
  #requireNothingBeside(to: Place, plugin: NativeSource): void {
    const files = synthesizeFiles(plugin.plugin.native, path.basename(to.at));
    const taken = files.find(({ name }) => hasReplacement(`${path.dirname(to.at)}/${name}`));
    if (taken === undefined) return;
    throw new ReadOnlyError(
      `${this.#context.nameOf(to)}: beside it lie writes to another ${taken.name}; move them away, or choose another name`,
    );
  }

  #readOnly(place: Place): VeneerError {
    return new ReadOnlyError(`${this.#context.nameOf(place)}: is read-only under this mount`);
  }
}
