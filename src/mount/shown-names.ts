/**
 * Which names a folder has under the mount: those of the folder behind, without what lies beside disks and belongs to them, and with those that
 * only the mount has.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { describeError, ForbiddenError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { systemError } from '../base/system-error.ts';
import type { FormatName } from '../native/formats.ts';
import { partOf } from '../plugin/beside.ts';
import { mayBeMap } from '../replacement/beside.ts';
import { isRecordName, separateRecord } from '../replacement/record.ts';
import type { Classification, Classifier } from './classify.ts';
import type { FolderTree } from './folder-tree.ts';
import { MadeNames, type MadeName } from './made-names.ts';
import { NamedPlace, type Place } from './place.ts';
import { SeenLeftovers } from './seen-leftovers.ts';

export class ShownNames {
  readonly #folders: FolderTree;
  readonly #classifier: Classifier;
  readonly #log: Log;
  readonly #made: MadeNames;
  readonly #leftovers: SeenLeftovers;

  /** @param present the format in which images are shown as disks */
  constructor(folders: FolderTree, classifier: Classifier, present: FormatName | undefined, log: Log) {
    this.#folders = folders;
    this.#classifier = classifier;
    this.#log = log;
    this.#made = new MadeNames(classifier, present);
    this.#leftovers = new SeenLeftovers(log);
  }

  /**
   * Whether a name in a folder is a part of what was written to a disk there, or would be, or is left of one: nobody but the mount itself may
   * touch those. A file that is only called like one is a file like any other.
   */
  hides(folder: Place, name: string): boolean {
    const part = partOf(name);
    if (part === undefined) return false;
    const isOfDisk = this.#made.stems(folder, part.stem).some((file) => this.#isNative(folder, file));
    if (isOfDisk && !(part.isMap && !mayBeMap(`${folder.at}/${name}`))) return true;
    return this.#leftovers.isOne(folder, part.stem);
  }

  /** @throws ForbiddenError where a file of that name would be hidden */
  requireFree(place: Place, shownAs: string): void {
    const folder = new NamedPlace(path.dirname(place.at), '', () => path.dirname(place.path));
    if (!this.hides(folder, path.basename(place.at))) return;
    throw new ForbiddenError(`${shownAs}: names of this kind are for the writes to disk files`);
  }

  /** The place of a name in a folder. Names that only the mount has are looked for when the folder behind has none. */
  child(folder: Place, name: string): Place {
    if (this.hides(folder, name)) throw systemError('ENOENT', 'lookup', name);
    this.separateRecord(folder, name);
    const child = this.#folders.child(folder, name);
    if (fs.lstatSync(child.at, { throwIfNoEntry: false }) !== undefined) return child;
    return this.madeChild(folder, name) ?? child;
  }

  /**
   * To be called before a name is looked up, which may be that of a record: it must be no further name of a plugin file.
   * @throws ENOENT where it is, and cannot be made another file
   */
  separateRecord(folder: Place, name: string): void {
    if (!isRecordName(name)) return;
    try {
      separateRecord(`${folder.at}/${name}`);
    } catch (error) {
      this.#log('warn', `${name}: is a further name of a plugin file, and is not shown: ${describeError(error)}`, {});
      throw systemError('ENOENT', 'lookup', name);
    }
  }

  /** The place of a name that only the mount has. */
  madeChild(folder: Place, name: string): Place | undefined {
    return this.#made.find(folder, name);
  }

  /** All names of a folder. */
  *list(folder: Place): Generator<MadeName> {
    for (const name of this.#folders.names(folder))
      if (!this.hides(folder, name)) yield { name, place: this.#folders.child(folder, name) };
    yield* this.listMade(folder);
  }

  /** The names that only the mount has, of a folder. */
  listMade(folder: Place): Iterable<MadeName> {
    return this.#made.list(folder);
  }

  /** The names that one file of a folder has besides its own. */
  madeFrom(folder: Place, name: string, found: Classification): Iterable<MadeName> {
    return this.#made.madeFrom(folder, name, found);
  }

  #isNative(folder: Place, fileName: string): boolean {
    const place = this.#folders.child(folder, fileName);
    const stat = fs.lstatSync(place.at, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined) return this.madeChild(folder, fileName) !== undefined;
    return this.#classifier.isPlugin(place, stat) || this.#made.isPart(folder, fileName);
  }
}
