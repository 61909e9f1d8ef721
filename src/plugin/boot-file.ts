/**
 * The boot file: what of GRUB is on a disk that is made around volumes, in a file beside the plugin file, which knows its SHA-256. So the
 * plugin file stays small, and a mount neither needs GRUB on its host nor ever shows another one.
 */
import { createHash } from 'node:crypto';
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { IntegrityError, UnavailableError, UsageError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { writeFileDurably } from '../base/durable.ts';
import { readFully } from '../base/full-io.ts';
import { openRegular } from '../base/regular-file.ts';
import { suffixed } from '../base/suffixed.ts';
import { maxBootFileBytes } from '../bootable/geometry.ts';
import type { Bootable } from './bootable-schema.ts';

type Described = NonNullable<Bootable['bootFile']>;

/** The boot file of a plugin file at `pluginPath`. */
export function bootFilePath(pluginPath: string): string {
  return suffixed(pluginPath, '.boot');
}

export function describeBootFile(pluginPath: string, contents: Uint8Array): Described {
  return { name: path.basename(bootFilePath(pluginPath)), sizeBytes: contents.length, sha256: hashOf(contents) };
}

/**
 * Whether a boot file may be written for the plugin file: nothing lies there, or an equal one, or `force` says so.
 * @throws UsageError
 */
export function assertMayWriteBootFile(pluginPath: string, contents: Uint8Array, force: boolean): void {
  const file = bootFilePath(pluginPath);
  const stat = fs.lstatSync(file, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (stat.isFile() && (force || isSame(file, contents, stat.size))) return;
  throw new UsageError(
    `${file}: exists already, and the boot files belong there; choose another name, or replace it with --force`,
  );
}

export function writeBootFile(pluginPath: string, contents: Uint8Array): void {
  writeFileDurably(bootFilePath(pluginPath), contents, fileModes.bootFile);
}

/**
 * All of the boot file; none where the disk needs none.
 * @throws UnavailableError when it is not there; IntegrityError when it is another than the plugin file was made with
 */
export function readBootFile(bootable: Bootable, pluginPath: string): Uint8Array {
  const { bootFile } = bootable;
  if (bootFile === undefined) return new Uint8Array(0);
  const file = path.join(path.dirname(pluginPath), bootFile.name);
  const contents = read(file, bootFile.sizeBytes);
  const actual = hashOf(contents);
  if (actual !== bootFile.sha256)
    throw new IntegrityError(`${file}: boot file of ${pluginPath}`, bootFile.sha256, actual);
  return contents;
}

function read(file: string, sizeBytes: number): Uint8Array {
  let fd: number;
  try {
    // A plugin file may name anything.
    fd = openRegular(file, fs.constants.O_RDONLY);
  } catch (error) {
    throw new UnavailableError(`${file}: the boot file cannot be opened`, { cause: error, retryable: true });
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() || stat.size !== sizeBytes) {
      throw new UnavailableError(`${file}: is not the boot file of ${sizeBytes} bytes; make the plugin file again`);
    }
    const contents = new Uint8Array(sizeBytes);
    readFully(fd, contents, 0, file);
    return contents;
  } finally {
    fs.closeSync(fd);
  }
}

function isSame(file: string, contents: Uint8Array, sizeBytes: number): boolean {
  return (
    sizeBytes === contents.length && sizeBytes <= maxBootFileBytes && hashOf(read(file, sizeBytes)) === hashOf(contents)
  );
}

function hashOf(contents: Uint8Array): string {
  return createHash('sha256').update(contents).digest('hex');
}
