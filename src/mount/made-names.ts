/**
 * Names that only the mount has: further files of a native disk (a VMDK's extent), and images shown as disks with no plugin file.
 *
 * Kept for each folder until the folder changes. A real file of the same name comes first.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { LRUCache } from 'lru-cache';
import { unfinishedSuffix } from '../base/durable.ts';
import { extensionOf, type FormatName } from '../native/formats.ts';
import type { Classifier } from './classify.ts';
import { NamedPlace, type Place } from './place.ts';

export interface MadeName {
  readonly name: string;
  readonly place: Place;
}

const maxFolders = 1024;

export class MadeNames {
  readonly #classifier: Classifier;
  readonly #present: FormatName | undefined;
  readonly #folders = new LRUCache<string, { changed: string; names: Map<string, Place> }>({ max: maxFolders });

  constructor(classifier: Classifier, present: FormatName | undefined) {
    this.#classifier = classifier;
    this.#present = present;
  }

  find(folder: string, name: string): Place | undefined {
    return this.#names(folder).get(name);
  }

  *list(folder: string): Generator<MadeName> {
    for (const [name, place] of this.#names(folder)) yield { name, place };
  }

  #names(folder: string): Map<string, Place> {
    const stat = fs.statSync(folder, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined || !stat.isDirectory()) return new Map();
    const changed = `${stat.dev}:${stat.ino}:${stat.mtimeNs}:${stat.ctimeNs}`;
    const known = this.#folders.get(folder);
    if (known?.changed === changed) return known.names;
    const names = this.#scan(folder);
    this.#folders.set(folder, { changed, names });
    return names;
  }

  #scan(folder: string): Map<string, Place> {
    const real = fs.readdirSync(folder).sort();
    const taken = new Set(real);
    const names = new Map<string, Place>();
    for (const name of real) {
      const filePath = path.join(folder, name);
      const stat = fs.lstatSync(filePath, { bigint: true, throwIfNoEntry: false });
      if (stat === undefined || !stat.isFile() || name.endsWith(unfinishedSuffix)) continue;
      const found = this.#classifier.classify(new NamedPlace(filePath), stat);
      const made: string[] = [];
      if (found.kind === 'plugin')
        made.push(...found.source.files.map((file) => file.name).filter((part) => part !== name));
      if (found.kind === 'image' && this.#present !== undefined) made.push(presentedName(name, this.#present, taken));
      for (const part of made) {
        if (taken.has(part)) continue;
        taken.add(part);
        names.set(part, new NamedPlace(filePath, part));
      }
    }
    return names;
  }
}

/** `vm.spf` -> `vm.vhdx`; where that is taken (a full image and its increments), the whole name: `vm.spi.vhdx`. */
function presentedName(imageName: string, format: FormatName, taken: ReadonlySet<string>): string {
  const extension = extensionOf(format);
  const short = `${imageName.replace(/\.(spf|spi)$/i, '')}.${extension}`;
  return taken.has(short) ? `${imageName}.${extension}` : short;
}
