/**
 * Sources of images other than raw files: every native format that we read, with the parents of differencing files.
 *
 * What a file is, the user says, or its name and its content together (source-format.ts); what a parent is, the file that was made on it says,
 * or the parent's own name and content. Never the content alone: whoever can write a raw disk can make it look like a qcow2 file that names any
 * file of the host as its backing file. For the same reason a file's parent or extent is looked for only in the folder of the file that names it.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { FormatError, UnavailableError, UsageError, VeneerError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { workerUrl } from '../base/worker-url.ts';
import type { SourceKind } from '../backup/create.ts';
import type { Disk } from '../disk/disk.ts';
import { openFileDisk, openResolvedFileDisk } from '../disk/file.ts';
import { formatNames, qemuFormats, type FormatName } from '../native/formats.ts';
import { openQcow2 } from '../native/qcow2/read.ts';
import { openRaw } from '../native/raw/read.ts';
import type { NativeDisk, ParentReference, ReaderOptions } from '../native/reader.ts';
import { openVdi } from '../native/vdi/read.ts';
import { openVhd } from '../native/vhd/read.ts';
import type { ParentLocator } from '../native/vhdx/parent-locator.ts';
import { openVhdx, type ParentFile } from '../native/vhdx/read.ts';
import { openVmdk } from '../native/vmdk/read.ts';
import { formatOf, insistByOption, type Insist } from './source-format.ts';

/** A source as `createImage` takes it: as what it was said to be, or as what its name and its content say. */
export const nativeSource: SourceKind = { open: openSource, workerUrl: workerUrl(import.meta.url, './source-worker') };

/**
 * Opens the disk that a file holds.
 * @param format default: what its name and its content say; raw where they name no container
 * @throws UsageError where they do not agree; FormatError, UnsupportedError, UnavailableError
 */
export function openSource(filePath: string, format?: string): Disk {
  const said = formatNames.find((known) => known === format);
  if (format !== undefined && said === undefined)
    throw new UsageError(`"${format}" is not a disk format; use ${formatNames.join(', ')}`);
  const file = openFileDisk(filePath);
  try {
    return openFormat(file, filePath, said ?? formatOf(file, filePath, insistByOption), 0);
  } catch (error) {
    file.close();
    if (!(error instanceof VeneerError) || error.message.includes(filePath)) throw error;
    throw new VeneerError(error.code, `${filePath}: ${error.message}`, { cause: error });
  }
}

function openFormat(file: Disk, filePath: string, format: FormatName, depth: number): NativeDisk {
  const options: ReaderOptions = {
    depth,
    openParent: (reference) =>
      openBeside(filePath, spellingsOf(reference.names), (parent) => openParent(filePath, parent, reference)),
  };
  switch (format) {
    case 'raw':
      return openRaw(file);
    case 'vhdx':
      return openVhdx(file, { openParent: (locator) => openVhdxParent(filePath, locator) });
    case 'vhd':
      return openVhd(file, options);
    case 'vdi':
      return openVdi(file, options);
    case 'qcow2':
      return openQcow2(file, options);
    case 'vmdk':
      return openVmdk(file, { ...options, openExtent: (name) => openBeside(filePath, [name], openResolvedFileDisk) });
  }
}

function openParent(childPath: string, parentPath: string, { format, depth }: ParentReference): NativeDisk {
  const file = openResolvedFileDisk(parentPath);
  try {
    return openFormat(file, parentPath, format ?? formatOf(file, parentPath, insistInChild(childPath)), depth);
  } catch (error) {
    file.close();
    if (!(error instanceof VeneerError) || error.message.includes(parentPath)) throw error;
    throw new VeneerError(error.code, `${parentPath}: ${error.message}`, { cause: error });
  }
}

/** Only a qcow2 file leaves it open what its backing file is. */
function insistInChild(childPath: string): Insist {
  return (format) =>
    `say so in the file made on it (qemu-img rebase -u -f qcow2 -F ${qemuFormats[format]} -b BACKING ${childPath})`;
}

function openVhdxParent(childPath: string, locator: ParentLocator): ParentFile {
  const names = [locator.relativePath, locator.absoluteWin32Path, locator.volumePath].filter(
    (name) => name !== undefined,
  );
  return openBeside(childPath, spellingsOf(names), (parentPath) => ({
    file: openResolvedFileDisk(parentPath),
    openParent: (next: ParentLocator) => openVhdxParent(parentPath, next),
  }));
}

/** A parent's path as it may be meant: as it is; with Windows' slashes; and only its last name. */
function spellingsOf(names: readonly string[]): string[] {
  const spellings = names.flatMap((name) => {
    const posix = name.replaceAll('\\', '/');
    return [name, posix, path.posix.basename(posix)];
  });
  return [...new Set(spellings)];
}

/** Opens the first of `names` that lies in the folder of `filePath` or below it. */
function openBeside<T>(filePath: string, names: readonly string[], open: (path: string) => T): T {
  const folder = fs.realpathSync(path.dirname(filePath));
  for (const name of names) {
    const found = existing(absolutePath(folder, name));
    if (found === undefined || !found.startsWith(folder === '/' ? folder : `${folder}/`)) continue;
    if (fs.realpathSync(filePath) === found) throw new FormatError(filePath, 'parent', 0, 'names itself');
    return open(found);
  }
  if (names.length === 0)
    throw new UnavailableError(
      `${filePath}: holds changes over a file that it does not name; merge it into that one first`,
    );
  throw new UnavailableError(
    `${filePath}: needs ${names.map((name) => JSON.stringify(name)).join(' or ')} in its folder, which is not there`,
  );
}

function existing(candidate: string): string | undefined {
  try {
    return fs.realpathSync(candidate);
  } catch {
    return undefined;
  }
}
