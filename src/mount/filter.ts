/**
 * The filter module: what answers for every name under the mount. It is a tree over that of the folder behind; both transports call it, and it
 * knows neither.
 *
 * - plugin files read as native disk files; images are read-only; all other files of the folder pass through
 * - `attributes`, `open`, `close` and reads of native metadata never open an image
 * - it throws VeneerErrors and system errors; the transport turns them into errno
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import {
  describeError,
  ForbiddenError,
  FormatError,
  ReadOnlyError,
  systemErrorCode,
  VeneerError,
} from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { TimeChange } from '../base/system-calls.ts';
import type { BlockCache } from '../backup/read/block-cache.ts';
import { KeyRing, type ThreadKeys } from '../backup/crypto/key-ring.ts';
import type { Guid } from '../bytes/guid.ts';
import type { Fillable } from '../fill/fillable.ts';
import type { Statistics } from '../fill/statistics.ts';
import type { FormatName } from '../native/formats.ts';
import { OpenPlugin } from '../plugin/open-plugin.ts';
import type { WriteMode } from '../plugin/plugin-file.ts';
import type { AllowedPaths } from '../plugin/reach.ts';
import { replacementStat } from '../replacement/beside.ts';
import { diskKey, type Replacements } from '../replacement/replacements.ts';
import { Classifier, type Classification } from './classify.ts';
import { isExpected } from './errno.ts';
import { FolderTree } from './folder-tree.ts';
import type { InodeNumbers } from './inode-numbers.ts';
import { KeptNames } from './kept-names.ts';
import type { NumberOfEntry } from './listed-numbers.ts';
import type { MadeName } from './made-names.ts';
import { Natives } from './natives.ts';
import { SynthesizedFile, type OpenFile, type PassThroughFile } from './open-file.ts';
import { HeldPlace, pathIfTold, type Place } from './place.ts';
import { ownRights, type Rights } from './rights.ts';
import { ShownNames } from './shown-names.ts';
import type { Attributes, ChangeableTree, TreeEntry } from './tree.ts';

export interface FilterOptions {
  /** The folder behind the mount; absolute. */
  readonly folder: string;
  /** Further folders that plugin files may point into; absolute. */
  readonly allowPaths: readonly string[];
  /** Whether plugin files may point to images that those who may write them may not read. */
  readonly trustPluginFiles: boolean;
  /** Show every image as a native disk of this format. */
  readonly present: FormatName | undefined;
  /** What becomes of writes to native files; undefined: what each plugin file says. */
  readonly write: WriteMode | undefined;
  /** New for each mount. */
  readonly mountId: Guid;
  /** For encrypted images. Without theirs, only their data cannot be read. */
  readonly keys: ThreadKeys;
  /** Of InodeNumbers: the threads of one mount share it. */
  readonly numbers?: SharedArrayBuffer;
}

/** What of one thread the filter works with. */
export interface FilterContext {
  readonly statistics: Statistics;
  readonly cache: BlockCache;
  readonly log: Log;
  readonly replacements: Replacements;
  /** See NativesContext. */
  readonly onImageOpened?: () => void;
  /** The server's own where none are given. */
  readonly rights?: Rights;
}

const { S_IFMT, O_ACCMODE, O_RDONLY, O_WRONLY } = {
  ...fs.constants,
  O_ACCMODE: fs.constants.O_RDONLY | fs.constants.O_WRONLY | fs.constants.O_RDWR,
};
const writeBits = 0o222;

export class Filter implements ChangeableTree<Place> {
  readonly #options: FilterOptions;
  readonly #statistics: Statistics;
  readonly #log: Log;
  readonly #folders: FolderTree;
  readonly #classifier = new Classifier();
  readonly #names: ShownNames;
  readonly #natives: Natives;
  readonly #kept: KeptNames;

  constructor(options: FilterOptions, context: FilterContext) {
    const { statistics, cache, log, replacements, onImageOpened, rights } = context;
    this.#options = options;
    this.#statistics = statistics;
    this.#log = log;
    const folders = new FolderTree(options.folder, rights ?? ownRights, options.numbers);
    const classifier = this.#classifier;
    const nameOf = (place: Place): string => this.nameOf(place);
    this.#folders = folders;
    this.#names = new ShownNames(folders, classifier, options.present, log);
    this.#natives = new Natives(
      {
        allowed: () => this.#allowed,
        trustsPluginFiles: options.trustPluginFiles || process.getuid?.() !== 0,
        present: options.present,
        write: options.write,
        statistics,
        cache,
        keys: new KeyRing(options.keys),
        threadKeys: options.keys,
        log,
        replacements,
        mountId: options.mountId,
        folder: () => folders.path,
        onImageOpened: onImageOpened ?? (() => undefined),
        nameOf,
      },
      classifier,
    );
    this.#kept = new KeptNames({ folders, classifier, natives: this.#natives, signals: replacements.signals, nameOf });
  }

  get root(): Place {
    return this.#folders.root;
  }

  /** What the folder behind is called by now. */
  get path(): string {
    return this.#folders.path;
  }

  /** What files are numbered by under this mount. */
  get numbers(): InodeNumbers {
    return this.#folders.numbers;
  }

  /** As FolderTree.numbersIn. */
  numbersIn(folder: Place, fd: number): NumberOfEntry {
    return this.#folders.numbersIn(folder, fd);
  }

  /** As FolderTree.isInside. */
  isInside(absolute: string): boolean {
    return this.#folders.isInside(absolute);
  }

  get #allowed(): AllowedPaths {
    return { folders: [this.path, ...this.#options.allowPaths] };
  }

  /** As ShownNames.hides. */
  hides(folder: Place, name: string): boolean {
    return this.#names.hides(folder, name);
  }

  /** Also of a name that is to be made. */
  child(folder: Place, name: string): Place {
    return this.#names.child(folder, name);
  }

  /** As ShownNames.separateRecord. */
  separateRecord(folder: Place, name: string): void {
    this.#names.separateRecord(folder, name);
  }

  /** As ShownNames.madeChild. */
  madeChild(folder: Place, name: string): Place | undefined {
    return this.#names.madeChild(folder, name);
  }

  /** What the replacement of a native file is known by (`diskKey`); undefined for other files, and those that may not be written. */
  diskKeyOf(place: Place): string | undefined {
    const stat = place.stat();
    if (this.#classifier.classify(place, stat).kind !== 'plugin') return undefined;
    const kept = this.#natives.replacementOf(place, this.#natives.find(place, stat));
    return kept === undefined ? undefined : diskKey(stat, kept.index);
  }

  /** @throws ENOENT where nothing has that name */
  attributes(place: Place): Attributes {
    return this.#attributes(place, place.stat());
  }

  list(folder: Place): TreeEntry[] {
    return this.#entries(this.#names.list(folder));
  }

  /** The names that only the mount has, of a folder. */
  listMade(folder: Place): TreeEntry[] {
    return this.#entries(this.#names.listMade(folder));
  }

  #entries(names: Iterable<MadeName>): TreeEntry[] {
    const entries: TreeEntry[] = [];
    const add = (name: string, child: Place): void => {
      try {
        const { mode, inode } = this.attributes(child);
        entries.push({ name, type: mode & S_IFMT, inode });
      } catch (error) {
        // Gone since, or a damaged image that is presented: it must not hide the rest of the folder.
        if (!isExpected(error))
          this.#log('warn', `${this.nameOf(child)}: cannot be shown: ${describeError(error)}`, {});
      }
    };
    for (const { name, place } of names) add(name, place);
    return entries;
  }

  /**
   * What each file of the mounted folder itself is, one after the other. The disks among them are known to the statistics then; `disk` is one
   * whose writes are kept. What is gone, or cannot be looked at, is left out.
   */
  *survey(): Generator<{ kind: Classification['kind']; disk: Fillable | undefined }> {
    const { root } = this;
    for (const name of this.#folders.names(root)) {
      const place = this.#folders.child(root, name);
      try {
        const found = this.#classifier.classify(place, place.stat());
        if (found.kind === 'plugin') this.#entries([{ name, place }]);
        this.#entries(this.#names.madeFrom(root, name, found));
        yield { kind: found.kind, disk: found.kind === 'plugin' ? this.#keptDisk(name) : undefined };
      } catch (error) {
        if (!isExpected(error)) this.#log('warn', `${name}: cannot be looked at: ${describeError(error)}`, {});
      }
    }
  }

  readLink(place: Place): string {
    return this.#folders.readLink(place);
  }

  space(place: Place): fs.StatsFs {
    return this.#folders.space(place);
  }

  /**
   * @param flags of open(2)
   * @throws ReadOnlyError for writing to an image, or to a native file that may not be written; ForbiddenError for a plugin file that points outside
   */
  open(place: Place, flags: number): OpenFile {
    const stat = place.stat();
    const found = this.#classifier.classify(place, stat);
    const forWriting = (flags & O_ACCMODE) !== O_RDONLY;
    if (place.part !== '' || found.kind === 'plugin') {
      return this.#openNative(place, stat, flags & O_ACCMODE);
    }
    if (found.kind === 'broken plugin') {
      if (systemErrorCode(found.error) === 'ENAMETOOLONG') throw found.error;
      this.#log('error', `${this.nameOf(place)}: ${found.error.message}`, { file: this.nameOf(place) });
      throw new FormatError(this.nameOf(place), 'plugin file', 0, 'is damaged', { cause: found.error });
    }
    // Written to unseen, an image might be changed.
    if (found.kind === 'unreadable') throw found.error;
    if (found.kind === 'image' && forWriting)
      throw new ReadOnlyError(`${this.nameOf(place)}: an image is never changed`);
    return this.#folders.open(place, flags);
  }

  /** @returns a descriptor */
  openFolder(place: Place): number {
    return this.#folders.openFolder(place);
  }

  /**
   * A native file that another thread has opened, for reading it in this one. Whoever opened it owns the descriptor.
   * @param openedAs the path of its plugin file when it was opened
   * @param counted the slot of its counters
   */
  adopt(fd: number, openedAs: string, part: string, counted: number): SynthesizedFile {
    const place = new HeldPlace(fd, part, openedAs);
    const native = this.#natives.find(place, place.stat());
    return new SynthesizedFile(fd, this.#natives.stateOf(place, native), this.#statistics.at(counted));
  }

  /** Another thread has opened a native file, and this one closes it. @param counted the slot of its counters */
  countClosed(counted: number): void {
    this.#statistics.at(counted).add('openNow', -1);
  }

  create(place: Place, mode: number, umask = 0): PassThroughFile {
    this.#names.requireFree(place, this.nameOf(place));
    return this.#folders.create(place, mode, umask);
  }

  makeFolder(place: Place, mode: number, umask = 0): void {
    this.#folders.makeFolder(place, mode, umask);
  }

  makeSymlink(place: Place, target: string): void {
    this.#folders.makeSymlink(place, target);
  }

  makeNode(place: Place, mode: number, device: number, umask = 0): void {
    this.#folders.makeNode(place, mode, device, umask);
  }

  /** As KeptNames.link. */
  makeLink(from: Place, to: Place): void {
    this.#names.requireFree(to, this.nameOf(to));
    this.#kept.link(from, to);
  }

  /** As KeptNames.remove. */
  removeFile(place: Place): void {
    this.#kept.remove(place);
  }

  removeFolder(place: Place): void {
    this.#folders.removeFolder(place);
  }

  /** As KeptNames.rename. */
  rename(from: Place, to: Place, flags = 0): void {
    this.#names.requireFree(to, this.nameOf(to));
    this.#kept.rename(from, to, flags);
  }

  truncate(place: Place, sizeBytes: number): void {
    const stat = place.stat();
    const found = this.#classifier.classify(place, stat);
    if (place.part !== '' || found.kind === 'plugin') {
      const native = this.#natives.find(place, stat);
      this.#natives.requireSound(place, native, true);
      const fd = place.hold();
      try {
        this.#natives.stateOf(place, native).truncate(sizeBytes, fd);
      } finally {
        fs.closeSync(fd);
      }
      return;
    }
    if (found.kind === 'unreadable') throw found.error;
    this.#kept.requirePlain(place);
    this.#folders.truncate(place, sizeBytes);
  }

  changeMode(place: Place, mode: number): void {
    this.#kept.requirePlain(place);
    this.#folders.changeMode(place, mode);
  }

  changeOwner(place: Place, uid: number, gid: number): void {
    this.#kept.requirePlain(place);
    this.#folders.changeOwner(place, uid, gid);
  }

  /** Of a native file the times are those of its writes: a program that sets them is not refused, and changes nothing. */
  changeTimes(place: Place, accessed: TimeChange, modified: TimeChange): void {
    const { isNative, mode } = this.attributes(place);
    if (isNative && (mode & writeBits) !== 0) return;
    this.#kept.requirePlain(place);
    this.#folders.changeTimes(place, accessed, modified);
  }

  /** Of a native file they are those of its plugin file. */
  readAttribute(place: Place, name: string, value: Uint8Array): number {
    return this.#folders.readAttribute(place, name, value);
  }

  listAttributes(place: Place): Uint8Array {
    return this.#folders.listAttributes(place);
  }

  writeAttribute(place: Place, name: string, value: Uint8Array, flags: number): void {
    this.#kept.requirePlain(place);
    this.#folders.writeAttribute(place, name, value, flags);
  }

  removeAttribute(place: Place, name: string): void {
    this.#kept.requirePlain(place);
    this.#folders.removeAttribute(place, name);
  }

  /** How messages and `status` name a place: its path under the mount. */
  nameOf(place: Place): string {
    const told = pathIfTold(place);
    if (told === undefined) return '(a path that is too long to be told)';
    const shown = place.part === '' ? told : path.join(path.dirname(told), place.part);
    return path.relative(this.path, shown);
  }

  /**
   * Closes images that nobody read for `idleMs`, and forgets native files that nobody has open.
   * @returns after how long another image may be idle; undefined when none is open
   */
  closeIdle(idleMs: number): number | undefined {
    return this.#natives.closeIdle(idleMs);
  }

  close(): void {
    this.#natives.close();
    this.#folders.close();
  }

  /**
   * A plugin file, for jobs that fill it.
   * @param name its path under the mount
   * @throws ENOENT; UsageError unless it is a plugin file whose writes are kept
   */
  disk(name: string): Fillable {
    const place = this.#folders.child(this.root, name);
    return this.#natives.disk(place, place.stat());
  }

  #keptDisk(name: string): Fillable | undefined {
    try {
      return this.disk(name);
    } catch (error) {
      // Read-only, gone since, or not to be read.
      if (error instanceof VeneerError || systemErrorCode(error) !== undefined) return undefined;
      throw error;
    }
  }

  #attributes(place: Place, stat: fs.BigIntStats): Attributes {
    const found = this.#classifier.classify(place, stat);
    const own = this.#folders.attributes(place, stat);
    if (place.part !== '' || found.kind === 'plugin') {
      const native = this.#natives.find(place, stat);
      const { file } = native;
      const writable = this.#natives.replacementOf(place, native);
      const written = writable === undefined ? undefined : replacementStat(writable.place);
      const sizeBytes = written === undefined ? file.map.sizeBytes : written.sizeBytes;
      this.#statistics.noted(this.nameOf(place))?.set('sizeBytes', sizeBytes);
      return {
        ...own,
        mode: writable === undefined ? own.mode & ~writeBits : own.mode,
        sizeBytes,
        blocks512: Math.ceil(sizeBytes / 512),
        modifiedNs: written?.mtimeNs ?? own.modifiedNs,
        changedNs: written?.ctimeNs ?? own.changedNs,
        isNative: true,
      };
    }
    return found.kind === 'plain' || found.kind === 'unreadable' ? own : { ...own, mode: own.mode & ~writeBits };
  }

  #openNative(place: Place, stat: fs.BigIntStats, access: number): OpenFile {
    const native = this.#natives.find(place, stat);
    this.#natives.requireSound(place, native, access !== O_RDONLY);
    // The text of the pointers is judged now; where they lead, when they are followed.
    const plugin = new OpenPlugin(native.source.plugin, place.path, { allowed: this.#allowed });
    this.#logged(place, () => plugin.judgePointers());
    const state = this.#natives.stateOf(place, native);
    // Who only writes need not be able to read; that he may write, the plugin file's mode has told the kernel.
    const fd = access === O_WRONLY ? place.open(O_RDONLY) : this.#folders.openDescriptor(place, O_RDONLY);
    return new SynthesizedFile(fd, state);
  }

  #logged<T>(place: Place, action: () => T): T {
    try {
      return action();
    } catch (error) {
      if (error instanceof ForbiddenError) this.#log('error', error.message, { file: this.nameOf(place) });
      throw error;
    }
  }
}
