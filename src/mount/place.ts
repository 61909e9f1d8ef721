/**
 * A place: what a name under the mount stands for. Most places are a file or folder behind the mount; some names exist only under it (an
 * image shown as a disk, the extent file of a VMDK) and stand for a part of the file behind.
 *
 * A place is found by its name (a path, which leads elsewhere after a rename) or held by a descriptor (which never does).
 */
import * as fs from '../base/fs.ts';
import { systemErrorCode } from '../base/errors.ts';
import { currentPath, openPath } from '../base/open-path.ts';
import { changeTimes, linkDescriptor, readLinkOf, type TimeChange } from '../base/system-calls.ts';
import { systemError } from '../base/system-error.ts';

export interface Place {
  /** '' for the file itself; otherwise the name of the native file that is made from it. */
  readonly part: string;
  /** The path for system calls. */
  readonly at: string;
  /** What it is called now, behind the mount: for messages, and to find what lies beside it. May cost a system call. */
  readonly path: string;
  /** Of the file itself: a symbolic link is not followed. */
  stat(): fs.BigIntStats;
  /** Never follows a symbolic link. @returns a descriptor */
  open(flags: number): number;
  /** A further descriptor that names it and nothing more. */
  hold(): number;
  readLink(): string;
  /** @throws EOPNOTSUPP for a symbolic link */
  changeMode(mode: number): void;
  truncate(sizeBytes: number): void;
  changeOwner(uid: number, gid: number): void;
  changeTimes(accessed: TimeChange, modified: TimeChange): void;
  /** Makes `path` a further name of it. */
  linkAs(path: string): void;
}

/** A place by its name. */
export class NamedPlace implements Place {
  readonly part: string;
  readonly at: string;
  readonly #path: string | (() => string);

  /** @param path what it is called where that differs from `at`; asked for only when it is needed */
  constructor(at: string, part = '', path: string | (() => string) = at) {
    this.at = at;
    this.part = part;
    this.#path = path;
  }

  get path(): string {
    return typeof this.#path === 'string' ? this.#path : this.#path();
  }

  stat(): fs.BigIntStats {
    return fs.lstatSync(this.at, { bigint: true });
  }

  open(flags: number): number {
    return fs.openSync(this.at, flags | fs.constants.O_NOFOLLOW);
  }

  hold(): number {
    return openPath(this.at);
  }

  readLink(): string {
    return fs.readlinkSync(this.at);
  }

  changeMode(mode: number): void {
    const fd = openPath(this.at);
    try {
      new HeldPlace(fd).changeMode(mode);
    } finally {
      fs.closeSync(fd);
    }
  }

  truncate(sizeBytes: number): void {
    truncateOpened(this.open(toTruncate), sizeBytes);
  }

  changeOwner(uid: number, gid: number): void {
    fs.lchownSync(this.at, uid, gid);
  }

  changeTimes(accessed: TimeChange, modified: TimeChange): void {
    changeTimes(this.at, accessed, modified, false);
  }

  linkAs(path: string): void {
    fs.linkSync(this.at, path);
  }
}

/** A place by a descriptor, O_PATH or another, which somebody else owns. */
export class HeldPlace implements Place {
  readonly part: string;
  readonly at: string;
  readonly fd: number;
  readonly #path: string | undefined;

  /** @param path what to call it, whatever it is called by now */
  constructor(fd: number, part = '', path?: string) {
    this.fd = fd;
    this.part = part;
    this.at = `/proc/self/fd/${fd}`;
    this.#path = path;
  }

  get path(): string {
    return this.#path ?? currentPath(this.fd);
  }

  stat(): fs.BigIntStats {
    return fs.fstatSync(this.fd, { bigint: true });
  }

  open(flags: number): number {
    return fs.openSync(this.at, flags);
  }

  hold(): number {
    return openPath(this.at, true);
  }

  readLink(): string {
    return readLinkOf(this.fd);
  }

  changeMode(mode: number): void {
    if (this.stat().isSymbolicLink()) throw systemError('EOPNOTSUPP', 'chmod', 'a symbolic link');
    fs.chmodSync(this.at, mode);
  }

  truncate(sizeBytes: number): void {
    truncateOpened(this.open(toTruncate), sizeBytes);
  }

  changeOwner(uid: number, gid: number): void {
    fs.chownSync(this.at, uid, gid);
  }

  changeTimes(accessed: TimeChange, modified: TimeChange): void {
    changeTimes(this.at, accessed, modified, true);
  }

  linkAs(path: string): void {
    linkDescriptor(this.at, path);
  }
}

/** One whose name, once it was asked for, stays what it was. (A path may be longer than the system tells it, and most opens need none.) */
export class OpenedPlace extends HeldPlace {
  #asked: string | undefined;

  override get path(): string {
    return (this.#asked ??= super.path);
  }
}

/** Who may write a file may cut it, though he may not read it. */
const toTruncate = fs.constants.O_WRONLY | fs.constants.O_NONBLOCK;

/** @param fd is closed */
function truncateOpened(fd: number, sizeBytes: number): void {
  try {
    fs.ftruncateSync(fd, sizeBytes);
  } finally {
    fs.closeSync(fd);
  }
}

/** Its path, where the system tells it: not one of more than 4,095 bytes, as names in deep folders have. What needs the path is refused then. */
export function pathIfTold(place: Place): string | undefined {
  try {
    return place.path;
  } catch (error) {
    if (systemErrorCode(error) === 'ENAMETOOLONG') return undefined;
    throw error;
  }
}
