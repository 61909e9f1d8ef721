/**
 * The folder behind a mount, as it is. What is done to it is done for whoever asks: with his rights and on the very file that is meant, so that
 * nobody does through the mount what he could not do behind it. No link at the end of a path is followed.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { systemErrorCode } from '../base/errors.ts';
import { currentPath, openPath } from '../base/open-path.ts';
import { makeNode, renameWith, requireExecutable, type TimeChange } from '../base/system-calls.ts';
import {
  handsRightsOn,
  listAttributes,
  readAttribute,
  removeAttribute,
  writeAttribute,
} from './extended-attributes.ts';
import { InodeNumbers } from './inode-numbers.ts';
import { ListedNumbers, type NumberOfEntry } from './listed-numbers.ts';
import { PassThroughFile } from './open-file.ts';
import { NamedPlace, type Place } from './place.ts';
import type { Rights } from './rights.ts';
import type { Attributes, ChangeableTree, TreeEntry } from './tree.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, S_IFMT } = fs.constants;
/** Flags of the caller's open that reach the file behind: its access mode alone. The kernel does append and truncation itself. */
const passedFlags = O_RDONLY | O_WRONLY | O_RDWR;
/** The kernel's own flag of an open that is to run the file. */
const forExecution = 0x20;
const permissions = 0o7777;

export class FolderTree implements ChangeableTree<Place> {
  readonly #rights: Rights;
  readonly #rootFd: number;
  readonly #sharedNumbers: SharedArrayBuffer | undefined;
  #numbers: InodeNumbers | undefined;
  #listed: ListedNumbers | undefined;

  /**
   * @param folder absolute
   * @param numbers of InodeNumbers, where threads share it
   */
  constructor(folder: string, rights: Rights, numbers?: SharedArrayBuffer) {
    this.#rights = rights;
    this.#sharedNumbers = numbers;
    this.#rootFd = openPath(folder, true);
  }

  /** The folder itself, whatever it is called by now. */
  get root(): Place {
    return new NamedPlace(`/proc/self/fd/${this.#rootFd}`, '', () => this.path);
  }

  /** What it is called by now. */
  get path(): string {
    return currentPath(this.#rootFd);
  }

  /** Whether a path is the folder, or one in it. */
  isInside(absolute: string): boolean {
    const folder = this.path;
    return absolute === folder || absolute.startsWith(folder === '/' ? folder : `${folder}/`);
  }

  /** What files are numbered by under the mount. */
  get numbers(): InodeNumbers {
    return (this.#numbers ??= new InodeNumbers(fs.fstatSync(this.#rootFd, { bigint: true }).dev, this.#sharedNumbers));
  }

  /** The same of the entries of a folder that is being listed. @param fd of the folder */
  numbersIn(folder: Place, fd: number): NumberOfEntry {
    return (this.#listed ??= new ListedNumbers(this.numbers)).of(folder, fd);
  }

  /** Also of a name that nothing has yet. */
  child(folder: Place, name: string): Place {
    return new NamedPlace(`${folder.at}/${name}`, '', () => path.join(folder.path, name));
  }

  names(folder: Place): string[] {
    return fs.readdirSync(folder.at);
  }

  *list(folder: Place): Generator<TreeEntry> {
    for (const name of this.names(folder)) {
      const { mode, inode } = this.attributes(this.child(folder, name));
      yield { name, type: mode & S_IFMT, inode };
    }
  }

  /** @param stat of the place, where it is known. @throws ENOENT where nothing has that name */
  attributes(place: Place, stat = place.stat()): Attributes {
    return {
      inode: this.numbers.of(stat, place.part),
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

  readLink(place: Place): string {
    return place.readLink();
  }

  space(place: Place): fs.StatsFs {
    return fs.statfsSync(place.at);
  }

  open(place: Place, flags: number): PassThroughFile {
    return new PassThroughFile(this.openDescriptor(place, flags));
  }

  /** As `open`, for a file of another kind. */
  openDescriptor(place: Place, flags: number): number {
    try {
      return this.#rights.asCaller(() => openPlain(place, flags));
    } catch (error) {
      if ((flags & forExecution) === 0 || systemErrorCode(error) !== 'EACCES') throw error;
      // A program may be run by whom it may not be read by.
      this.#rights.asCaller(() => requireExecutable(place.at));
      return place.open(O_RDONLY);
    }
  }

  /** @returns a descriptor */
  openFolder(place: Place): number {
    return this.#rights.asCaller(() => place.open(O_RDONLY | O_DIRECTORY));
  }

  create(place: Place, mode: number, umask = 0): PassThroughFile {
    const allowed = allowedMode(place, mode, umask) & permissions;
    return new PassThroughFile(this.#rights.asCaller(() => fs.openSync(place.at, O_RDWR | O_CREAT | O_EXCL, allowed)));
  }

  makeFolder(place: Place, mode: number, umask = 0): void {
    const allowed = allowedMode(place, mode, umask) & permissions;
    this.#rights.asCaller(() => fs.mkdirSync(place.at, { mode: allowed }));
  }

  makeSymlink(place: Place, target: string): void {
    this.#rights.asCaller(() => fs.symlinkSync(target, place.at));
  }

  makeNode(place: Place, mode: number, device: number, umask = 0): void {
    const allowed = allowedMode(place, mode, umask);
    this.#rights.asCaller(() => makeNode(place.at, allowed, device));
  }

  makeLink(from: Place, to: Place): void {
    this.#rights.asCaller(() => from.linkAs(to.at));
  }

  removeFile(place: Place): void {
    this.#rights.asCaller(() => fs.unlinkSync(place.at));
  }

  removeFolder(place: Place): void {
    this.#rights.asCaller(() => fs.rmdirSync(place.at));
  }

  rename(from: Place, to: Place, flags = 0): void {
    this.#rights.asCaller(() => (flags === 0 ? fs.renameSync(from.at, to.at) : renameWith(from.at, to.at, flags)));
  }

  truncate(place: Place, sizeBytes: number): void {
    this.#rights.asCaller(() => place.truncate(sizeBytes));
  }

  changeMode(place: Place, mode: number): void {
    this.#rights.asCaller(() => place.changeMode(mode & permissions));
  }

  changeOwner(place: Place, uid: number, gid: number): void {
    this.#rights.asCaller(() => place.changeOwner(uid, gid));
  }

  changeTimes(place: Place, accessed: TimeChange, modified: TimeChange): void {
    this.#rights.asCaller(() => place.changeTimes(accessed, modified));
  }

  readAttribute(place: Place, name: string, value: Uint8Array): number {
    return this.#rights.asCaller(() => readAttribute(place.at, name, value));
  }

  listAttributes(place: Place): Uint8Array {
    return this.#rights.asCaller(() => listAttributes(place.at));
  }

  writeAttribute(place: Place, name: string, value: Uint8Array, flags: number): void {
    this.#rights.asCaller(() => writeAttribute(place.at, name, value, flags));
  }

  removeAttribute(place: Place, name: string): void {
    this.#rights.asCaller(() => removeAttribute(place.at, name));
  }

  close(): void {
    this.#listed?.close();
    fs.closeSync(this.#rootFd);
  }
}

/** A file that may only grow (chattr +a) is opened for nothing but appending. */
function openPlain(place: Place, flags: number): number {
  try {
    return place.open(flags & passedFlags);
  } catch (error) {
    if ((flags & O_APPEND) === 0 || systemErrorCode(error) !== 'EPERM') throw error;
    return place.open((flags & passedFlags) | O_APPEND);
  }
}

/** What a folder hands on to what is made in it comes before the umask of who makes it. */
function allowedMode(place: Place, mode: number, umask: number): number {
  return umask === 0 || handsRightsOn(path.dirname(place.at)) ? mode : mode & ~umask;
}
