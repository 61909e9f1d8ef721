/** Which images of a folder somebody needs, as plugin files of this host say it: what takes images away asks here first. */
import * as fs from '../base/fs.ts';
import type { Guid } from '../bytes/guid.ts';
import { pluginPointers, whyPointedTo } from '../plugin/pointers.ts';
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
    const mountpoints = veneerMountpoints();
    return pluginPointers(folder, { also: foldersServedFrom(folder), isSkipped: (one) => mountpoints.has(one) });
  }
}
