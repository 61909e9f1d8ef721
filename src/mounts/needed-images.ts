/** Which images and disk files of a folder somebody needs, as plugin files of this host say it: what takes images away asks here first. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import type { Guid } from '../bytes/guid.ts';
import { pluginPointers, pluginsOver, whyPointedTo, type PointerSearch } from '../plugin/pointers.ts';
import { behindMount, foldersServedFrom } from './behind-mount.ts';
import { veneerMountpoints } from './mountpoint.ts';

/** Looks for the plugin files when it is asked first, and when it is told to look again. */
export class NeededImages {
  readonly #folder: string;
  #pointers: ReadonlyMap<Guid, readonly string[]> | undefined;

  /** @param folder of images */
  constructor(folder: string) {
    this.#folder = folder;
  }

  lookAgain(): void {
    this.#pointers = undefined;
  }

  /** Why an image must stay; undefined where nobody is known to need it. */
  why(imageId: Guid): string | undefined {
    this.#pointers ??= this.#look();
    return whyPointedTo(this.#pointers, imageId);
  }

  #look(): ReadonlyMap<Guid, readonly string[]> {
    const folder = fs.realpathSync(behindMount(this.#folder));
    return pluginPointers(folder, searchFrom(folder));
  }
}

/** Plugin files that show a disk file as another disk. @param file absolute, in a folder with no symbolic link in it */
export function pluginFilesOver(file: string): readonly string[] {
  return pluginsOver(file, searchFrom(path.dirname(file)));
}

function searchFrom(folder: string): PointerSearch {
  const mountpoints = veneerMountpoints();
  return { also: foldersServedFrom(folder), isSkipped: (one) => mountpoints.has(one) };
}
