/**
 * The record of a finalized disk: a copy of the plugin file whose place the disk file has taken, under a name that no mount takes for a disk.
 *
 * A copy and no further name of it: under a mount a file is known by its inode, and one with two names would read as the one or the other as
 * they were looked up. Earlier versions made it a second name; where a crash has left such a one beside its plugin file, it is made a copy.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { fileModes } from '../base/file-modes.ts';
import { writeFileDurably, type FileOwner } from '../base/durable.ts';
import { ForbiddenError, systemErrorCode } from '../base/errors.ts';
import { writeFailure } from '../base/full-io.ts';
import { openRegular } from '../base/regular-file.ts';
import { suffixed } from '../base/suffixed.ts';
import { maxPluginFileBytes, recordSuffix } from '../plugin/plugin-file.ts';
import { ownContent } from '../source/own-content.ts';

export function isRecordName(name: string): boolean {
  return name.endsWith(recordSuffix);
}

/** @param number of the records of this name that there were before */
export function recordPathOf(pluginPath: string, number: number): string {
  return suffixed(pluginPath, `${number === 0 ? '' : `.${number}`}${recordSuffix}`);
}

/**
 * Makes it, durably. One that an interrupted attempt has left is known by its contents.
 * @returns its path
 * @throws CapacityError, UnavailableError
 */
export function keepRecord(pluginPath: string): string {
  const contents = fs.readFileSync(pluginPath);
  for (let number = 0; ; number++) {
    const record = recordPathOf(pluginPath, number);
    if (fs.lstatSync(record, { throwIfNoEntry: false }) === undefined) {
      copyTo(record, fs.statSync(pluginPath), contents);
      return record;
    }
    const found = lookAt(record);
    if (found?.contents.equals(contents) !== true) continue;
    separateRecord(record);
    return record;
  }
}

/**
 * Makes a record that is a further name of a plugin file a file of its own. Others stay as they are.
 * @throws CapacityError, UnavailableError when that cannot be done
 */
export function separateRecord(record: string): void {
  const stat = fs.lstatSync(record, { throwIfNoEntry: false });
  if (stat?.isFile() !== true || stat.nlink === 1) return;
  const found = lookAt(record);
  if (found !== undefined && found.owner.nlink > 1 && ownContent(found.contents) === 'plugin file')
    copyTo(record, found.owner, found.contents);
}

/** The same for all records of a folder. @returns names of those that could not be separated */
export function separateRecords(folder: string): string[] {
  return fs
    .readdirSync(folder)
    .filter(isRecordName)
    .filter((name) => {
      try {
        separateRecord(path.join(folder, name));
        return false;
      } catch {
        return true;
      }
    });
}

/** A file that may be a record; undefined for anything else, and where it is gone. */
function lookAt(record: string): { readonly owner: fs.Stats; readonly contents: Buffer } | undefined {
  let fd: number;
  try {
    fd = openRegular(record, fs.constants.O_RDONLY);
  } catch (error) {
    if (error instanceof ForbiddenError || systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const owner = fs.fstatSync(fd);
    return owner.size > maxPluginFileBytes ? undefined : { owner, contents: fs.readFileSync(fd) };
  } finally {
    fs.closeSync(fd);
  }
}

function copyTo(record: string, owner: FileOwner, contents: Uint8Array): void {
  try {
    writeFileDurably(record, contents, fileModes.pluginFile, owner);
  } catch (error) {
    throw systemErrorCode(error) === undefined
      ? error
      : writeFailure(record, 'keep the plugin file as a record', error);
  }
}
