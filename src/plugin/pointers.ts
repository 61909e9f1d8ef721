/**
 * The plugin files that point to the images of a folder: these are restore points that someone may boot from. They are looked for in the folder
 * and below it, in the one above, in the folders that a mount of this host may read them from, and where the folder itself knows them
 * (pointer-registry.ts).
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { isShortage, VeneerError } from '../base/errors.ts';
import { foldersFrom } from '../base/folder-tree.ts';
import type { Guid } from '../bytes/guid.ts';
import { imagesOf, maxPluginFileBytes, parsePluginFile, recordSuffix } from './plugin-file.ts';
import { registeredPointers } from './pointer-registry.ts';
import { ownContentIn } from '../source/own-content.ts';

export interface PointerSearch {
  /** Further folders to look into, with all below them. */
  readonly also: readonly string[];
  /** Whether a folder is not entered, by its path. */
  readonly isSkipped: (folder: string) => boolean;
}

/**
 * Plugin files by the identity of the image that they point to: names from the folder, or whole paths where they lie elsewhere. Damaged ones
 * point to nothing.
 * @param folder with no symbolic link in it
 */
export function pluginPointers(
  folder: string,
  { also, isSkipped }: PointerSearch = { also: [], isSkipped: () => false },
): Map<Guid, string[]> {
  const pointers = new Map<Guid, Set<string>>();
  const add = (file: string, imageId: Guid): void => {
    const name = file.startsWith(`${folder}/`) ? path.relative(folder, file) : file;
    pointers.set(imageId, (pointers.get(imageId) ?? new Set()).add(name));
  };
  const registered = registeredPointers(folder, (plugin, images) =>
    imageIdsOf(plugin).some((imageId) => images.includes(imageId)),
  );
  const folders = new Set<string>([path.dirname(folder), ...registered.map(({ plugin }) => path.dirname(plugin))]);
  for (const tree of [folder, ...also])
    for (const one of fs.existsSync(tree) ? foldersFrom(tree, isSkipped) : []) folders.add(one);
  for (const one of folders)
    for (const file of filesIn(one)) for (const imageId of imageIdsOf(file)) add(file, imageId);
  for (const { plugin, images } of registered.filter((line) => !fs.existsSync(line.plugin)))
    for (const imageId of images)
      add(`${plugin} (which is away; if it is gone for good, take it out of .veneer-pointers)`, imageId);
  return new Map([...pointers].map(([imageId, names]) => [imageId, [...names].sort()]));
}

/** Why an image must stay: a plugin file points to it. */
export function whyPointedTo(pointers: ReadonlyMap<Guid, readonly string[]>, imageId: Guid): string | undefined {
  const names = pointers.get(imageId);
  return names === undefined ? undefined : `${names.join(', ')} points to it`;
}

function filesIn(folder: string): string[] {
  try {
    return fs
      .readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.name.endsWith(recordSuffix))
      .map((entry) => path.join(folder, entry.name));
  } catch {
    return [];
  }
}

function imageIdsOf(file: string): Guid[] {
  try {
    const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants;
    const fd = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const stat = fs.fstatSync(fd);
      if (!stat.isFile() || stat.size > maxPluginFileBytes || ownContentIn(fd) !== 'plugin file') return [];
      const contents = new Uint8Array(stat.size);
      fs.readSync(fd, contents, 0, contents.length, 0);
      return imagesOf(parsePluginFile(contents, file)).map(({ imageId }) => imageId);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    if (!isShortage(error) && (error instanceof VeneerError || (error instanceof Error && 'syscall' in error)))
      return [];
    throw error;
  }
}
