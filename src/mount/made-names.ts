/**
 * Names that only the mount has: further files of a native disk (a VMDK's extent), and images shown as disks with no plugin file.
 *
 * Kept for each folder until the folder changes. A real file of the same name comes first.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { LRUCache } from 'lru-cache';
import { unfinishedSuffix } from '../base/durable.ts';
import { systemErrorCode } from '../base/errors.ts';
import { extensionOf, type FormatName } from '../native/formats.ts';
import type { Classification, Classifier } from './classify.ts';
import { NamedPlace, type Place } from './place.ts';

export interface MadeName {
  readonly name: string;
  readonly place: Place;
}

const maxFolders = 1024;

/** From a made name to the name of the file that it is made from. */
type FileNames = ReadonlyMap<string, string>;

export class MadeNames {
  readonly #classifier: Classifier;
  readonly #present: FormatName | undefined;
  readonly #folders = new LRUCache<string, { changed: string; names: FileNames }>({ max: maxFolders });

  constructor(classifier: Classifier, present: FormatName | undefined) {
    this.#classifier = classifier;
    this.#present = present;
  }

  /** @param folder held by a descriptor: no link leads from it to another */
  find(folder: Place, name: string): Place | undefined {
    const fileName = this.#names(folder).get(name);
    return fileName === undefined ? undefined : placeIn(folder, fileName, name);
  }

  /** @param folder as for `find` */
  *list(folder: Place): Generator<MadeName> {
    for (const [name, fileName] of this.#names(folder)) yield { name, place: placeIn(folder, fileName, name) };
  }

  #names(folder: Place): FileNames {
    const stat = folder.stat();
    // One that was removed has none.
    if (!stat.isDirectory() || stat.nlink === 0n) return new Map();
    const key = `${stat.dev}:${stat.ino}`;
    const changed = `${stat.mtimeNs}:${stat.ctimeNs}`;
    const known = this.#folders.get(key);
    if (known?.changed === changed) return known.names;
    const names = this.#scan(folder);
    this.#folders.set(key, { changed, names });
    return names;
  }

  #scan(folder: Place): FileNames {
    const real = fs.readdirSync(folder.at).sort();
    const taken = new Set(real);
    const names = new Map<string, string>();
    for (const name of real) {
      if (name.endsWith(unfinishedSuffix)) continue;
      const found = this.#kindOf(placeIn(folder, name, ''));
      const made: string[] = [];
      if (found.kind === 'plugin')
        made.push(...found.source.files.map((file) => file.name).filter((part) => part !== name));
      if (found.kind === 'image' && this.#present !== undefined) made.push(presentedName(name, this.#present, taken));
      for (const part of made) {
        if (taken.has(part)) continue;
        taken.add(part);
        names.set(part, name);
      }
    }
    return names;
  }

  /** One file that is gone, or cannot be looked at, has no further names; the others have theirs. */
  #kindOf(place: Place): Classification {
    try {
      return this.#classifier.classify(place, place.stat());
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      return { kind: 'plain' };
    }
  }
}

function placeIn(folder: Place, fileName: string, part: string): Place {
  return new NamedPlace(`${folder.at}/${fileName}`, part, () => path.join(folder.path, fileName));
}

/** `vm.spf` -> `vm.vhdx`; where that is taken (a full image and its increments), the whole name: `vm.spi.vhdx`. */
function presentedName(imageName: string, format: FormatName, taken: ReadonlySet<string>): string {
  const extension = extensionOf(format);
  const short = `${imageName.replace(/\.(spf|spi)$/i, '')}.${extension}`;
  return taken.has(short) ? `${imageName}.${extension}` : short;
}
