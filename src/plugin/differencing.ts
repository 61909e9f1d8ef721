/** Makes real differencing files over the native file that a plugin file stands for. The image is not opened: all is in the plugin file. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { FormatError, UsageError } from '../base/errors.ts';
import { isSameFile } from '../base/same-file.ts';
import { randomGuid } from '../bytes/guid.ts';
import type { Disk } from '../disk/disk.ts';
import { writeDiskOut } from '../disk/write-out.ts';
import { zeroDisk } from '../disk/zero.ts';
import { synthesizeChild } from '../native/differencing.ts';
import { formatNames, formatOf, formatOfName, synthesizeFiles, type FormatName } from '../native/formats.ts';
import { segmentDisk, type SegmentMap } from '../native/segment-map.ts';
import { ownContentAt } from '../source/own-content.ts';
import { readPluginFile, type PluginFile } from './plugin-file.ts';

export interface DifferencingOptions {
  /** Default: by the child's extension. */
  readonly format?: FormatName;
  readonly force?: boolean;
}

export interface MadeChild {
  readonly format: FormatName;
  readonly plugin: PluginFile;
  /** Where the native files of the parent appear, behind the mount. */
  readonly parentPaths: readonly string[];
}

/**
 * Writes an empty differencing file at `childPath`, in the plugin file's own folder: under the mount it stands beside its parent, which it
 * names by a relative path and by the identity that the plugin file gives it.
 * @throws UsageError when the child would lie elsewhere, exists (without `force`) or is an image or a plugin file, or its format cannot
 *   hold changes over the parent's
 * @throws CapacityError when the parent is larger than the child's format holds, or the folder's disk is full
 */
export function createDifferencingFile(
  pluginPath: string,
  childPath: string,
  options: DifferencingOptions = {},
): MadeChild {
  const plugin = readParent(pluginPath);
  const parentName = path.basename(pluginPath);
  const childName = path.basename(childPath);
  const format = options.format ?? formatOfName(childName);
  if (format === undefined) {
    throw new UsageError(
      `${childPath}: its extension names no disk format; use .${formatNames.join(', .')} or --format`,
    );
  }
  if (!isSameFile(path.dirname(pluginPath), path.dirname(childPath))) {
    throw new UsageError(
      `${childPath}: lies in another folder than ${pluginPath}; a child names its parent by its name alone, so put it beside it`,
    );
  }
  const parentFiles = synthesizeFiles(plugin.native, parentName);
  if (parentFiles.some((file) => file.name === childName)) {
    throw new UsageError(`${childPath}: is a part of the disk that ${parentName} stands for; choose another name`);
  }
  assertMayReplace(childPath, options.force === true);
  const map = synthesizeChild(format, { parent: plugin.native, parentName, childName, identity: randomGuid() });
  writeDiskOut(childFile(map, format), childPath, () => undefined);
  const parentPaths = parentFiles.map((file) => path.join(path.dirname(pluginPath), file.name));
  return { format, plugin, parentPaths };
}

/** Under a mount a plugin file reads as the native file, and is none. */
function readParent(pluginPath: string): PluginFile {
  try {
    return readPluginFile(pluginPath);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new UsageError(
      `${pluginPath}: is no sound plugin file; of one under a mount, give its name in the folder behind the mount`,
      { cause: error },
    );
  }
}

function assertMayReplace(childPath: string, force: boolean): void {
  const stat = fs.statSync(childPath, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!force) throw new UsageError(`${childPath}: exists already; choose another name, or replace it with --force`);
  if (!stat.isFile()) throw new UsageError(`${childPath}: is no file; choose another name`);
  const what = ownContentAt(childPath);
  if (what === 'image') throw new UsageError(`${childPath}: is an image, which is never changed; choose another name`);
  if (what === 'plugin file') {
    throw new UsageError(`${childPath}: is a plugin file, which others may need; choose another name`);
  }
}

/** The file's bytes; where holes would be found, zeros count as data and are written. */
function childFile(map: SegmentMap, format: FormatName): Disk {
  const file = segmentDisk(map, zeroDisk(0));
  if (formatOf(format).mayBeSparse) return file;
  return { ...file, extents: (offset, length) => [{ offset, length, kind: 'data' }] };
}
