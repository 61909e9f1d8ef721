/**
 * The transport over the npm package fuse-native (libfuse 2): every request is answered on the main thread, synchronously.
 *
 * Its traps, and what is done about them (measured; see native-notes/transports.md):
 * - a handler that throws never replies, and a second reply corrupts silently: every handler runs through `answer`, which replies once
 * - read and write have no time-out: the default answers ETIMEDOUT while the handler still runs
 * - big_writes goes through a comma in fsname: without it writes come in 4 KiB
 * - read and write hand out libfuse's own memory: it is used only until the reply, which is sent before the handler returns
 */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import { describeError } from '../../base/errors.ts';
import { errnoOf, isExpected } from '../errno.ts';
import type { Filter } from '../filter.ts';
import type { Log } from '../native-file-state.ts';
import { PassThroughFile, SynthesizedFile, type OpenFile } from '../open-file.ts';
import { NamedPlace, type Attributes, type Place } from '../place.ts';
import { duplicateTo } from '../system-calls.ts';
import { systemError } from '../system-error.ts';
import type { ServingTransport } from '../transport.ts';
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
  const Fuse = loadFuse();
  const options: FuseOptions = {
    fsname: 'veneer,big_writes,max_background=64,subtype=veneer,use_ino',
    allowOther: process.getuid?.() === 0,
    defaultPermissions: true,
    // Keeps pages across opens unless size or time changed: right for native files and for files that change behind the mount.
    autoCache: true,
    timeout: noTimeout,
  };
  const handles = new Handles();
  const fuse = new Fuse(mountpoint, operations(filter, log, handles), options);
  await new Promise<void>((resolve, reject) => {
    fuse.mount((error) => (error === null ? resolve() : reject(error)));
  });
  return {
    name: 'fuse-native',
    place: ({ pluginPath, path: filePath, fd }, rename) => {
      const number = filter.numbers.of(
        fs.statSync(pluginPath, { bigint: true }),
        filePath === pluginPath ? '' : path.basename(filePath),
      );
      const opened = fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_RDWR);
      try {
        rename();
        filter.numbers.keep(fs.fstatSync(fd, { bigint: true }), number);
        handles.replace(filter.nameOf(new NamedPlace(filePath)), opened);
      } finally {
        fs.closeSync(opened);
      }
    },
    // Each request is answered before anything else is done.
    settled: () => Promise.resolve(true),
    status: () => undefined,
    look: () => {
      filter.closeIdle(idleMs);
      return true;
    },
    close: () => Promise.resolve(filter.close()),
  };
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

  /** Handles of a native file are those of an ordinary file from now on. @param fd of that, open for reading and writing */
  replace(name: string, fd: number): void {
    for (const [handle, file] of this.#files) {
      if (!(file instanceof SynthesizedFile) || file.state.name !== name) continue;
      duplicateTo(fd, file.fd);
      this.#files.set(handle, new PassThroughFile(file.fd));
      file.forget(true);
    }
  }

  remove(handle: number): OpenFile {
    const file = this.get(handle);
    this.#files.delete(handle);
    return file;
  }
}

function operations(filter: Filter, log: Log, handles: Handles): FuseOperations {
  const numbers = new NarrowNumbers();
  const place = (fusePath: string): Place => placeOf(filter, fusePath);

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
    getattr: (path, reply) => answer('getattr', reply, () => statOf(filter.attributes(place(path)), numbers)),
    readdir: (path, reply) =>
      answer<Listed>(
        'readdir',
        (errno, listed) => (listed === undefined ? reply(errno) : reply(errno, listed.names, listed.stats)),
        () => list(filter, place(path), place(parentOf(path)), numbers),
      ),
    readlink: (path, reply) => answer('readlink', reply, () => filter.readLink(place(path))),
    statfs: (path, reply) => answer('statfs', reply, () => statFsOf(filter.space(place(path)))),
    open: (path, flags, reply) => answer('open', reply, () => handles.add(filter.open(place(path), flags))),
    create: (path, mode, reply) => answer('create', reply, () => handles.add(filter.create(place(path), mode))),
    read: (_path, handle, buffer, length, offset, reply) =>
      count('read', reply, () => handles.get(handle).read(buffer.subarray(0, length), offset)),
    write: (_path, handle, buffer, length, offset, reply) =>
      count('write', reply, () => handles.get(handle).write(buffer.subarray(0, length), offset)),
    flush: (_path, _handle, reply) => done('flush', reply, () => undefined),
    fsync: (_path, dataOnly, handle, reply) => done('fsync', reply, () => handles.get(handle).sync(dataOnly !== 0)),
    release: (_path, handle, reply) => done('release', reply, () => handles.remove(handle).close()),
    truncate: (path, size, reply) => done('truncate', reply, () => filter.truncate(place(path), size)),
    ftruncate: (_path, handle, size, reply) => done('ftruncate', reply, () => handles.get(handle).truncate(size)),
    utimens: (path, accessed, modified, reply) =>
      done('utimens', reply, () => filter.changeTimes(place(path), nanoseconds(accessed), nanoseconds(modified))),
    chmod: (path, mode, reply) => done('chmod', reply, () => filter.changeMode(place(path), mode)),
    chown: (path, uid, gid, reply) =>
      done('chown', reply, () => filter.changeOwner(place(path), signed(uid), signed(gid))),
    mkdir: (path, mode, reply) => done('mkdir', reply, () => filter.makeFolder(place(path), mode)),
    rmdir: (path, reply) => done('rmdir', reply, () => filter.removeFolder(place(path))),
    unlink: (path, reply) => done('unlink', reply, () => filter.removeFile(place(path))),
    rename: (from, to, reply) => done('rename', reply, () => filter.rename(place(from), place(to))),
    link: (from, to, reply) => done('link', reply, () => filter.makeLink(place(from), place(to))),
    symlink: (target, path, reply) => done('symlink', reply, () => filter.makeSymlink(place(path), target)),
  };
}

/** A path of FUSE's, such as `/sub/vm.vhdx`: only its last name can be one that the folder behind does not have. */
function placeOf(filter: Filter, fusePath: string): Place {
  const names = fusePath.split('/').filter((name) => name !== '');
  const last = names.pop();
  if (last === undefined) return filter.root;
  const folder = new NamedPlace([filter.root.path, ...names].join('/'));
  return filter.child(folder, last);
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

function parentOf(fusePath: string): string {
  return fusePath.slice(0, fusePath.lastIndexOf('/'));
}

interface Listed {
  readonly names: string[];
  readonly stats: FuseStat[];
}

/** Of each entry the binding wants whole attributes, and uses the type and the number. */
function list(filter: Filter, folder: Place, parent: Place, numbers: NarrowNumbers): Listed {
  const own = filter.attributes(folder);
  const entries = [
    { name: '.', type: own.mode, inode: own.inode },
    { name: '..', type: own.mode, inode: filter.attributes(parent).inode },
    ...filter.list(folder),
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
