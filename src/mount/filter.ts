/**
 * The filter module: what answers for every name under the mount. Both transports call it; it knows neither.
 *
 * - plugin files read as native disk files; images are read-only; all other files of the folder pass through
 * - `attributes`, `open`, `close` and reads of native metadata never open an image
 * - it throws VeneerErrors and system errors; the transport turns them into errno
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { describeError, ForbiddenError, FormatError, ReadOnlyError, VeneerError } from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';
import type { BlockCache } from '../backup/block-cache.ts';
import { KeyRing, type ThreadKeys } from '../backup/key-ring.ts';
import type { FormatName } from '../native/formats.ts';
import { judgePointers, type AllowedPaths } from '../plugin/resolve.ts';
import { isRecordName, separateRecord } from '../replacement/record.ts';
import { hasReplacement, isReplacementName, unlinkReplacement, replacementStat } from '../replacement/open.ts';
import { Behind } from './behind.ts';
import { isExpected } from './errno.ts';
import { Classifier } from './classify.ts';
import { InodeNumbers } from './inode-numbers.ts';
import { ListedNumbers, type NumberOfEntry } from './listed-numbers.ts';
import type { Log } from './native-file-state.ts';
import { Natives, type NativeDisk } from './natives.ts';
import { PassThroughFile, SynthesizedFile, type OpenFile } from './open-file.ts';
import { HeldPlace, NamedPlace, type Attributes, type FolderEntry, type Place } from './place.ts';
import type { WriteMode } from '../plugin/plugin-file.ts';
import type { Replacements } from './replacements.ts';
import { SeenLeftovers } from './seen-leftovers.ts';
import { ownRights, type Rights } from './rights.ts';
import type { Statistics } from './statistics.ts';
import type { TimeChange } from './system-calls.ts';
import { systemError } from './system-error.ts';
import { MadeNames, type MadeName } from './made-names.ts';

export interface FilterOptions {
  /** The folder behind the mount; absolute. */
  readonly folder: string;
  /** Further folders that plugin files may point into; absolute. */
  readonly allowPaths: readonly string[];
  /** Show every image as a native disk of this format. */
  readonly present: FormatName | undefined;
  /** What becomes of writes to native files; undefined: what each plugin file says. */
  readonly write: WriteMode | undefined;
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
  readonly #allowed: AllowedPaths;
  readonly #statistics: Statistics;
  readonly #log: Log;
  readonly #classifier = new Classifier();
  readonly #madeNames: MadeNames;
  readonly #natives: Natives;
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
    this.#allowed = { folders: [options.folder, ...options.allowPaths] };
    this.#statistics = statistics;
    this.#log = log;
    this.#madeNames = new MadeNames(this.#classifier, options.present);
    this.#natives = new Natives(
      {
        allowed: this.#allowed,
        present: options.present,
        write: options.write,
        statistics,
        cache,
        keys: new KeyRing(options.keys),
        threadKeys: options.keys,
        log,
        replacements,
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

  /** The mounted folder itself. */
  get root(): Place {
    return new NamedPlace(this.#options.folder);
  }

  /** Whether a path behind the mount is the folder, or one in it. */
  isInside(absolute: string): boolean {
    const { folder } = this.#options;
    return absolute === folder || absolute.startsWith(folder === '/' ? folder : `${folder}/`);
  }

  /** Whether a name is a part of a replacement: nobody but the mount itself may touch those. */
  hides(name: string): boolean {
    return isReplacementName(name);
  }

  /** The same, of a folder that is being listed. */
  hidesListed(folder: Place, name: string): boolean {
    const hides = this.hides(name);
    if (hides) this.#leftovers.look(folder, name);
    return hides;
  }

  /** The place of a name in a folder. Names that only the mount has are looked for when the folder behind has none. */
  child(parent: Place, name: string): Place {
    const child = this.newChild(parent, name);
    if (this.hides(name)) throw systemError('ENOENT', 'lookup', name);
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

  /** By what name the replacement of a native file is asked for; undefined for other files, and those that may not be written. */
  replacementKeyOf(place: Place): string | undefined {
    const stat = place.stat();
    if (place.part === '' && this.#classifier.classify(place, stat).kind !== 'plugin') return undefined;
    return this.#natives.replacementOf(place, this.#natives.find(place, stat))?.key;
  }

  /** The place of a name that only the mount has. */
  madeChild(parent: Place, name: string): Place | undefined {
    return this.#madeNames.find(parent.path, name);
  }

  /** @throws ENOENT where nothing has that name */
  attributes(place: Place): Attributes {
    return this.#attributes(place, place.stat());
  }

  list(place: Place): FolderEntry[] {
    const entries = this.#entries(
      fs
        .readdirSync(place.at)
        .filter((name) => !this.hidesListed(place, name))
        .map((name) => ({ name, place: this.newChild(place, name) })),
    );
    return [...entries, ...this.listMade(place)];
  }

  /** The names that only the mount has, of a folder. */
  listMade(place: Place): FolderEntry[] {
    return this.#entries(this.#madeNames.list(place.path));
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

  /** How many images and how many plugin files lie in the mounted folder itself. */
  count(): { images: number; natives: number } {
    const kinds = fs.readdirSync(this.#options.folder).map((name) => {
      const place = this.newChild(this.root, name);
      return this.#classifier.classify(place, place.stat()).kind;
    });
    return {
      images: kinds.filter((kind) => kind === 'image').length,
      natives: kinds.filter((kind) => kind === 'plugin').length,
    };
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
      this.#log('error', `${this.nameOf(place)}: ${found.error.message}`, { file: this.nameOf(place) });
      throw new FormatError(this.nameOf(place), 'plugin file', 0, 'is damaged', { cause: found.error });
    }
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
   */
  adopt(fd: number, openedAs: string, part: string): SynthesizedFile {
    const place = new HeldPlace(fd, part, openedAs);
    const native = this.#natives.find(place, place.stat());
    return new SynthesizedFile(fd, this.#natives.stateOf(place, native), true);
  }

  /** Another thread has opened a native file, and this one closes it. @param place with the path that it was opened as */
  countClosed(place: Place, counter: 'openNow' | 'directNow'): void {
    this.#statistics.counters(this.nameOf(place)).add(counter, -1);
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
    this.#requireChangeable(from);
    this.#behind.makeLink(from, to);
  }

  /** With a plugin file goes what was written to it. */
  removeFile(place: Place): void {
    const kept = this.#requireChangeable(place);
    this.#behind.removeFile(place);
    for (const file of kept) unlinkReplacement(file);
  }

  removeFolder(place: Place): void {
    this.#behind.removeFolder(place);
  }

  /** @param flags of renameat2(2) */
  rename(from: Place, to: Place, flags = 0): void {
    this.#requireFreeName(to);
    const kept = this.#requireChangeable(from);
    if (kept.some(hasReplacement))
      throw new ReadOnlyError(
        `${this.nameOf(from)}: has writes that are kept under its name; unmount, and rename all of its files`,
      );
    if ((flags & renameExchange) !== 0 || fs.lstatSync(to.at, { throwIfNoEntry: false }) !== undefined)
      this.#requireChangeable(to);
    this.#behind.rename(from, to, flags);
  }

  truncate(place: Place, sizeBytes: number): void {
    const stat = place.stat();
    if (place.part !== '' || this.#classifier.classify(place, stat).kind === 'plugin') {
      this.#natives.stateOf(place, this.#natives.find(place, stat)).truncate(sizeBytes);
      return;
    }
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
    const shown = place.part === '' ? place.path : path.join(path.dirname(place.path), place.part);
    return path.relative(this.#options.folder, shown);
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
  }

  /**
   * A plugin file, for jobs that fill it.
   * @param name its path under the mount
   * @throws ENOENT; UsageError unless it is a plugin file whose writes are kept
   */
  disk(name: string): NativeDisk {
    const place = this.newChild(this.root, name);
    return this.#natives.disk(place, place.stat());
  }

  /** The plugin files of the mounted folder itself that may be filled. */
  disks(): NativeDisk[] {
    return fs.readdirSync(this.#options.folder).flatMap((name) => {
      try {
        return [this.disk(name)];
      } catch (error) {
        // No plugin file, or gone since.
        if (error instanceof VeneerError || isExpected(error)) return [];
        throw error;
      }
    });
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
      this.#natives.countersOf(place, sizeBytes);
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
    return found.kind === 'plain' ? own : { ...own, mode: own.mode & ~writeBits };
  }

  #openNative(place: Place, stat: fs.BigIntStats, access: number): OpenFile {
    const native = this.#natives.find(place, stat);
    if (access !== O_RDONLY && this.#natives.replacementOf(place, native) === undefined) throw this.#readOnly(place);
    // The text of the pointers is judged now; where they lead, when they are followed.
    this.#logged(place, () => judgePointers(native.source.plugin, place.path, this.#allowed));
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
   * @returns of a plugin file, the native files that it makes, which may have replacements
   */
  #requireChangeable(place: Place): string[] {
    const found = this.#classifier.classify(place, place.stat());
    if (place.part !== '' || found.kind === 'image') throw this.#readOnly(place);
    if (found.kind !== 'plugin') return [];
    return found.source.files.map((file) => path.join(path.dirname(place.path), file.name));
  }

  /** Of plugin files and images nothing changes but the name. */
  #requirePlain(place: Place): void {
    const { kind } = this.#classifier.classify(place, place.stat());
    if (place.part !== '' || kind !== 'plain') throw this.#readOnly(place);
  }

  #requireFreeName(place: Place): void {
    if (!this.hides(path.basename(place.at))) return;
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
