/**
 * What a guest has changed of its disk since the restore point that a plugin file stands for, in bytes of the disk: the maps of its native
 * files tell which units were written, and the native file's own tables tell what lies there now.
 *
 * A range of the disk counts as changed when its place in the file was written, or is another than it was made with, or is gone.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { UsageError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { closing } from '../base/ownership.ts';
import { mergeRanges, type ByteRange } from '../backup/changed-ranges.ts';
import type { NativeFile } from '../native/format.ts';
import { synthesizeFiles, wholeLayouts } from '../native/formats.ts';
import type { DiskRun } from '../native/mapped-disk.ts';
import { parsePluginFile, type PluginFile } from '../plugin/plugin-file.ts';
import { unitBytes } from '../replacement/layout.ts';
import { readWrittenUnits, type IsWritten } from '../replacement/written-units.ts';
import { openSource } from '../source/open-source.ts';
import { listRecords } from './mount-record.ts';

/** A native file under a mount, and what was written to it. */
export interface WrittenSource {
  readonly plugin: PluginFile;
  readonly changed: ByteRange[];
}

/**
 * What was written to the native file at `sourcePath`, when it is one that a mount of this user shows.
 * @returns undefined for any other file
 * @throws FormatError, UnavailableError
 */
export function writtenSource(sourcePath: string): WrittenSource | undefined {
  const shown = absolutePath(sourcePath);
  const mount = listRecords().find(({ mountpoint }) => shown.startsWith(`${mountpoint}/`));
  if (mount === undefined) return undefined;
  const pluginPath = path.join(mount.folder, path.relative(mount.mountpoint, shown));
  const plugin = pluginAt(pluginPath);
  if (plugin === undefined) return undefined;
  const files = synthesizeFiles(plugin.native, path.basename(pluginPath));
  const written = files.map((file) =>
    readWrittenUnits({
      path: path.join(path.dirname(pluginPath), file.name),
      pluginId: plugin.id,
      baseBytes: file.map.sizeBytes,
      isSealed: plugin.replacement === 'sealed',
    }),
  );
  return { plugin, changed: mergeRanges(changedRanges(shown, plugin, files, written)) };
}

function pluginAt(pluginPath: string): PluginFile | undefined {
  try {
    return parsePluginFile(fs.readFileSync(pluginPath), pluginPath);
  } catch {
    return undefined;
  }
}

function changedRanges(
  shown: string,
  plugin: PluginFile,
  files: readonly NativeFile[],
  written: readonly (IsWritten | undefined)[],
): ByteRange[] {
  if (written.every((isWritten) => isWritten === undefined)) return [];
  using disk = closing(openSource(shown, plugin.native.format));
  if (disk.value.sizeBytes < plugin.disk.sizeBytes)
    throw new UsageError(`${shown}: the disk has shrunk; make a full image of it`);
  const { runs } = disk.value as { runs?: (offset: number, lengthBytes: number) => Iterable<DiskRun> };
  const isIdentity = plugin.native.layout === wholeLayouts[plugin.native.format] && runs === undefined;
  if (isIdentity) return files.flatMap((file, index) => writtenInPlace(file, written[index]));
  if (runs === undefined || files.length !== 1) return [{ offset: 0, length: disk.value.sizeBytes }];
  return changedRuns(files[0], written[0], runs(0, disk.value.sizeBytes));
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
function changedRuns(
  file: NativeFile | undefined,
  isWritten: IsWritten | undefined,
  runs: Iterable<DiskRun>,
): ByteRange[] {
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
        if (isWritten !== undefined) ranges.push(...writtenPieces(fileOffset, at, length, isWritten));
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
