/**
 * From a plugin file to the disk it points to, and no further: a plugin file comes from whoever can write to the folder, so its pointer
 * is followed only inside the folder tree that is mounted, and into paths that the mount allows.
 */
import fs from 'node:fs';
import path from 'node:path';
import { FormatError, ForbiddenError, UnavailableError } from '../base/errors.ts';
import type { Blocks } from '../backup/block-cache.ts';
import { openChainDisk, type ChainDisk } from '../backup/chain.ts';
import type { PluginFile } from './plugin-file.ts';

/** Where pointers may lead. All absolute; the first is the mounted folder. */
export interface AllowedPaths {
  readonly folders: readonly string[];
}

/**
 * The path that the pointer names, judged by its text alone: the image need not be there.
 * @throws ForbiddenError when it leads outside
 */
export function imagePathOf(plugin: PluginFile, pluginPath: string, allowed: AllowedPaths): string {
  const target = path.resolve(path.dirname(pluginPath), plugin.image.path);
  requireInside(target, [...allowed.folders, ...realFolders(allowed)], pluginPath, plugin.image.path);
  return target;
}

/**
 * Opens the disk. Every image of the chain is judged before anything of it is read, by where symbolic links lead.
 * @throws ForbiddenError, UnavailableError, FormatError when the image is another than the plugin file was made for
 */
export function openPluginDisk(
  plugin: PluginFile,
  pluginPath: string,
  allowed: AllowedPaths,
  cache: Blocks,
): ChainDisk {
  const imagePath = imagePathOf(plugin, pluginPath, allowed);
  const folders = realFolders(allowed);
  const judge = (image: string): void =>
    requireInside(realPath(image, pluginPath), folders, pluginPath, path.relative(path.dirname(pluginPath), image));
  const disk = openChainDisk(imagePath, cache, judge);
  try {
    const found = disk.images[0]?.description;
    if (found?.imageId !== plugin.image.imageId || disk.sizeBytes !== plugin.disk.sizeBytes) {
      throw new FormatError(
        pluginPath,
        'image',
        0,
        `${imagePath} is another image than the plugin file was made for; make it again`,
      );
    }
    return disk;
  } catch (error) {
    disk.close();
    throw error;
  }
}

function requireInside(target: string, folders: readonly string[], pluginPath: string, pointer: string): void {
  if (folders.some((folder) => target === folder || target.startsWith(folder.endsWith('/') ? folder : `${folder}/`)))
    return;
  throw new ForbiddenError(
    `${pluginPath}: points to ${JSON.stringify(pointer)}, outside the mounted folder; mount with --allow-path ${path.dirname(target)} if that is meant`,
  );
}

/** Without links. A folder that is away for the moment allows nothing, and costs the others nothing. */
function realFolders(allowed: AllowedPaths): string[] {
  return allowed.folders.flatMap((folder) => {
    try {
      return [fs.realpathSync(folder)];
    } catch {
      return [];
    }
  });
}

function realPath(target: string, pluginPath: string): string {
  try {
    return fs.realpathSync(target);
  } catch (error) {
    throw new UnavailableError(`${pluginPath}: ${target} is not there`, { cause: error, retryable: true });
  }
}
