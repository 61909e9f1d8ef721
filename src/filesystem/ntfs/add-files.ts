/**
 * Files put into folders of an NTFS volume, whole: file record, clusters, data, name. Nothing is written; all of it becomes patches.
 *
 * - Only where Windows has left nothing open: a clean journal, a volume that is not marked dirty.
 * - The record and the clusters are free in the volume's own bitmaps, and in no structure of the file system.
 * - The file has the security of the programs beside it.
 * - A file of that name keeps its record and its clusters; it is written over where these hold the new contents.
 */
import { UnsupportedError, UsageError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import type { Change, Patch } from '../edit/patch.ts';
import { FolderIndex } from './folder-index.ts';
import { takeClusters } from './free-clusters.ts';
import { takeRecord, type FreeRecord } from './free-records.ts';
import type { Geometry } from './geometry.ts';
import { attributeTypes, dosNamespace, fileName, recordFlags, referenceTo, standardInformation } from './layout.ts';
import {
  fileNameKey,
  recordOfRuns,
  residentRecord,
  residentSizes,
  type NewRecord,
  type Security,
  type Sizes,
} from './new-record.ts';
import { appendClusters } from './runs.ts';
import type { VolumeState } from './state.ts';
import { NtfsWriter } from './writer.ts';

export interface NewFile {
  /** `/Windows/System32/drivers/viostor.sys`; its folder is there. */
  readonly path: string;
  readonly contents: Uint8Array;
  readonly modified: Date;
  /** Where the contents come from, and what for: for people. */
  readonly source: string;
  readonly why: string;
}

export interface AddedFiles {
  readonly patches: readonly Patch[];
  /** Empty where all files are there already as they should be. */
  readonly changes: readonly Change[];
}

/** Names that serve Windows and DOS at once, so that one entry in the folder is enough. */
const shortName = /^[A-Z0-9_-]{1,8}(\.[A-Z0-9_-]{1,3})?$/i;
/** Programs that every Windows has in its folder of drivers; their security is that of all. */
const neighbours = ['storport.sys', 'disk.sys', 'partmgr.sys'] as const;
const maxNeighbours = 16;
/** A larger one would not fit the new record. */
const maxDescriptorBytes = 512;
const atHome = 'install the driver in the guest on its old hardware';

/**
 * The patches that put the files where they belong.
 * @param find the record of what has a path
 * @throws UnsupportedError where the volume cannot take them, with the reason; FormatError where it is broken
 */
export function addFiles(
  disk: Disk,
  geometry: Geometry,
  state: VolumeState,
  files: readonly NewFile[],
  find: (path: string) => number | undefined,
): AddedFiles {
  const writer = new NtfsWriter(disk, geometry);
  const changes = files.flatMap((file) => {
    const cut = file.path.lastIndexOf('/');
    const name = file.path.slice(cut + 1);
    const folder = find(file.path.slice(0, cut));
    if (folder === undefined || (writer.records.record(folder).flags & recordFlags.folder) === 0)
      throw new UsageError(`${file.path}: the guest has no such folder`);
    const there = writer.folders.find(folder, name);
    if (there !== undefined && holds(writer, there, file.contents)) return [];
    refuseUnclean(state);
    return there === undefined ? add(writer, file, folder, name) : overwrite(writer, file, folder, name, there);
  });
  return { patches: writer.patches(), changes };
}

function refuseUnclean({ dirty, journalOpen, version }: VolumeState): void {
  const how = 'start the guest once on its old hardware and shut it down fully (shutdown /s /t 0)';
  if (dirty) throw new UnsupportedError(`NTFS: the volume is marked dirty, and no file is added to it; ${how}`);
  if (journalOpen)
    throw new UnsupportedError(
      `NTFS: the journal ($LogFile) ends without a clean dismount and may write over a file that is added; ${how}`,
    );
  if (!version.startsWith('3.')) throw new UnsupportedError(`NTFS: version ${version}; files are added to 3.0 and 3.1`);
}

function holds(writer: NtfsWriter, number: number, contents: Uint8Array): boolean {
  const data = writer.records.attribute(number, attributeTypes.data, '');
  if (data?.flags !== 0 || data.sizeBytes !== contents.length) return false;
  const old = Buffer.alloc(data.sizeBytes);
  writer.readAttribute(data, old, 0);
  return old.equals(contents);
}

function add(writer: NtfsWriter, file: NewFile, folder: number, name: string): Change[] {
  const { path, contents, modified, source, why } = file;
  if (!shortName.test(name)) throw new UsageError(`${path}: only names of 8 and 3 letters are added`);
  const { security, near } = neighbourIn(writer, folder);
  const free = takeRecord(writer);
  const about = { name, folder: referenceTo(folder, writer.records.record(folder).sequence), modified, security };
  const { sizes, where } = placeData(writer, free, about, contents, near);
  const index = new FolderIndex(writer, folder);
  const changed = index.insert(name, fileNameKey(about, sizes), referenceTo(free.number, free.sequence));
  const record = `file record ${free.number}`;
  return [
    { what: 'add a driver', where: path, old: 'absent', new: `${contents.length} bytes of ${source}`, why },
    { what: 'take a file record', where: `NTFS $MFT: ${record}`, old: 'free', new: name, why: `for ${name}` },
    ...(where === undefined
      ? []
      : [{ what: 'take clusters', where: 'NTFS $Bitmap', old: 'free', new: where, why: `for the data of ${name}` }]),
    {
      what: 'enter a name in its folder',
      where: `${path.slice(0, -name.length)}: ${changed}`,
      old: 'absent',
      new: `${name} (${record})`,
      why: 'Windows finds the file by it',
    },
  ];
}

/** Writes the record, with the data in it or in clusters. */
function placeData(
  writer: NtfsWriter,
  free: FreeRecord,
  about: NewRecord,
  contents: Uint8Array,
  near: number,
): { sizes: Sizes; where: string | undefined } {
  const resident = residentRecord(free, about, contents);
  if (resident !== undefined) {
    writer.putRecord(free.number, resident.encode());
    return { sizes: residentSizes(contents), where: undefined };
  }
  const { clusterBytes } = writer.geometry;
  const count = Math.ceil(contents.length / clusterBytes);
  const taken = takeClusters(writer, count, near);
  const runs = appendClusters(
    [],
    taken.map((run) => ({ cluster: run.first, count: run.count })),
  );
  const sizes = { allocatedBytes: count * clusterBytes, sizeBytes: contents.length };
  writer.putRecord(free.number, recordOfRuns(free, about, runs, sizes).encode());
  const padded = new Uint8Array(sizes.allocatedBytes);
  padded.set(contents);
  writer.writeRuns({ runs, initializedBytes: padded.length }, padded, 0);
  return { sizes, where: taken.map(({ first, count: length }) => `${first} to ${first + length - 1}`).join(', ') };
}

/** Replaces the contents of a file where it lies. */
function overwrite(writer: NtfsWriter, file: NewFile, folder: number, name: string, number: number): Change[] {
  const { path, contents, source, why } = file;
  const record = writer.records.record(number);
  const cannot = (reason: string): UnsupportedError =>
    new UnsupportedError(`${path}: is there with other contents and ${reason}; ${atHome}`);
  if ((record.flags & recordFlags.folder) !== 0) throw new UsageError(`${path}: is a folder of the guest`);
  const data = writer.need(number, attributeTypes.data, '');
  const names = record.attributes.filter(
    ({ type, value }) =>
      type === attributeTypes.fileName && value !== undefined && fileName.parse(value).namespace !== dosNamespace,
  );
  if (names.length !== 1) throw cannot('has other names elsewhere');
  if (data.flags !== 0 || record.attributes.some(({ type }) => type === attributeTypes.reparsePoint))
    throw cannot('is compressed, sparse, encrypted or a link');
  const room = data.value === undefined ? data.allocatedBytes : 0;
  if (room < contents.length) throw cannot(`has room for ${room} bytes where ${contents.length} are needed`);
  const sizes = { allocatedBytes: room, sizeBytes: contents.length };
  const edited = writer.edit(number);
  edited.setRuns(attributeTypes.data, '', data.runs, { ...sizes, initializedBytes: contents.length });
  writer.putRecord(number, edited.encode());
  const padded = new Uint8Array(Math.max(contents.length, Math.min(data.sizeBytes, room)));
  padded.set(contents);
  writer.writeRuns({ runs: data.runs, initializedBytes: room }, padded, 0);
  new FolderIndex(writer, folder).resize(name, sizes);
  const now = `${contents.length} bytes of ${source}, where it lies`;
  return [{ what: 'replace a driver', where: path, old: `${data.sizeBytes} bytes`, new: now, why }];
}

/** What a new file in the folder takes after: the security of a program there, and where to look for clusters. */
function neighbourIn(writer: NtfsWriter, folder: number): { security: Security; near: number } {
  for (const name of programsIn(writer, folder)) {
    const number = writer.folders.find(folder, name);
    const security = number === undefined ? undefined : securityOf(writer, number);
    if (number === undefined || security === undefined) continue;
    const last = writer.records.attribute(number, attributeTypes.data, '')?.runs.at(-1);
    return { security, near: last?.cluster === undefined ? 0 : last.cluster + last.count };
  }
  const own = securityOf(writer, folder);
  if (own === undefined)
    throw new UnsupportedError(
      `NTFS file record ${folder}: neither the folder nor a program in it has a security descriptor for a new file; ${atHome}`,
    );
  return { security: own, near: 0 };
}

/** Those that are known by name first: then the folder is not listed. */
function* programsIn(writer: NtfsWriter, folder: number): Generator<string> {
  yield* neighbours;
  const others = writer.folders.entries(folder).flatMap(({ name }) => (/\.sys$/i.test(name) ? [name] : []));
  yield* others.slice(0, maxNeighbours);
}

/** Undefined where it has none that could be taken over. */
function securityOf(writer: NtfsWriter, number: number): Security | undefined {
  const information = writer.records.attribute(number, attributeTypes.standardInformation, '')?.value;
  const isLong = information !== undefined && information.length >= standardInformation.sizeBytes;
  const id = isLong ? standardInformation.parse(information).security : 0;
  if (id !== 0) return { id, descriptor: undefined };
  const own = writer.records.attribute(number, attributeTypes.securityDescriptor, '');
  if (own === undefined || own.sizeBytes > maxDescriptorBytes) return undefined;
  const descriptor = new Uint8Array(own.sizeBytes);
  writer.readAttribute(own, descriptor, 0);
  return { id: 0, descriptor };
}
