/**
 * The filter module: what answers for every name under the mount. Both transports call it; it knows neither.
 *
 * - plugin files read as native disk files; images are read-only; all other files of the folder pass through
 * - `attributes`, `open`, `close` and reads of native metadata never open an image
 * - it throws VeneerErrors and system errors; the transport turns them into errno
 */
import fs from 'node:fs';
import path from 'node:path';
import { LRUCache } from 'lru-cache';
import { describeError, ForbiddenError, FormatError, ReadOnlyError, VeneerError } from '../base/errors.ts';
import { closeAll, type Closable } from '../base/ownership.ts';
import type { BlockCache } from '../backup/block-cache.ts';
import type { NativeFile } from '../native/format.ts';
import type { FormatName } from '../native/formats.ts';
import { imagePathOf, type AllowedPaths } from '../plugin/resolve.ts';
import { isExpected } from './errno.ts';
import { Classifier, type NativeSource } from './classify.ts';
import { NativeFileState, type Log } from './native-file-state.ts';
import { PassThroughFile, SynthesizedFile, type OpenFile } from './open-file.ts';
import type { Attributes, FolderEntry, Place } from './place.ts';
import type { Counters, Statistics } from './statistics.ts';
import { systemError } from './system-error.ts';
import { MadeNames } from './made-names.ts';

export interface FilterOptions {
  /** The folder behind the mount; absolute. */
  readonly folder: string;
  /** Further folders that plugin files may point into; absolute. */
  readonly allowPaths: readonly string[];
  /** Show every image as a native disk of this format. */
  readonly present: FormatName | undefined;
}

const { S_IFMT, O_ACCMODE, O_RDONLY, O_NOFOLLOW, O_CREAT, O_EXCL, O_RDWR } = {
  ...fs.constants,
  O_ACCMODE: fs.constants.O_RDONLY | fs.constants.O_WRONLY | fs.constants.O_RDWR,
};
/** Flags of the caller's open that reach the file behind: its access mode alone. The kernel does append and truncation itself. */
const passedFlags = O_ACCMODE;
const writeBits = 0o222;

export class Filter implements Closable {
  readonly #options: FilterOptions;
  readonly #allowed: AllowedPaths;
  readonly #statistics: Statistics;
  readonly #cache: BlockCache;
  readonly #log: Log;
  readonly #classifier = new Classifier();
  readonly #madeNames: MadeNames;
  readonly #counters = new LRUCache<string, Counters>({ max: 4096 });
  readonly #states = new Map<string, NativeFileState>();

  constructor(options: FilterOptions, statistics: Statistics, cache: BlockCache, log: Log) {
    this.#options = options;
    this.#allowed = { folders: [options.folder, ...options.allowPaths] };
    this.#statistics = statistics;
    this.#cache = cache;
    this.#log = log;
    this.#madeNames = new MadeNames(this.#classifier, options.present);
  }

  /** The mounted folder itself. */
  get root(): Place {
    return { path: this.#options.folder, part: '' };
  }

  /** The place of a name in a folder. Names that only the mount has are looked for when the folder behind has none. */
  child(parent: Place, name: string): Place {
    const childPath = path.join(parent.path, name);
    if (fs.lstatSync(childPath, { throwIfNoEntry: false }) !== undefined) return { path: childPath, part: '' };
    return this.#madeNames.find(parent.path, name) ?? { path: childPath, part: '' };
  }

  /** @throws ENOENT where nothing has that name */
  attributes(place: Place): Attributes {
    return this.#attributes(place, fs.lstatSync(place.path, { bigint: true }));
  }

  attributesOfOpen(place: Place, file: OpenFile): Attributes {
    return this.#attributes(place, file.stat());
  }

  list(place: Place): FolderEntry[] {
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
    for (const name of fs.readdirSync(place.path)) add(name, { path: path.join(place.path, name), part: '' });
    for (const made of this.#madeNames.list(place.path)) add(made.name, made.place);
    return entries;
  }

  /** How many images and how many plugin files lie in the mounted folder itself. */
  count(): { images: number; natives: number } {
    const kinds = fs.readdirSync(this.#options.folder).map((name) => {
      const filePath = path.join(this.#options.folder, name);
      return this.#classifier.classify(filePath, fs.lstatSync(filePath, { bigint: true })).kind;
    });
    return {
      images: kinds.filter((kind) => kind === 'image').length,
      natives: kinds.filter((kind) => kind === 'plugin').length,
    };
  }

  readLink(place: Place): string {
    return fs.readlinkSync(place.path);
  }

  /** The file system behind, for statfs. */
  space(place: Place): fs.StatsFs {
    return fs.statfsSync(place.path);
  }

  /**
   * @param flags of open(2)
   * @throws ReadOnlyError for writing to an image or a native file; ForbiddenError for a plugin file that points outside
   */
  open(place: Place, flags: number): OpenFile {
    const stat = fs.lstatSync(place.path, { bigint: true });
    const found = this.#classifier.classify(place.path, stat);
    const forWriting = (flags & O_ACCMODE) !== O_RDONLY;
    if (place.part !== '' || found.kind === 'plugin') {
      if (forWriting) throw new ReadOnlyError(`${this.nameOf(place)}: is read-only under this mount`);
      return this.#openNative(place, stat);
    }
    if (found.kind === 'broken plugin') {
      this.#log('error', `${this.nameOf(place)}: ${found.error.message}`, { file: this.nameOf(place) });
      throw new FormatError(this.nameOf(place), 'plugin file', 0, 'is damaged', { cause: found.error });
    }
    if (found.kind === 'image' && forWriting)
      throw new ReadOnlyError(`${this.nameOf(place)}: an image is never changed`);
    return new PassThroughFile(fs.openSync(place.path, (flags & passedFlags) | O_NOFOLLOW));
  }

  create(place: Place, mode: number): OpenFile {
    return new PassThroughFile(fs.openSync(place.path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode & 0o7777));
  }

  makeFolder(place: Place, mode: number): void {
    fs.mkdirSync(place.path, { mode: mode & 0o7777 });
  }

  makeSymlink(place: Place, target: string): void {
    fs.symlinkSync(target, place.path);
  }

  makeLink(from: Place, to: Place): void {
    this.#requireChangeable(from);
    fs.linkSync(from.path, to.path);
  }

  removeFile(place: Place): void {
    this.#requireChangeable(place);
    fs.unlinkSync(place.path);
  }

  removeFolder(place: Place): void {
    fs.rmdirSync(place.path);
  }

  rename(from: Place, to: Place): void {
    this.#requireChangeable(from);
    if (fs.lstatSync(to.path, { throwIfNoEntry: false }) !== undefined) this.#requireChangeable(to);
    fs.renameSync(from.path, to.path);
  }

  truncate(place: Place, sizeBytes: number): void {
    this.#requirePlain(place);
    fs.truncateSync(place.path, sizeBytes);
  }

  changeMode(place: Place, mode: number): void {
    this.#requirePlain(place);
    fs.chmodSync(place.path, mode & 0o7777);
  }

  changeOwner(place: Place, uid: number, gid: number): void {
    this.#requirePlain(place);
    fs.lchownSync(place.path, uid, gid);
  }

  /** Seconds since 1970. */
  changeTimes(place: Place, accessed: number, modified: number): void {
    this.#requirePlain(place);
    fs.lutimesSync(place.path, accessed, modified);
  }

  /** How messages and `status` name a place: its path under the mount. */
  nameOf(place: Place): string {
    const shown = place.part === '' ? place.path : path.join(path.dirname(place.path), place.part);
    return path.relative(this.#options.folder, shown);
  }

  /** Closes images that nobody read for `idleMs`, and forgets native files that nobody has open. */
  closeIdle(idleMs: number): void {
    const now = performance.now();
    for (const [key, state] of this.#states) {
      if (now - state.lastUsedMs < idleMs) continue;
      state.close();
      if (state.handles === 0) this.#states.delete(key);
    }
  }

  close(): void {
    closeAll(this.#states.values());
    this.#states.clear();
  }

  #attributes(place: Place, stat: fs.BigIntStats): Attributes {
    const found = this.#classifier.classify(place.path, stat);
    const own = attributesOf(stat);
    if (place.part !== '' || found.kind === 'plugin') {
      const { map } = this.#native(place, stat).file;
      this.#countersOf(place, map.sizeBytes);
      const inode = place.part === '' ? own.inode : madeInode(own.inode, place.part);
      const mode = own.mode & ~writeBits;
      return { ...own, inode, mode, sizeBytes: map.sizeBytes, blocks512: Math.ceil(map.sizeBytes / 512) };
    }
    return found.kind === 'plain' ? own : { ...own, mode: own.mode & ~writeBits };
  }

  #openNative(place: Place, stat: fs.BigIntStats): OpenFile {
    const { source, file } = this.#native(place, stat);
    // The pointer's text is judged now; where it leads, when it is followed.
    this.#logged(place, () => imagePathOf(source.plugin, place.path, this.#allowed));
    const fd = fs.openSync(place.path, O_RDONLY | O_NOFOLLOW);
    const key = `${source.key}:${file.name}`;
    let state = this.#states.get(key);
    if (state === undefined) {
      const name = this.nameOf(place);
      const context = { allowed: this.#allowed, cache: this.#cache, log: this.#log };
      state = new NativeFileState(
        file,
        source.plugin,
        place.path,
        name,
        this.#countersOf(place, file.map.sizeBytes),
        context,
      );
      this.#states.set(key, state);
    }
    state.lastUsedMs = performance.now();
    return new SynthesizedFile(fd, state);
  }

  /** The native file that a place stands for. @throws ENOENT when its file no longer makes a file of that name */
  #native(place: Place, stat: fs.BigIntStats): { source: NativeSource; file: NativeFile } {
    const name = place.part === '' ? path.basename(place.path) : place.part;
    const found = this.#classifier.classify(place.path, stat);
    const { present } = this.#options;
    let source: NativeSource | undefined;
    if (found.kind === 'plugin') source = found.source;
    else if (found.kind === 'image' && present !== undefined)
      source = this.#classifier.presented(place.path, stat, present, name);
    const file = source?.files.find((candidate) => candidate.name === name);
    if (source === undefined || file === undefined) throw systemError('ENOENT', 'open', this.nameOf(place));
    return { source, file };
  }

  #countersOf(place: Place, sizeBytes: number): Counters {
    const name = this.nameOf(place);
    let counters = this.#counters.get(name);
    if (counters === undefined) {
      counters = this.#statistics.counters(name);
      this.#counters.set(name, counters);
    }
    counters.set('sizeBytes', sizeBytes);
    return counters;
  }

  #logged<T>(place: Place, action: () => T): T {
    try {
      return action();
    } catch (error) {
      if (error instanceof ForbiddenError) this.#log('error', error.message, { file: this.nameOf(place) });
      throw error;
    }
  }

  /** Images, and names that only the mount has, can be neither removed nor renamed. */
  #requireChangeable(place: Place): void {
    const { kind } = this.#classifier.classify(place.path, fs.lstatSync(place.path, { bigint: true }));
    if (place.part !== '' || kind === 'image') throw this.#readOnly(place);
  }

  /** Of plugin files and images nothing changes but the name. */
  #requirePlain(place: Place): void {
    const { kind } = this.#classifier.classify(place.path, fs.lstatSync(place.path, { bigint: true }));
    if (place.part !== '' || kind !== 'plain') throw this.#readOnly(place);
  }

  #readOnly(place: Place): VeneerError {
    return new ReadOnlyError(`${this.nameOf(place)}: is read-only under this mount`);
  }
}

function attributesOf(stat: fs.BigIntStats): Attributes {
  return {
    inode: stat.ino,
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
  };
}

/** A number for a name that has no inode of its own: apart from those of the folder, and the same each time. */
function madeInode(inode: bigint, part: string): bigint {
  let hash = 0xcbf29ce484222325n; // FNV-1a, 64 bits
  for (const byte of Buffer.from(`${inode}/${part}`)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash | (1n << 63n);
}
