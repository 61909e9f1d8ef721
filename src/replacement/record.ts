/**
 * The record of a finalized disk: a copy of the plugin file whose place the disk file has taken, under a name that no mount takes for a disk.
 *
 * A copy and no further name of it: under a mount a file is known by its inode, and one with two names would read as the one or the other as
 * they were looked up. Earlier versions made it a second name; where a crash has left such a one beside its plugin file, it is made a copy.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { commitFile, syncFolder, unfinishedSuffix } from '../base/durable.ts';
import { systemErrorCode } from '../base/errors.ts';
import { writeFailure, writeFully } from '../base/full-io.ts';
import { isPluginFile, markerBytes, maxPluginFileBytes } from '../plugin/plugin-file.ts';

const recordSuffix = '.finalized';

export function isRecordName(name: string): boolean {
  return name.endsWith(recordSuffix);
}

/** @param number of the records of this name that there were before */
export function recordPathOf(pluginPath: string, number: number): string {
  return `${pluginPath}${number === 0 ? '' : `.${number}`}${recordSuffix}`;
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
    const stat = fs.lstatSync(record, { throwIfNoEntry: false });
    if (stat === undefined) {
      copyTo(record, pluginPath, contents);
      return record;
    }
    if (!stat.isFile() || stat.size !== contents.length || !fs.readFileSync(record).equals(contents)) continue;
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
  if (stat?.isFile() !== true || stat.nlink === 1 || stat.size > maxPluginFileBytes) return;
  const contents = fs.readFileSync(record);
  if (isPluginFile(contents.subarray(0, markerBytes))) copyTo(record, record, contents);
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

/** A durable commit; the file is of the owner and mode of another. */
function copyTo(record: string, original: string, contents: Uint8Array): void {
  const unfinished = record + unfinishedSuffix;
  const { O_CREAT, O_EXCL, O_RDWR } = fs.constants;
  const { uid, gid, mode } = fs.statSync(original);
  try {
    // What an interrupted attempt has left.
    fs.rmSync(unfinished, { force: true });
    const fd = fs.openSync(unfinished, O_RDWR | O_CREAT | O_EXCL, 0o600);
    try {
      writeFully(fd, contents, 0, unfinished);
      fs.fchownSync(fd, uid, gid);
      fs.fchmodSync(fd, mode & 0o777);
      commitFile(fd, record);
      syncFolder(path.dirname(record));
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    fs.rmSync(unfinished, { force: true });
    throw systemErrorCode(error) === undefined
      ? error
      : writeFailure(record, 'keep the plugin file as a record', error);
  }
}
