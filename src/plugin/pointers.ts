/** The plugin files of a folder, and the images that they point to: these are restore points that someone may boot from. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { VeneerError } from '../base/errors.ts';
import type { Guid } from '../bytes/guid.ts';
import { imagesOf, maxPluginFileBytes, readPluginFile } from './plugin-file.ts';

/** Names of plugin files by the identity of the image that they point to. Damaged ones point to nothing. */
export function pluginPointers(folder: string): Map<Guid, string[]> {
  const pointers = new Map<Guid, string[]>();
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isFile()) continue;
    for (const imageId of imageIdsOf(path.join(folder, entry.name)))
      pointers.set(imageId, [...(pointers.get(imageId) ?? []), entry.name]);
  }
  return pointers;
}

/** Why an image must stay: a plugin file points to it. */
export function whyPointedTo(pointers: ReadonlyMap<Guid, readonly string[]>, imageId: Guid): string | undefined {
  const names = pointers.get(imageId);
  return names === undefined ? undefined : `${names.join(', ')} points to it`;
}

function imageIdsOf(file: string): Guid[] {
  try {
    if (fs.statSync(file).size > maxPluginFileBytes) return [];
    return imagesOf(readPluginFile(file)).map(({ imageId }) => imageId);
  } catch (error) {
    if (error instanceof VeneerError || (error instanceof Error && 'syscall' in error)) return [];
    throw error;
  }
}
