/**
 * Sources of images other than raw files: every native format that we read, with the parents of differencing files.
 *
 * What a file is, the user says, or its name and its content together (source-format.ts); what a parent is, the file that was made on it says,
 * or the parent's own name and content. Never the content alone: whoever can write a raw disk can make it look like a qcow2 file that names any
 * file of the host as its backing file. For the same reason a file's parent or extent is looked for only in the folder of the file that names it.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { assert, FormatError, UnavailableError, UnsupportedError, UsageError, VeneerError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { workerUrl } from '../base/worker-url.ts';
import type { SourceKind } from '../backup/write/create.ts';
import type { Disk } from '../disk/disk.ts';
import { openFileDisk, openResolvedFileDisk } from '../disk/file.ts';
import {
  spellingsOf,
  type DiskReader,
  type NativeDisk,
  type ParentReference,
  type ReaderContext,
} from '../native/reader.ts';
import { sourceFormat, sourceFormatNames, sourceFormats } from './formats.ts';
import { formatOf, insistByOption, type Insist } from './source-format.ts';

/** A source as `createImage` takes it: as what it was said to be, or as what its name and its content say. */
export const nativeSource: SourceKind = { open: openSource, workerUrl: workerUrl(import.meta.url, './source-worker') };

/**
 * Opens the disk that a file holds.
 * @param format default: what its name and its content say; raw where they name no container
 * @throws UsageError where they do not agree; FormatError, UnsupportedError, UnavailableError
 */
export function openSource(filePath: string, format?: string): Disk {
  return openSourceWith({ filePath, format, openFile: openFileDisk, openBeside: openResolvedFileDisk }).disk;
}

/** What is opened, and how its files are. */
export interface SourceRequest {
  readonly filePath: string;
  readonly format: string | undefined;
  readonly openFile: (filePath: string) => Disk;
  /** @param filePath in the same folder or below it, without links */
  readonly openBeside: (filePath: string) => Disk;
  /** Budget for pages of tables, of each file. */
  readonly tableCacheBytes?: number;
}

/** As openSource. Tells also what the file was read as. */
export function openSourceWith(request: SourceRequest): { disk: NativeDisk; reader: DiskReader } {
  const { filePath, format } = request;
  const said = sourceFormat(format);
  if (format !== undefined && said === undefined)
    throw new UsageError(`"${format}" is not a disk format; use ${sourceFormatNames.join(', ')}`);
  const file = request.openFile(filePath);
  let reader = said;
  const disk = opened(file, filePath, () => {
    reader ??= formatOf(file, filePath, insistByOption);
    return reader.open(file, contextOf(request, filePath, 0, said !== undefined));
  });
  assert(reader !== undefined, 'a source was opened as nothing');
  return { disk, reader };
}

/** What a reader may know of the place of its file. */
function contextOf(request: SourceRequest, filePath: string, depth: number, isSaid: boolean): ReaderContext {
  const { openBeside, tableCacheBytes } = request;
  return {
    fileName: path.basename(filePath),
    depth,
    isSaid,
    ...(tableCacheBytes === undefined ? {} : { tableCacheBytes }),
    openParent: (reference) => openParent(request, filePath, reference),
    openBeside(names) {
      const found = findBeside(filePath, names);
      return { file: openBeside(found), context: contextOf(request, found, depth, true) };
    },
    namesBeside: () => fs.readdirSync(path.dirname(filePath)),
  };
}

function openParent(request: SourceRequest, childPath: string, reference: ParentReference): NativeDisk {
  const parentPath = findBeside(childPath, spellingsOf(reference.names));
  const file = request.openBeside(parentPath);
  return opened(file, parentPath, () => {
    const said = saidFormat(childPath, reference);
    const reader = said ?? formatOf(file, parentPath, insistInChild(childPath));
    return reader.open(file, contextOf(request, parentPath, reference.depth, said !== undefined));
  });
}

/** On success the disk owns the file. @throws what opening it throws, with the path in it */
function opened(file: Disk, filePath: string, open: () => NativeDisk): NativeDisk {
  try {
    return open();
  } catch (error) {
    file.close();
    if (!(error instanceof VeneerError) || error.message.includes(filePath)) throw error;
    throw new VeneerError(error.code, `${filePath}: ${error.message}`, { cause: error });
  }
}

/** @throws UnsupportedError when the child says a format that is not read */
function saidFormat(childPath: string, { format, qemuFormat }: ParentReference): DiskReader | undefined {
  if (format !== undefined) return sourceFormat(format);
  if (qemuFormat === undefined) return undefined;
  // The protocols of QEMU's early days make no more of a file than its bytes.
  const said = qemuFormat === 'file' || qemuFormat === 'host_device' ? 'raw' : qemuFormat;
  const found = sourceFormats.find(({ qemuName }) => qemuName === said);
  if (found !== undefined) return found;
  throw new UnsupportedError(
    `${childPath}: its backing file is said to be of the format ${JSON.stringify(qemuFormat)}, which is not read; convert the disk with qemu-img`,
  );
}

/** Only a qcow2 file, or a QED one, leaves it open what its backing file is. */
function insistInChild(childPath: string): Insist {
  return ({ qemuName = 'raw' }) =>
    `say so in the file made on it (qemu-img rebase -u -f qcow2 -F ${qemuName} -b BACKING ${childPath})`;
}

/** The first of `names` that lies in the folder of `filePath` or below it. */
function findBeside(filePath: string, names: readonly string[]): string {
  const folder = fs.realpathSync(path.dirname(filePath));
  for (const name of names) {
    const found = existing(absolutePath(folder, name));
    if (found === undefined || !found.startsWith(folder === '/' ? folder : `${folder}/`)) continue;
    if (fs.realpathSync(filePath) === found) throw new FormatError(filePath, 'parent', 0, 'names itself');
    return found;
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
