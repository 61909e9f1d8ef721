/**
 * Which images of a folder others there are made on: what an image says of itself, and not its name or its time.
 *
 * Asked for only where images are presented, and a name could be one's. Kept until the folder changes; of an image that did not change, longer.
 */
import * as fs from '../base/fs.ts';
import { LRUCache } from 'lru-cache';
import { closing } from '../base/ownership.ts';
import { isImageFile } from '../backup/read/folder-images.ts';
import { Image } from '../backup/read/image.ts';
import type { Guid } from '../bytes/guid.ts';
import type { Place } from './place.ts';

interface Descent {
  readonly imageId: Guid | undefined;
  readonly parentId: Guid | undefined;
}

interface FolderLineage {
  readonly changed: string;
  readonly parents: ReadonlySet<Guid>;
}

const maxFolders = 256;
const maxImages = 16_384;
/** Of what is no image, or cannot be opened: made on nothing, and nothing on it. */
const none: Descent = { imageId: undefined, parentId: undefined };

export class ImageLineage {
  readonly #folders = new LRUCache<string, FolderLineage>({ max: maxFolders });
  readonly #descents = new LRUCache<string, Descent>({ max: maxImages });

  /** Whether no image of the folder is made on this one. */
  isNewest(folder: Place, name: string): boolean {
    const { imageId } = this.#descentOf(`${folder.at}/${name}`);
    return imageId === undefined || !this.#parentsIn(folder).has(imageId);
  }

  #parentsIn(folder: Place): ReadonlySet<Guid> {
    // By its descriptor, where it is held by one.
    const stat = fs.statSync(folder.at, { bigint: true });
    const key = `${stat.dev}:${stat.ino}`;
    const changed = `${stat.mtimeNs}:${stat.ctimeNs}`;
    const known = this.#folders.get(key);
    if (known?.changed === changed) return known.parents;
    const parents = new Set<Guid>();
    for (const name of stat.nlink === 0n ? [] : fs.readdirSync(folder.at)) {
      const { parentId } = this.#descentOf(`${folder.at}/${name}`);
      if (parentId !== undefined) parents.add(parentId);
    }
    this.#folders.set(key, { changed, parents });
    return parents;
  }

  #descentOf(file: string): Descent {
    try {
      const stat = fs.lstatSync(file, { bigint: true, throwIfNoEntry: false });
      if (stat?.isFile() !== true) return none;
      const key = `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}`;
      let descent = this.#descents.get(key);
      if (descent === undefined) {
        if (!isImageFile(file)) return none;
        descent = readDescent(file);
        this.#descents.set(key, descent);
      }
      return descent;
    } catch {
      return none;
    }
  }
}

function readDescent(imagePath: string): Descent {
  using image = closing(Image.open(imagePath));
  const { imageId, parent } = image.value.description;
  return { imageId, parentId: parent?.imageId };
}
