/**
 * What is done to the folder behind the mount for whoever asks: with his rights and on the very file that is meant, so that nobody does
 * through the mount what he could not do behind it. No link at the end of a path is followed.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { systemErrorCode } from '../base/errors.ts';
import { makeNode, renameWith, requireExecutable, type TimeChange } from '../base/system-calls.ts';
import {
  handsRightsOn,
  listAttributes,
  readAttribute,
  removeAttribute,
  writeAttribute,
} from './extended-attributes.ts';
import type { Place } from './place.ts';
import type { Rights } from './rights.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL } = fs.constants;
/** Flags of the caller's open that reach the file behind: its access mode alone. The kernel does append and truncation itself. */
const passedFlags = O_RDONLY | O_WRONLY | O_RDWR;
/** The kernel's own flag of an open that is to run the file. */
const forExecution = 0x20;
const permissions = 0o7777;

export class Behind {
  readonly #rights: Rights;

  constructor(rights: Rights) {
    this.#rights = rights;
  }

  /** @param flags of open(2) @returns a descriptor */
  open(place: Place, flags: number): number {
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

  /** @param umask of the caller, where the kernel has not applied it @returns a descriptor */
  create(place: Place, mode: number, umask: number): number {
    const allowed = allowedMode(place, mode, umask) & permissions;
    return this.#rights.asCaller(() => fs.openSync(place.at, O_RDWR | O_CREAT | O_EXCL, allowed));
  }

  makeFolder(place: Place, mode: number, umask: number): void {
    const allowed = allowedMode(place, mode, umask) & permissions;
    this.#rights.asCaller(() => fs.mkdirSync(place.at, { mode: allowed }));
  }

  makeSymlink(place: Place, target: string): void {
    this.#rights.asCaller(() => fs.symlinkSync(target, place.at));
  }

  /** @param mode with the type */
  makeNode(place: Place, mode: number, device: number, umask: number): void {
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

  /** @param flags of renameat2(2) */
  rename(from: Place, to: Place, flags: number): void {
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

  /** As readAttribute of extended-attributes.ts. */
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
