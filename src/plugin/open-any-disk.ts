/** The disk of whatever file a person names: an image with its parents, a plugin file, or a native disk file. */
import path from 'node:path';
import { UnavailableError, UsageError } from '../base/errors.ts';
import * as fs from '../base/fs.ts';
import { absolutePath } from '../base/given-names.ts';
import { MiB } from '../base/units.ts';
import { BlockCache } from '../backup/read/block-cache.ts';
import { openChainDisk } from '../backup/read/chain.ts';
import type { KeyRing } from '../backup/crypto/key-ring.ts';
import type { Disk } from '../disk/disk.ts';
import { openSource } from '../source/open-source.ts';
import { ownContentAt } from '../source/own-content.ts';
import { hasReplacement } from './beside.ts';
import { OpenPlugin } from './open-plugin.ts';
import { readPluginFile } from './plugin-file.ts';

export interface AnyDiskOptions {
  readonly keys: KeyRing;
  /** Besides their own folder, plugin files may point into these. */
  readonly allowPaths: readonly string[];
  /** What a native disk file is read as. Default: what its name and its content say. */
  readonly sourceFormat?: string;
}

const cacheBytes = 64 * MiB;

/**
 * @throws ForbiddenError for an encrypted chain without its key; UsageError for a plugin file whose disk a guest has written to; what opening the
 *   file throws
 */
export function openAnyDisk(file: string, { keys, allowPaths, sourceFormat }: AnyDiskOptions): Disk {
  requireFile(file);
  const content = sourceFormat === undefined ? ownContentAt(file) : undefined;
  const cache = BlockCache.ofOneThread(cacheBytes);
  if (content === 'plugin file') return openPluginDisk(file, keys, allowPaths, cache);
  if (content !== 'image') return openSource(file, sourceFormat);
  const disk = openChainDisk(file, cache, undefined, keys);
  try {
    disk.requireKey();
    return disk;
  } catch (error) {
    disk.close();
    throw error;
  }
}

function requireFile(file: string): void {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  const wanted = 'name an image, a plugin file or a disk file';
  if (stat === undefined) throw new UnavailableError(`${file}: is not there; ${wanted}`);
  if (stat.isDirectory()) throw new UsageError(`${file}: is a folder; ${wanted} in it`);
  if (!stat.isFile() && !stat.isBlockDevice()) throw new UsageError(`${file}: is no file; ${wanted}`);
}

function openPluginDisk(file: string, keys: KeyRing, allowPaths: readonly string[], cache: BlockCache): Disk {
  const folders = [path.dirname(absolutePath(file)), ...allowPaths];
  const plugin = new OpenPlugin(readPluginFile(file), file, { allowed: { folders }, keys, cache });
  if (plugin.nativePaths.some(hasReplacement))
    throw new UsageError(
      `${file}: what a guest wrote to its disk is kept beside it; mount its folder, and name the disk under the mount`,
    );
  return plugin.openDisk();
}
