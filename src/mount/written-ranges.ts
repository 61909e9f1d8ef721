/**
 * What a native file under a mount may hold that the image behind its plugin file does not, in bytes of the disk: the maps of its native files
 * tell which units may be other than they were made, the native file's own tables where the disk's bytes lie by now.
 *
 * A range of the disk counts as changed when its place in the file may have been written, or is another than it was made with, or is gone;
 * when a patch set changes it; and behind the end of the image's disk, where anything is. Contents are never taken from here: what counts as
 * changed is read through the mount, so that too much costs time, and too little would cost bytes.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { closing } from '../base/ownership.ts';
import { KeyRing } from '../backup/crypto/key-ring.ts';
import { mergeRanges, type ByteRange } from '../disk/byte-ranges.ts';
import type { Disk } from '../disk/disk.ts';
import type { NativeFile } from '../native/format.ts';
import { formatOf, synthesizeFiles } from '../native/formats.ts';
import type { DiskRun } from '../native/mapped-disk.ts';
import { describesSameExtents } from '../native/vmdk/descriptor.ts';
import { OpenPlugin } from '../plugin/open-plugin.ts';
import { parsePluginFile, type PluginFile } from '../plugin/plugin-file.ts';
import { unitBytes } from '../replacement/layout.ts';
import { readWrittenUnits, type IsWritten } from '../replacement/written-units.ts';
import { openSource } from '../source/open-source.ts';
import { listRecords } from '../mounts/mount-record.ts';
import { isMountpoint } from '../mounts/mountpoint.ts';
import { discardedPathOf } from '../plugin/beside.ts';

/** A native file under a mount, and what was written to it. */
export interface WrittenSource {
  /** Its path under the mount, without links. */
  readonly shown: string;
  readonly plugin: PluginFile;
  readonly pluginPath: string;
  /** The folder behind the mount. */
  readonly folder: string;
  /** Of the disk, as the mount shows it now. */
  readonly sizeBytes: number;
  /** What may differ from the plugin file's image, and zeros behind its end. Undefined: all of it. */
  readonly changed: ByteRange[] | undefined;
}

/**
 * What was written to the native file at `sourcePath`, when it is one that a mount of this user shows.
 * @param keys for a sealed patch set
 * @returns undefined for any other file
 * @throws FormatError, UnavailableError when it cannot be read as a disk now
 */
export function writtenSource(sourcePath: string, keys = new KeyRing()): WrittenSource | undefined {
  const found = findPlugin(sourcePath);
  if (found === undefined) return undefined;
  using disk = closing(openSource(found.shown, found.plugin.native.format));
  const { sizeBytes } = disk.value;
  const changed = changedRanges(found, disk.value);
  const patched = patchedRanges(found, keys);
  if (changed === undefined || patched === undefined) return { ...found, sizeBytes, changed: undefined };
  return { ...found, sizeBytes, changed: mergeRanges([...changed, ...patched]) };
}

interface FoundPlugin {
  readonly shown: string;
  readonly plugin: PluginFile;
  readonly pluginPath: string;
  readonly folder: string;
}

function findPlugin(sourcePath: string): FoundPlugin | undefined {
  // The writes to a file are kept under its own name, not under that of a link to it.
  const shown = realPath(sourcePath);
  if (shown === undefined) return undefined;
  const mounts = listRecords().filter(({ mountpoint }) => shown.startsWith(`${mountpoint}/`));
  const [mount] = mounts.sort((a, b) => b.mountpoint.length - a.mountpoint.length);
  // Another file system may be mounted on a folder in it, or the mount be gone.
  if (mount === undefined || !isMountpoint(mount.mountpoint)) return undefined;
  if (fs.statSync(shown).dev !== fs.statSync(mount.mountpoint).dev) return undefined;
  const pluginPath = path.join(mount.folder, path.relative(mount.mountpoint, shown));
  const plugin = pluginAt(pluginPath);
  return plugin === undefined ? undefined : { shown, plugin, pluginPath, folder: mount.folder };
}

function realPath(sourcePath: string): string | undefined {
  try {
    return fs.realpathSync(sourcePath);
  } catch {
    return undefined;
  }
}

function pluginAt(pluginPath: string): PluginFile | undefined {
  try {
    return parsePluginFile(fs.readFileSync(pluginPath), pluginPath);
  } catch {
    return undefined;
  }
}

/** Undefined where all may have changed. */
function changedRanges(found: FoundPlugin, disk: Disk): ByteRange[] | undefined {
  const { plugin, shown, pluginPath } = found;
  const files = synthesizeFiles(plugin.native, path.basename(pluginPath));
  const written = files.map((file) => writtenUnits(found, file));
  const grown = dataBehind(disk, plugin.disk.sizeBytes);
  if (written.every((isWritten) => isWritten === undefined)) return grown;
  const { runs, replayed } = disk as Disk & {
    runs?: (offset: number, lengthBytes: number) => Iterable<DiskRun>;
    /** Of a VHDX with a log: what reads otherwise than the file has it. */
    replayed?: readonly ByteRange[];
  };
  if (runs !== undefined && files.length === 1)
    return [...grown, ...changedRuns(files[0], withReplayed(written[0], replayed), runs(0, disk.sizeBytes))];
  const isInPlace = runs === undefined && plugin.native.layout === formatOf(plugin.native.format).wholeLayout;
  if (!isInPlace || !isDescribedAsMade(shown, files)) return undefined;
  return [...grown, ...files.flatMap((file, index) => writtenInPlace(file, written[index]))];
}

/** By every map that may be in force: which one is, depends on how it is mounted. */
function writtenUnits({ plugin, pluginPath }: FoundPlugin, file: NativeFile): IsWritten | undefined {
  const filePath = path.join(path.dirname(pluginPath), file.name);
  const maps = [filePath, discardedPathOf(filePath)].flatMap((place) => {
    const isSealed = plugin.replacement === 'sealed';
    return readWrittenUnits({ path: place, pluginId: plugin.id, baseBytes: file.map.sizeBytes, isSealed }) ?? [];
  });
  if (maps.length === 0) return undefined;
  return (offset, lengthBytes) => maps.some((isWritten) => isWritten(offset, lengthBytes));
}

function withReplayed(isWritten: IsWritten | undefined, replayed: readonly ByteRange[] = []): IsWritten {
  return (offset, lengthBytes) =>
    isWritten?.(offset, lengthBytes) === true ||
    replayed.some((range) => range.offset < offset + lengthBytes && offset < range.offset + range.length);
}

/** Of a flat VMDK, whose text says where the disk lies; a hypervisor changes other lines of it. */
function isDescribedAsMade(shown: string, files: readonly NativeFile[]): boolean {
  const [described] = files;
  if (described === undefined || files.length === 1) return files.length === 1;
  const made = Buffer.alloc(described.map.sizeBytes);
  described.map.read(made, 0, () => {
    throw new Error('a descriptor holds nothing of the disk');
  });
  return describesSameExtents(made.toString(), fs.readFileSync(shown).toString());
}

/** What the disk holds from `from` on, as far as its tables tell. */
function dataBehind(disk: Disk, from: number): ByteRange[] {
  if (from >= disk.sizeBytes) return [];
  const extents = [...disk.extents(from, disk.sizeBytes - from)];
  return extents.filter(({ kind }) => kind === 'data').map(({ offset, length }) => ({ offset, length }));
}

/** What reads otherwise than in the image because of the patch set in force. Undefined where it cannot be read here: its key may be missing. */
function patchedRanges({ plugin, pluginPath, folder }: FoundPlugin, keys: KeyRing): ByteRange[] | undefined {
  if (plugin.target === undefined) return [];
  if (plugin.bootable !== undefined) return undefined;
  try {
    const set = new OpenPlugin(plugin, pluginPath, { allowed: { folders: [folder] }, keys }).openPatchSet();
    if (set === undefined) return undefined;
    const ranges = set.patches.map(({ offset, lengthBytes }) => ({ offset, length: lengthBytes }));
    set.file.close();
    return ranges;
  } catch {
    return undefined;
  }
}

/** Of a file in which every byte of the disk keeps its place. */
function writtenInPlace(file: NativeFile, isWritten: IsWritten | undefined): ByteRange[] {
  if (isWritten === undefined) return [];
  const ranges: ByteRange[] = [];
  for (const { fileOffset, diskOffset, lengthBytes } of file.map.diskRanges()) {
    ranges.push(...writtenPieces(fileOffset, diskOffset, lengthBytes, isWritten));
  }
  return ranges;
}

function* writtenPieces(
  fileOffset: number,
  diskOffset: number,
  lengthBytes: number,
  isWritten: IsWritten,
): Generator<ByteRange> {
  for (let at = 0; at < lengthBytes;) {
    const length = Math.min(unitBytes - ((fileOffset + at) % unitBytes), lengthBytes - at);
    if (isWritten(fileOffset + at, length)) yield { offset: diskOffset + at, length };
    at += length;
  }
}

/** @param runs where each part of the disk lies in the file now, in the disk's order */
function changedRuns(file: NativeFile | undefined, isWritten: IsWritten, runs: Iterable<DiskRun>): ByteRange[] {
  const made = [...(file?.map.diskRanges() ?? [])].sort((a, b) => a.diskOffset - b.diskOffset);
  const ranges: ByteRange[] = [];
  let index = 0;
  for (const run of runs) {
    for (let at = run.offset; at < run.offset + run.lengthBytes;) {
      while (index < made.length && endOf(made[index]) <= at) index++;
      const before = made[index];
      const runEnd = run.offset + run.lengthBytes;
      const isInside = before !== undefined && before.diskOffset <= at;
      const end = before === undefined ? runEnd : Math.min(runEnd, isInside ? endOf(before) : before.diskOffset);
      const length = end - at;
      const fileOffset = run.kind === 'stored' ? run.fileOffset + (at - run.offset) : undefined;
      const madeOffset = isInside ? before.fileOffset + (at - before.diskOffset) : undefined;
      if (fileOffset !== undefined && fileOffset === madeOffset) {
        ranges.push(...writtenPieces(fileOffset, at, length, isWritten));
      } else if (run.kind !== 'zero' || madeOffset !== undefined) {
        ranges.push({ offset: at, length });
      }
      at = end;
    }
  }
  return ranges;
}

function endOf(range: { diskOffset: number; lengthBytes: number } | undefined): number {
  return range === undefined ? Number.POSITIVE_INFINITY : range.diskOffset + range.lengthBytes;
}
