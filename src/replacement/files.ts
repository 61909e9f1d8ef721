/** The files of a replacement on disk: opened only where they are to be trusted, locked, and made anew where there are none. */
import * as fs from '../base/fs.ts';
import { fileModes } from '../base/file-modes.ts';
import path from 'node:path';
import {
  BusyError,
  FormatError,
  ReadOnlyError,
  systemErrorCode,
  UnavailableError,
  VeneerError,
} from '../base/errors.ts';
import { lockExclusively, type LockPatience } from '../base/file-lock.ts';
import { readFully, writeFailure } from '../base/full-io.ts';
import { MiB } from '../base/units.ts';
import { seekData } from '../disk/lseek.ts';
import { openBeside, type BesideOwner } from '../plugin/beside.ts';
import { dataOf, isKept, mapOf, type BesidePath, type ReplacementPlace } from './beside.ts';
import { unitBytes } from './layout.ts';

/** A data file without a map is looked at so far. */
const maxLookedAtBytes = 64 * MiB;

/** The data file of a map that is there, locked. */
export function openData(place: ReplacementPlace): number {
  const data = dataOf(place);
  if (fs.lstatSync(data.at, { throwIfNoEntry: false }) === undefined)
    throw new FormatError(data.shown, 'data', 0, `is missing, but the map beside it speaks of it; put it back`);
  return locked(openToWrite(data, place.owner), data);
}

/** A new data file, locked; there is no map. What a crash has left, before it had one, goes. */
export function makeData(place: ReplacementPlace): number {
  const data = dataOf(place);
  if (fs.lstatSync(data.at, { throwIfNoEntry: false }) !== undefined) removeUnmapped(place, data);
  const fd = locked(openToWrite(data, place.owner, fs.constants.O_CREAT | fs.constants.O_EXCL), data);
  // One that a plugin file of earlier has left. Whoever makes a map has the lock.
  fs.rmSync(mapOf(place).at, { force: true });
  return fd;
}

/**
 * A data file without a map is one that was being made: there is nothing in it. One that holds something has lost its map, or is none of ours.
 * @throws FormatError for such a one; BusyError when another process is making it
 */
function removeUnmapped(place: ReplacementPlace, data: BesidePath): void {
  const fd = locked(openToWrite(data, place.owner), data);
  try {
    if (isKept(place)) throw replacedMeanwhile(data);
    if (holdsData(fd, data.shown))
      throw new FormatError(
        data.shown,
        'map',
        0,
        `is missing: ${path.basename(mapOf(place).shown)} belongs beside it; put it back, or move the file away to start anew`,
      );
    fs.rmSync(data.at, { force: true });
  } finally {
    fs.closeSync(fd);
  }
}

/** Whether anything but zeros is found. Where a file system knows no holes, a part of the file answers for all of it. */
function holdsData(fd: number, name: string): boolean {
  const chunk = new Uint8Array(unitBytes);
  let leftBytes = maxLookedAtBytes;
  const { size } = fs.fstatSync(fd);
  for (let at = seekData(fd, 0, name); at !== undefined && at < size && leftBytes > 0;) {
    const length = Math.min(chunk.length, size - at);
    readFully(fd, chunk.subarray(0, length), at, name);
    if (chunk.subarray(0, length).some((byte) => byte !== 0)) return true;
    leftBytes -= length;
    at = seekData(fd, at + length, name);
  }
  return false;
}

/**
 * What a server that was killed had given to the kernel to read and write is let go a moment after its mount: so much is waited for that, in the
 * life of a process. A program that still has the disk open under the dead mount goes on with it, and nobody else has the disk until it ends.
 */
const patience: LockPatience = { leftMs: 2000 };

/** Locks a data file, and closes it where that fails, or its name was given to another meanwhile. */
function locked(dataFd: number, data: BesidePath): number {
  try {
    lockData(dataFd, data.shown);
    const ours = fs.fstatSync(dataFd, { bigint: true });
    const named = fs.lstatSync(data.at, { bigint: true, throwIfNoEntry: false });
    if (named?.dev !== ours.dev || named.ino !== ours.ino) throw replacedMeanwhile(data);
    return dataFd;
  } catch (error) {
    fs.closeSync(dataFd);
    throw error;
  }
}

function lockData(dataFd: number, shown: string): void {
  try {
    lockExclusively(dataFd, shown, patience);
  } catch (error) {
    if (!(error instanceof BusyError)) throw error;
    throw new BusyError(
      `${shown}: another process writes it, or a program that has had the disk open since before its mount died; end that, and try again`,
    );
  }
}

function replacedMeanwhile({ shown }: BesidePath): UnavailableError {
  return new UnavailableError(`${shown}: was replaced while it was opened; try again`, { retryable: true });
}

export function openToWrite({ at, shown }: BesidePath, owner: BesideOwner | undefined, makes = 0): number {
  try {
    if (makes !== 0) return fs.openSync(at, fs.constants.O_RDWR | makes, fileModes.replacement);
    return openBeside(at, fs.constants.O_RDWR, owner, shown);
  } catch (error) {
    if (error instanceof VeneerError) throw error;
    if (systemErrorCode(error) === 'EROFS') throw new ReadOnlyError(`${shown}: its file system is read-only`);
    throw writeFailure(shown, makes === 0 ? 'open it for writing' : 'create it', error);
  }
}
