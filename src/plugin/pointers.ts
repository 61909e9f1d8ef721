/**
 * The plugin files that point to the images and disk files of a folder: these are restore points that someone may boot from. They are looked for in the folder
 * and below it, in the one above, in the folders that a mount of this host may read them from, and where the folder itself knows them
 * (pointer-registry.ts).
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { isShortage, VeneerError } from '../base/errors.ts';
import { foldersFrom } from '../base/folder-tree.ts';
import { absolutePath } from '../base/given-names.ts';
import { isSameFile } from '../base/same-file.ts';
import type { Guid } from '../bytes/guid.ts';
import { maxPluginFileBytes, parsePluginFile, pointersOf, recordSuffix, type SourcePointer } from './plugin-file.ts';
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
  for (const { name, id } of pointersAround(folder, { also, isSkipped }))
    pointers.set(id, (pointers.get(id) ?? new Set()).add(name));
  return new Map([...pointers].map(([id, names]) => [id, [...names].sort()]));
}

/**
 * Plugin files that show a disk file as another, named as by `pluginPointers`.
 * @param file in a folder with no symbolic link in it
 */
export function pluginsOver(file: string, search: PointerSearch): string[] {
  const names = new Set<string>();
  for (const { name, plugin, kind, path: named } of pointersAround(path.dirname(file), search))
    if (kind === 'file' && isSameFile(absolutePath(path.dirname(plugin), named), file)) names.add(name);
  return [...names].sort();
}

interface FoundPointer extends SourcePointer {
  readonly plugin: string;
  /** For people. */
  readonly name: string;
}

function* pointersAround(folder: string, { also, isSkipped }: PointerSearch): Generator<FoundPointer> {
  const registered = registeredPointers(folder, (plugin, ids) => pointersIn(plugin).some(({ id }) => ids.includes(id)));
  const folders = new Set<string>([path.dirname(folder), ...registered.map(({ plugin }) => path.dirname(plugin))]);
  for (const tree of [folder, ...also])
    for (const one of fs.existsSync(tree) ? foldersFrom(tree, isSkipped) : []) folders.add(one);
  for (const one of folders) {
    for (const plugin of filesIn(one)) {
      const name = plugin.startsWith(`${folder}/`) ? path.relative(folder, plugin) : plugin;
      for (const pointer of pointersIn(plugin)) yield { ...pointer, plugin, name };
    }
  }
  for (const { plugin, images } of registered.filter((line) => !fs.existsSync(line.plugin))) {
    const name = `${plugin} (which is away; if it is gone for good, take it out of .veneer-pointers)`;
    for (const id of images) yield { kind: 'chain', path: '', id, plugin, name };
  }
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

function pointersIn(file: string): readonly SourcePointer[] {
  try {
    const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants;
    const fd = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const stat = fs.fstatSync(fd);
      if (!stat.isFile() || stat.size > maxPluginFileBytes || ownContentIn(fd) !== 'plugin file') return [];
      const contents = new Uint8Array(stat.size);
      fs.readSync(fd, contents, 0, contents.length, 0);
      return pointersOf(parsePluginFile(contents, file));
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    if (!isShortage(error) && (error instanceof VeneerError || (error instanceof Error && 'syscall' in error)))
      return [];
    throw error;
  }
}
