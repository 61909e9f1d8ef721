/**
 * The filter module: what answers for every name under the mount. Both transports call it; it knows neither.
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
  SeveralNamesError,
  systemErrorCode,
  VeneerError,
} from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';
import type { BlockCache } from '../backup/read/block-cache.ts';
import { KeyRing, type ThreadKeys } from '../backup/crypto/key-ring.ts';
import type { Guid } from '../bytes/guid.ts';
import { synthesizeFiles, type FormatName } from '../native/formats.ts';
import { hasReplacement, partOf } from '../plugin/beside.ts';
import { OpenPlugin } from '../plugin/open-plugin.ts';
import type { AllowedPaths } from '../plugin/reach.ts';
import { mayBeMap, replacementStat } from '../replacement/beside.ts';
import { isRecordName, separateRecord } from '../replacement/record.ts';
import { unlinkReplacement } from '../replacement/open.ts';
import type { Log } from '../base/log.ts';
import type { WriteMode } from '../plugin/plugin-file.ts';
import { requireOneName } from '../replacement/plugin-home.ts';
import { diskKey, type Replacements } from '../replacement/replacements.ts';
import type { Statistics } from '../fill/statistics.ts';
import type { TimeChange } from '../base/system-calls.ts';
import { systemError } from '../base/system-error.ts';
import { currentPath, openPath } from '../base/open-path.ts';
import type { Fillable } from '../fill/fillable.ts';
import { Behind } from './behind.ts';
import { isExpected } from './errno.ts';
import { Classifier, type Classification, type NativeSource } from './classify.ts';
import { InodeNumbers } from './inode-numbers.ts';
import { ListedNumbers, type NumberOfEntry } from './listed-numbers.ts';
import { Natives } from './natives.ts';
import { PassThroughFile, SynthesizedFile, type OpenFile } from './open-file.ts';
import { HeldPlace, NamedPlace, pathIfTold, type Attributes, type FolderEntry, type Place } from './place.ts';
import { SeenLeftovers } from './seen-leftovers.ts';
import { ownRights, type Rights } from './rights.ts';
import { MadeNames, type MadeName } from './made-names.ts';

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

const { S_IFMT, O_ACCMODE, O_RDONLY, O_WRONLY } = {
  ...fs.constants,
  O_ACCMODE: fs.constants.O_RDONLY | fs.constants.O_WRONLY | fs.constants.O_RDWR,
};
const writeBits = 0o222;
/** A rename that changes both names' files for each other. */
const renameExchange = 2;

export class Filter implements Closable {
  readonly #options: FilterOptions;
  readonly #statistics: Statistics;
  readonly #log: Log;
  readonly #classifier = new Classifier();
  readonly #madeNames: MadeNames;
  readonly #natives: Natives;
  readonly #replacements: Replacements;
  readonly #rootFd: number;
  #numbers: InodeNumbers | undefined;
  #listed: ListedNumbers | undefined;
  readonly #behind: Behind;
  readonly #leftovers: SeenLeftovers;

  /** @param onImageOpened see NativeFileContext */
  constructor(
    options: FilterOptions,
    statistics: Statistics,
    cache: BlockCache,
    log: Log,
    replacements: Replacements,
    onImageOpened: () => void = () => undefined,
    rights: Rights = ownRights,
  ) {
    this.#options = options;
    this.#behind = new Behind(rights);
    this.#leftovers = new SeenLeftovers(log);
    this.#statistics = statistics;
    this.#log = log;
    this.#replacements = replacements;
    this.#rootFd = openPath(options.folder, true);
    this.#madeNames = new MadeNames(this.#classifier, options.present);
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
        folder: () => this.path,
        onImageOpened,
        nameOf: (place) => this.nameOf(place),
      },
      this.#classifier,
    );
  }

  /** What files are numbered by under this mount. */
  get numbers(): InodeNumbers {
    const { folder, numbers } = this.#options;
    return (this.#numbers ??= new InodeNumbers(fs.statSync(folder, { bigint: true }).dev, numbers));
  }

  /** The same of the entries of a folder that is being listed. @param fd of the folder */
  numbersIn(folder: Place, fd: number): NumberOfEntry {
    return (this.#listed ??= new ListedNumbers(this.numbers)).of(folder, fd);
  }

  /** The mounted folder itself, whatever it is called by now. */
  get root(): Place {
    return new NamedPlace(`/proc/self/fd/${this.#rootFd}`, '', () => this.path);
  }

  /** What it is called by now. */
  get path(): string {
    return currentPath(this.#rootFd);
  }

  get #allowed(): AllowedPaths {
    return { folders: [this.path, ...this.#options.allowPaths] };
  }

  /** Whether a path behind the mount is the folder, or one in it. */
  isInside(absolute: string): boolean {
    const folder = this.path;
    return absolute === folder || absolute.startsWith(folder === '/' ? folder : `${folder}/`);
  }

  /**
   * Whether a name in a folder is a part of what was written to a disk there, or would be, or is left of one: nobody but the mount itself may
   * touch those. A file that is only called like one is a file like any other.
   */
  hides(folder: Place, name: string): boolean {
    const part = partOf(name);
    if (part === undefined) return false;
    const isOfDisk = this.#madeNames.stems(folder, part.stem).some((file) => this.#isNative(folder, file));
    if (isOfDisk && !(part.isMap && !mayBeMap(`${folder.at}/${name}`))) return true;
    return this.#leftovers.isOne(folder, part.stem);
  }

  #isNative(folder: Place, fileName: string): boolean {
    const place = this.newChild(folder, fileName);
    const stat = fs.lstatSync(place.at, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined) return this.madeChild(folder, fileName) !== undefined;
    return this.#classifier.isPlugin(place, stat) || this.#madeNames.isPart(folder, fileName);
  }

  /** The place of a name in a folder. Names that only the mount has are looked for when the folder behind has none. */
  child(parent: Place, name: string): Place {
    const child = this.newChild(parent, name);
    if (this.hides(parent, name)) throw systemError('ENOENT', 'lookup', name);
    this.separateRecord(parent, name);
    if (fs.lstatSync(child.at, { throwIfNoEntry: false }) !== undefined) return child;
    return this.madeChild(parent, name) ?? child;
  }

  /** The place of a name in a folder that is to be made there, or that the folder behind is known to have. */
  newChild(parent: Place, name: string): Place {
    return new NamedPlace(`${parent.at}/${name}`, '', () => path.join(parent.path, name));
  }

  /**
   * To be called before a name is looked up, which may be that of a record: it must be no further name of a plugin file.
   * @throws ENOENT where it is, and cannot be made another file
   */
  separateRecord(parent: Place, name: string): void {
    if (!isRecordName(name)) return;
    try {
      separateRecord(`${parent.at}/${name}`);
    } catch (error) {
      this.#log('warn', `${name}: is a further name of a plugin file, and is not shown: ${describeError(error)}`, {});
      throw systemError('ENOENT', 'lookup', name);
    }
  }

  /** What the replacement of a native file is known by (`diskKey`); undefined for other files, and those that may not be written. */
  diskKeyOf(place: Place): string | undefined {
    const stat = place.stat();
    if (this.#classifier.classify(place, stat).kind !== 'plugin') return undefined;
    const kept = this.#natives.replacementOf(place, this.#natives.find(place, stat));
    return kept === undefined ? undefined : diskKey(stat, kept.index);
  }

  /** The place of a name that only the mount has. */
  madeChild(parent: Place, name: string): Place | undefined {
    return this.#madeNames.find(parent, name);
  }

  /** @throws ENOENT where nothing has that name */
  attributes(place: Place): Attributes {
    return this.#attributes(place, place.stat());
  }

  list(place: Place): FolderEntry[] {
    const entries = this.#entries(
      fs
        .readdirSync(place.at)
        .filter((name) => !this.hides(place, name))
        .map((name) => ({ name, place: this.newChild(place, name) })),
    );
    return [...entries, ...this.listMade(place)];
  }

  /** The names that only the mount has, of a folder. */
  listMade(place: Place): FolderEntry[] {
    return this.#entries(this.#madeNames.list(place));
  }

  #entries(names: Iterable<MadeName>): FolderEntry[] {
    const entries: FolderEntry[] = [];
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
    for (const name of fs.readdirSync(this.root.at)) {
      const place = this.newChild(this.root, name);
      try {
        const found = this.#classifier.classify(place, place.stat());
        if (found.kind === 'plugin') this.#entries([{ name, place }]);
        this.#entries(this.#madeNames.madeFrom(this.root, name, found));
        yield { kind: found.kind, disk: found.kind === 'plugin' ? this.#keptDisk(name) : undefined };
      } catch (error) {
        if (!isExpected(error)) this.#log('warn', `${name}: cannot be looked at: ${describeError(error)}`, {});
      }
    }
  }

  readLink(place: Place): string {
    return place.readLink();
  }

  /** The file system behind, for statfs. */
  space(place: Place): fs.StatsFs {
    return fs.statfsSync(place.at);
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
    return new PassThroughFile(this.#behind.open(place, flags));
  }

  /** @returns a descriptor */
  openFolder(place: Place): number {
    return this.#behind.openFolder(place);
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

  /** @param umask of the caller, where the kernel has not applied it */
  create(place: Place, mode: number, umask = 0): PassThroughFile {
    this.#requireFreeName(place);
    return new PassThroughFile(this.#behind.create(place, mode, umask));
  }

  /** @param umask as for `create` */
  makeFolder(place: Place, mode: number, umask = 0): void {
    this.#behind.makeFolder(place, mode, umask);
  }

  makeSymlink(place: Place, target: string): void {
    this.#behind.makeSymlink(place, target);
  }

  /** A pipe, a socket, an empty file or a device. @param mode with the type; umask: as for `create` */
  makeNode(place: Place, mode: number, device: number, umask = 0): void {
    this.#behind.makeNode(place, mode, device, umask);
  }

  makeLink(from: Place, to: Place): void {
    this.#requireFreeName(to);
    if (this.#requireChangeable(from) !== undefined)
      throw new SeveralNamesError(`${this.nameOf(from)}: a plugin file has one name only; make a further disk with cp`);
    this.#behind.makeLink(from, to);
  }

  /**
   * With a plugin file goes what was written to it.
   * @throws SeveralNamesError where it has writes, and another name that would be left without them
   */
  removeFile(place: Place): void {
    const plugin = this.#requireChangeable(place);
    if (plugin === undefined) {
      this.#behind.removeFile(place);
      return;
    }
    this.#replacements.signals.whileNamesStay(() => {
      const kept = this.#natives.keptBeside(place, plugin);
      if (kept.length > 0)
        requireOneName(place.stat(), path.dirname(place.at), path.basename(place.at), this.nameOf(place));
      this.#behind.removeFile(place);
      for (const file of kept) unlinkReplacement(file);
    });
  }

  removeFolder(place: Place): void {
    this.#behind.removeFolder(place);
  }

  /**
   * What was written to a disk lies beside its plugin file's name: neither gets away from the other. With a folder goes all that is in it.
   * @param flags of renameat2(2)
   */
  rename(from: Place, to: Place, flags = 0): void {
    this.#requireFreeName(to);
    const moved = this.#requireChangeable(from);
    const there = fs.lstatSync(to.at, { throwIfNoEntry: false });
    const replaced = there === undefined ? undefined : this.#requireChangeable(to);
    const rename = (): void => {
      this.#behind.rename(from, to, flags);
    };
    const isFolder = fs.lstatSync(from.at).isDirectory();
    if (moved === undefined && replaced === undefined && !isFolder) {
      rename();
      return;
    }
    this.#replacements.signals.whileNamesStay(() => {
      if (moved !== undefined) this.#requireNothingKept(from, moved);
      if (replaced !== undefined) this.#requireNothingKept(to, replaced);
      const isExchange = (flags & renameExchange) !== 0;
      if (moved === undefined ? replaced !== undefined : isExchange && replaced === undefined)
        throw new ReadOnlyError(
          `${this.nameOf(moved === undefined ? to : from)}: is a disk, and only another takes its place; delete it first if that is meant`,
        );
      if (moved !== undefined) this.#requireNothingBeside(to, moved);
      if (isExchange && replaced !== undefined) this.#requireNothingBeside(from, replaced);
      rename();
    });
  }

  #requireNothingKept(place: Place, plugin: NativeSource): void {
    if (this.#natives.keptBeside(place, plugin).length === 0) return;
    throw new ReadOnlyError(
      `${this.nameOf(place)}: has writes that are kept under its name; unmount, and rename all of its files`,
    );
  }

  /** Whatever lies beside the new name of a plugin file would be taken for its own. */
  #requireNothingBeside(to: Place, plugin: NativeSource): void {
    const files = synthesizeFiles(plugin.plugin.native, path.basename(to.at));
    const taken = files.find(({ name }) => hasReplacement(`${path.dirname(to.at)}/${name}`));
    if (taken === undefined) return;
    throw new ReadOnlyError(
      `${this.nameOf(to)}: beside it lie writes to another ${taken.name}; move them away, or choose another name`,
    );
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
    this.#requirePlain(place);
    this.#behind.truncate(place, sizeBytes);
  }

  changeMode(place: Place, mode: number): void {
    this.#requirePlain(place);
    this.#behind.changeMode(place, mode);
  }

  changeOwner(place: Place, uid: number, gid: number): void {
    this.#requirePlain(place);
    this.#behind.changeOwner(place, uid, gid);
  }

  /** Of a native file the times are those of its writes: a program that sets them is not refused, and changes nothing. */
  changeTimes(place: Place, accessed: TimeChange, modified: TimeChange): void {
    const { isNative, mode } = this.attributes(place);
    if (isNative && (mode & writeBits) !== 0) return;
    this.#requirePlain(place);
    this.#behind.changeTimes(place, accessed, modified);
  }

  /** As readAttribute of extended-attributes.ts. Of a native file they are those of its plugin file. */
  readAttribute(place: Place, name: string, value: Uint8Array): number {
    return this.#behind.readAttribute(place, name, value);
  }

  listAttributes(place: Place): Uint8Array {
    return this.#behind.listAttributes(place);
  }

  writeAttribute(place: Place, name: string, value: Uint8Array, flags: number): void {
    this.#requirePlain(place);
    this.#behind.writeAttribute(place, name, value, flags);
  }

  removeAttribute(place: Place, name: string): void {
    this.#requirePlain(place);
    this.#behind.removeAttribute(place, name);
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
    this.#listed?.close();
    fs.closeSync(this.#rootFd);
  }

  /**
   * A plugin file, for jobs that fill it.
   * @param name its path under the mount
   * @throws ENOENT; UsageError unless it is a plugin file whose writes are kept
   */
  disk(name: string): Fillable {
    const place = this.newChild(this.root, name);
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
    const own = attributesOf(stat, this.numbers.of(stat, place.part));
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
    return new SynthesizedFile(access === O_WRONLY ? place.open(O_RDONLY) : this.#behind.open(place, O_RDONLY), state);
  }

  #logged<T>(place: Place, action: () => T): T {
    try {
      return action();
    } catch (error) {
      if (error instanceof ForbiddenError) this.#log('error', error.message, { file: this.nameOf(place) });
      throw error;
    }
  }

  /**
   * Images, and names that only the mount has, can be neither removed nor renamed.
   * @returns of a plugin file, what it makes
   */
  #requireChangeable(place: Place): NativeSource | undefined {
    const found = this.#classifier.classify(place, place.stat());
    if (place.part !== '' || found.kind === 'image') throw this.#readOnly(place);
    return found.kind === 'plugin' ? found.source : undefined;
  }

  /** Of plugin files and images nothing changes but the name. */
  #requirePlain(place: Place): void {
    const { kind } = this.#classifier.classify(place, place.stat());
    if (place.part !== '' || (kind !== 'plain' && kind !== 'unreadable')) throw this.#readOnly(place);
  }

  #requireFreeName(place: Place): void {
    const folder = new NamedPlace(path.dirname(place.at), '', () => path.dirname(place.path));
    if (!this.hides(folder, path.basename(place.at))) return;
    throw new ForbiddenError(`${this.nameOf(place)}: names of this kind are for the writes to disk files`);
  }

  #readOnly(place: Place): VeneerError {
    return new ReadOnlyError(`${this.nameOf(place)}: is read-only under this mount`);
  }
}

function attributesOf(stat: fs.BigIntStats, inode: bigint): Attributes {
  return {
    inode,
    mode: Number(stat.mode),
    links: Number(stat.nlink),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    device: Number(stat.rdev),
    sizeBytes: Number(stat.size),
    blocks512: Number(stat.blocks),
    accessedNs: stat.atimeNs,
    modifiedNs: stat.mtimeNs,
    changedNs: stat.ctimeNs,
    isNative: false,
  };
}
