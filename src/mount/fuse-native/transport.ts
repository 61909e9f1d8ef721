/**
 * The transport over the npm package fuse-native (libfuse 2): every request is answered on the main thread, synchronously.
 *
 * Its traps, and what is done about them (measured; see native-notes/transports.md):
 * - a handler that throws never replies, and a second reply corrupts silently: every handler runs through `answer`, which replies once
 * - read and write have no time-out: the default answers ETIMEDOUT while the handler still runs
 * - big_writes goes through a comma in fsname: without it writes come in 4 KiB
 * - read and write hand out libfuse's own memory: it is used only until the reply, which is sent before the handler returns
 * - its paths are text, in which all bytes that are no UTF-8 become one character: what it cannot carry is refused, and not listed
 */
import * as fs from '../../base/fs.ts';
import { nativePath } from '../../base/names.ts';
import { describeError, systemErrorCode, UnsupportedError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { duplicateTo } from '../../base/system-calls.ts';
import { systemError } from '../../base/system-error.ts';
import { errnoOf, isExpected } from '../errno.ts';
import type { Filter } from '../filter.ts';
import { PassThroughFile, SynthesizedFile, type OpenFile } from '../open-file.ts';
import type { Place } from '../place.ts';
import type { ServingTransport } from '../transport.ts';
import type { Attributes } from '../tree.ts';
import { Folders, namesOf } from './folders.ts';
import { NarrowNumbers } from './narrow-numbers.ts';
import { loadFuse, type FuseOperations, type FuseOptions, type FuseStat, type FuseStatFs } from './binding.ts';

/** The value of each operation's time-out: none. */
const noTimeout = new Proxy<Record<string, false>>({}, { get: () => false });

/**
 * Mounts and serves until the mount goes away. Resolves when it serves.
 * @param idleMs images that nobody read for so long are closed
 * @throws UsageError-like errors of libfuse as they come
 */
export async function serveFuseNative(
  filter: Filter,
  mountpoint: string,
  idleMs: number,
  log: Log,
): Promise<ServingTransport> {
  if (!isCarried(mountpoint))
    throw new UnsupportedError(`${mountpoint}: fuse-native cannot mount where a name is no UTF-8`);
  const Fuse = loadFuse();
  const options: FuseOptions = {
    fsname: 'veneer,big_writes,max_background=64,subtype=veneer,use_ino',
    // libfuse 2 does not say here who asks: nobody but who mounted may.
    allowOther: false,
    defaultPermissions: true,
    // Keeps pages across opens unless size or time changed: right for native files and for files that change behind the mount.
    autoCache: true,
    timeout: noTimeout,
  };
  const handles = new Handles();
  const folders = new Folders(filter);
  const fuse = new Fuse(mountpoint, operations(filter, handles, folders, log), options);
  await new Promise<void>((resolve, reject) => {
    fuse.mount((error) => (error === null ? resolve() : reject(error)));
  });
  const connection = new Connection(mountpoint);
  return {
    name: 'fuse-native',
    place: ({ plugin, part, fd }, rename) => {
      const number = filter.numbers.of(plugin, part);
      const opened = fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_RDWR);
      try {
        rename();
        filter.numbers.keep(fs.fstatSync(fd, { bigint: true }), number);
        handles.replace(plugin, part, opened);
      } finally {
        fs.closeSync(opened);
      }
    },
    // Each request is answered before anything else is done.
    settled: () => Promise.resolve(true),
    status: () => undefined,
    isOpen: (stat) => handles.has(stat),
    look: () => {
      filter.closeIdle(idleMs);
      connection.look();
      return !connection.isGone;
    },
    lookAtSources: () => undefined,
    close: () => {
      filter.close();
      folders.close();
      return Promise.resolve(true);
    },
  };
}

/** Whether somebody has aborted the connection, which nothing tells of. It is asked in the background: the answer comes from this very thread. */
class Connection {
  isGone = false;
  readonly #mountpoint: string;
  #isAsked = false;

  constructor(mountpoint: string) {
    this.#mountpoint = mountpoint;
  }

  look(): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    void fs.promises
      .stat(nativePath(this.#mountpoint))
      .catch((error: unknown) => {
        this.isGone ||= ['ENOTCONN', 'ECONNABORTED'].includes(systemErrorCode(error) ?? '');
      })
      .finally(() => (this.#isAsked = false));
  }
}

/** Open files by the small number that the kernel knows them by. */
class Handles {
  readonly #files = new Map<number, OpenFile>();
  #last = 0;

  add(file: OpenFile): number {
    do this.#last = (this.#last + 1) % 2 ** 31;
    while (this.#files.has(this.#last));
    this.#files.set(this.#last, file);
    return this.#last;
  }

  get(handle: number): OpenFile {
    const file = this.#files.get(handle);
    if (file === undefined) throw systemError('EBADF', 'read', String(handle));
    return file;
  }

  /** Whether a native file is open whose plugin file this is. */
  has(plugin: fs.BigIntStats): boolean {
    return [...this.#files.values()].some((file) => file.isNative && isSame(file.stat(), plugin));
  }

  /** Handles of a native file are those of an ordinary file from now on. @param fd of that, open for reading and writing */
  replace(plugin: fs.BigIntStats, part: string, fd: number): void {
    for (const [handle, file] of this.#files) {
      if (!(file instanceof SynthesizedFile) || file.state.part !== part || !isSame(file.stat(), plugin)) continue;
      duplicateTo(fd, file.fd);
      this.#files.set(handle, new PassThroughFile(file.fd));
      file.leave();
    }
  }

  remove(handle: number): OpenFile {
    const file = this.get(handle);
    this.#files.delete(handle);
    return file;
  }
}

function isSame(one: fs.BigIntStats, other: fs.BigIntStats): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}

/** What stands for a byte that is no UTF-8 in what comes from the binding; a file that has this very character in its name cannot be told from it. */
const replacementCharacter = '\uFFFD';

/** Whether a name, path or link's target goes through the binding and comes out as itself. */
function isCarried(text: string): boolean {
  return text.isWellFormed() && !text.includes(replacementCharacter);
}

function carried(text: string): string {
  if (!isCarried(text)) throw systemError('EILSEQ', 'fuse', text);
  return text;
}

function operations(filter: Filter, handles: Handles, folders: Folders, log: Log): FuseOperations {
  const numbers = new NarrowNumbers();
  const at = <T>(path: string, use: (place: Place) => T): T => folders.withPlace(carried(path), use);

  /** Runs a handler and replies exactly once: with its value, or with the errno of what it threw. */
  function answer<T>(operation: string, reply: (errno: number, value?: T) => void, handler: () => T): void {
    let value: T;
    try {
      value = handler();
    } catch (error) {
      if (!isExpected(error)) log('warn', `${operation}: ${describeError(error)}`, { operation });
      reply(-errnoOf(error));
      return;
    }
    reply(0, value);
  }
  const done = (operation: string, reply: (errno: number) => void, handler: () => void): void =>
    answer(operation, (errno) => reply(errno), handler);
  /** For read and write, whose reply is a count. */
  const count = (operation: string, reply: (errno: number) => void, handler: () => number): void =>
    answer<number>(operation, (errno, value) => reply(errno === 0 ? (value ?? 0) : errno), handler);

  return {
    getattr: (path, reply) =>
      answer('getattr', reply, () => at(path, (place) => statOf(filter.attributes(place), numbers))),
    readdir: (path, reply) =>
      answer<Listed>(
        'readdir',
        (errno, listed) => (listed === undefined ? reply(errno) : reply(errno, listed.names, listed.stats)),
        () =>
          folders.withFolder(namesOf(carried(path)), (folder) =>
            folders.withFolder(namesOf(carried(path)).slice(0, -1), (parent) =>
              list(filter, folder, parent, numbers, log),
            ),
          ),
      ),
    readlink: (path, reply) => answer('readlink', reply, () => at(path, (place) => carried(filter.readLink(place)))),
    statfs: (path, reply) =>
      answer('statfs', reply, () =>
        folders.withFolder(namesOf(carried(path)).slice(0, -1), (folder) => statFsOf(filter.space(folder))),
      ),
    open: (path, flags, reply) =>
      answer('open', reply, () => handles.add(at(path, (place) => filter.open(place, flags)))),
    create: (path, mode, reply) =>
      answer('create', reply, () => handles.add(at(path, (place) => filter.create(place, mode)))),
    read: (_path, handle, buffer, length, offset, reply) =>
      count('read', reply, () => handles.get(handle).read(buffer.subarray(0, length), exact(offset))),
    write: (_path, handle, buffer, length, offset, reply) =>
      count('write', reply, () => handles.get(handle).write(buffer.subarray(0, length), exact(offset))),
    flush: (_path, _handle, reply) => done('flush', reply, () => undefined),
    fsync: (_path, dataOnly, handle, reply) => done('fsync', reply, () => handles.get(handle).sync(dataOnly !== 0)),
    release: (_path, handle, reply) => done('release', reply, () => handles.remove(handle).close()),
    truncate: (path, size, reply) =>
      done('truncate', reply, () => at(path, (place) => filter.truncate(place, exact(size)))),
    ftruncate: (_path, handle, size, reply) =>
      done('ftruncate', reply, () => handles.get(handle).truncate(exact(size))),
    utimens: (path, accessed, modified, reply) =>
      done('utimens', reply, () =>
        at(path, (place) => filter.changeTimes(place, nanoseconds(accessed), nanoseconds(modified))),
      ),
    chmod: (path, mode, reply) => done('chmod', reply, () => at(path, (place) => filter.changeMode(place, mode))),
    chown: (path, uid, gid, reply) =>
      done('chown', reply, () => at(path, (place) => filter.changeOwner(place, signed(uid), signed(gid)))),
    mkdir: (path, mode, reply) => done('mkdir', reply, () => at(path, (place) => filter.makeFolder(place, mode))),
    rmdir: (path, reply) => done('rmdir', reply, () => at(path, (place) => filter.removeFolder(place))),
    unlink: (path, reply) => done('unlink', reply, () => at(path, (place) => filter.removeFile(place))),
    rename: (from, to, reply) =>
      done('rename', reply, () => at(from, (source) => at(to, (target) => filter.rename(source, target)))),
    link: (from, to, reply) =>
      done('link', reply, () => at(from, (source) => at(to, (target) => filter.makeLink(source, target)))),
    symlink: (target, path, reply) =>
      done('symlink', reply, () => at(path, (place) => filter.makeSymlink(place, carried(target)))),
  };
}

/** An offset or a size. (Node takes one that is not exact for none, and writes wherever the file is.) @throws EFBIG */
function exact(value: number): number {
  if (!Number.isSafeInteger(value)) throw systemError('EFBIG', 'fuse', String(value));
  return value;
}

/** All counts are u32 in this binding: a large file system is told in larger blocks. */
function statFsOf(space: fs.StatsFs): FuseStatFs {
  const scale = 2 ** Math.max(0, Math.ceil(Math.log2(Math.max(1, space.blocks) / 2 ** 32)));
  const scaled = (blocks: number): number => Math.floor(blocks / scale);
  const inodes = (count: number): number => Math.min(count, 2 ** 32 - 1);
  return {
    bsize: space.bsize * scale,
    frsize: space.bsize * scale,
    blocks: scaled(space.blocks),
    bfree: scaled(space.bfree),
    bavail: scaled(space.bavail),
    files: inodes(space.files),
    ffree: inodes(space.ffree),
    favail: inodes(space.ffree),
    fsid: 0,
    flag: 0,
    namemax: 255,
  };
}

/** -1 (leave as it is) comes as 2^32 - 1. */
function signed(id: number): number {
  return id === 2 ** 32 - 1 ? -1 : id;
}

function nanoseconds(milliseconds: number): bigint {
  return BigInt(Math.round(milliseconds * 1000)) * 1000n;
}

interface Listed {
  readonly names: string[];
  readonly stats: FuseStat[];
}

/** Of each entry the binding wants whole attributes, and uses the type and the number. */
function list(filter: Filter, folder: Place, parent: Place, numbers: NarrowNumbers, log: Log): Listed {
  const own = filter.attributes(folder);
  const all = filter.list(folder);
  const shown = all.filter(({ name }) => isCarried(name));
  const left = all.length - shown.length;
  if (left > 0)
    log('warn', `${left} names that are no UTF-8 are not shown; mount with --transport kernel to see them`, {
      file: filter.nameOf(folder),
    });
  const entries = [
    { name: '.', type: own.mode, inode: own.inode },
    { name: '..', type: own.mode, inode: filter.attributes(parent).inode },
    ...shown,
  ];
  const stats = entries.map(({ type, inode }) => statOf({ ...own, mode: type, inode }, numbers));
  return { names: entries.map(({ name }) => name), stats };
}

function statOf(attributes: Attributes, numbers: NarrowNumbers): FuseStat {
  return {
    mode: attributes.mode,
    size: attributes.sizeBytes,
    nlink: attributes.links,
    uid: attributes.uid,
    gid: attributes.gid,
    ino: numbers.of(attributes.inode),
    blocks: attributes.blocks512,
    rdev: attributes.device,
    atime: new Date(Number(attributes.accessedNs / 1_000_000n)),
    mtime: new Date(Number(attributes.modifiedNs / 1_000_000n)),
    ctime: new Date(Number(attributes.changedNs / 1_000_000n)),
  };
}
