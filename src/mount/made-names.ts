/**
 * Names that only the mount has: further files of a native disk (a VMDK's extent), and images shown as disks with no plugin file.
 *
 * A name is found by its inverse: which few files could make it, and are these what they must be? So a folder may have any number of files.
 * Only a listing looks at all of them. Of several that would have one name, first comes a real file, then a file of a disk, then the plain
 * name of an image, then a whole one.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { isUnfinishedName } from '../base/durable.ts';
import { systemErrorCode } from '../base/errors.ts';
import { discardSuffix, hasStem, startOfShortened } from '../plugin/beside.ts';
import { extensionOf, namesWithFile, type FormatName } from '../native/formats.ts';
import type { Classification, Classifier } from './classify.ts';
import { ImageLineage } from './image-lineage.ts';
import { NamedPlace, type Place } from './place.ts';
import { namesOfStem, ownerOfPlainName, stemOf } from './presented-name.ts';

export interface MadeName {
  readonly name: string;
  readonly place: Place;
}

/** The files of a folder, as far as they are asked for. */
interface FolderFiles {
  has(name: string): boolean;
  isImage(name: string): boolean;
  /** The plugin file that makes a further file of this name. */
  pluginOf(partName: string): string | undefined;
  /** The image that has the plain name of this stem. */
  ownerOf(stem: string): string | undefined;
}

export class MadeNames {
  readonly #classifier: Classifier;
  /** With its dot: of the format in which images are presented. */
  readonly #extension: string | undefined;
  readonly #lineage = new ImageLineage();

  constructor(classifier: Classifier, present: FormatName | undefined) {
    this.#classifier = classifier;
    this.#extension = present === undefined ? undefined : `.${extensionOf(present)}`;
  }

  /**
   * @param folder held by a descriptor: no link leads from it to another
   * @param name that no file of the folder has
   */
  find(folder: Place, name: string): Place | undefined {
    const files = new AskedFiles(folder, this.#classifier, this.#lineage);
    const source = files.pluginOf(name) ?? this.#imageOf(files, name);
    return source === undefined ? undefined : placeOf(folder, source, name);
  }

  /** Whether a plugin file makes a further file of this name: also where an interrupted `finalize` has put that in its place. */
  isPart(folder: Place, name: string): boolean {
    return new AskedFiles(folder, this.#classifier, this.#lineage).pluginOf(name) !== undefined;
  }

  /** What the native file of a replacement with this stem may be called: of a shortened stem, all that are shortened to it. */
  stems(folder: Place, stem: string): string[] {
    const names = [stem, ...(stem.endsWith(discardSuffix) ? [stem.slice(0, -discardSuffix.length)] : [])];
    const start = startOfShortened(stem);
    if (start === undefined) return names;
    const long = [
      ...fs.readdirSync(folder.at),
      ...new ListedFiles(folder, this.#classifier, this.#lineage).parts.keys(),
    ];
    return [...names, ...long.filter((name) => name.startsWith(start) && hasStem(name, stem))];
  }

  /** The names that one file has besides its own. */
  *madeFrom(folder: Place, source: string, found: Classification): Generator<MadeName> {
    const wanted =
      found.kind === 'plugin'
        ? found.source.files.map((file) => file.name)
        : found.kind === 'image' && this.#extension !== undefined
          ? [stemOf(source) + this.#extension, source + this.#extension]
          : [];
    const files = new AskedFiles(folder, this.#classifier, this.#lineage);
    for (const name of new Set(wanted))
      if (!files.has(name) && (files.pluginOf(name) ?? this.#imageOf(files, name)) === source)
        yield { name, place: placeOf(folder, source, name) };
  }

  *list(folder: Place): Generator<MadeName> {
    const files = new ListedFiles(folder, this.#classifier, this.#lineage);
    for (const [name, plugin] of files.parts)
      if (!files.has(name)) yield { name, place: placeOf(folder, plugin, name) };
    if (this.#extension === undefined) return;
    for (const image of files.images) {
      for (const name of [stemOf(image) + this.#extension, image + this.#extension]) {
        if (files.has(name) || files.pluginOf(name) !== undefined || this.#imageOf(files, name) !== image) continue;
        yield { name, place: placeOf(folder, image, name) };
        break;
      }
    }
  }

  /** The image that is presented by this name, which nothing else has. */
  #imageOf(files: FolderFiles, name: string): string | undefined {
    const extension = this.#extension;
    if (extension === undefined || !name.endsWith(extension)) return undefined;
    const plain = name.slice(0, -extension.length);
    return files.ownerOf(plain) ?? this.#wholeNamed(files, plain, extension);
  }

  /** An image has its whole name where its plain one is another's. */
  #wholeNamed(files: FolderFiles, image: string, extension: string): string | undefined {
    if (!files.isImage(image)) return undefined;
    const stem = stemOf(image);
    const short = stem + extension;
    const isTaken = files.has(short) || files.pluginOf(short) !== undefined;
    return isTaken || files.ownerOf(stem) !== image ? image : undefined;
  }
}

function placeOf(folder: Place, source: string, name: string): Place {
  return new NamedPlace(`${folder.at}/${source}`, name, () => path.join(folder.path, source));
}

/** What a file is; undefined for what can make no name, is gone, or cannot be looked at: that keeps nobody from the others. */
function classified(folder: Place, name: string, classifier: Classifier): Classification | undefined {
  if (isUnfinishedName(name)) return undefined;
  const place = placeOf(folder, name, '');
  try {
    const stat = fs.lstatSync(place.at, { bigint: true, throwIfNoEntry: false });
    return stat?.isFile() === true ? classifier.classify(place, stat) : undefined;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}

/** Looks at a file when it is asked for. */
class AskedFiles implements FolderFiles {
  readonly #folder: Place;
  readonly #classifier: Classifier;
  readonly #lineage: ImageLineage;

  constructor(folder: Place, classifier: Classifier, lineage: ImageLineage) {
    this.#folder = folder;
    this.#classifier = classifier;
    this.#lineage = lineage;
  }

  has(name: string): boolean {
    return fs.lstatSync(`${this.#folder.at}/${name}`, { throwIfNoEntry: false }) !== undefined;
  }

  isImage(name: string): boolean {
    return classified(this.#folder, name, this.#classifier)?.kind === 'image';
  }

  pluginOf(partName: string): string | undefined {
    return namesWithFile(partName).find((name) => {
      const found = classified(this.#folder, name, this.#classifier);
      return found?.kind === 'plugin' && found.source.files.some((file) => file.name === partName);
    });
  }

  ownerOf(stem: string): string | undefined {
    const images = namesOfStem(stem).filter((name) => this.isImage(name));
    return ownerOfPlainName(images, (name) => this.#lineage.isNewest(this.#folder, name));
  }
}

/** Looks at every file, once. */
class ListedFiles implements FolderFiles {
  readonly #folder: Place;
  readonly #lineage: ImageLineage;
  readonly #names: ReadonlySet<string>;
  /** Further files of disks, with the plugin file that makes each. */
  readonly parts = new Map<string, string>();
  readonly images = new Set<string>();
  readonly #byStem = new Map<string, string[]>();

  constructor(folder: Place, classifier: Classifier, lineage: ImageLineage) {
    this.#folder = folder;
    this.#lineage = lineage;
    // One that was removed has none.
    this.#names = new Set(folder.stat().nlink === 0n ? [] : fs.readdirSync(folder.at));
    for (const name of this.#names) {
      const found = classified(folder, name, classifier);
      if (found?.kind === 'image') this.#addImage(name);
      if (found?.kind === 'plugin')
        for (const part of found.source.files) if (part.name !== name) this.parts.set(part.name, name);
    }
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  isImage(name: string): boolean {
    return this.images.has(name);
  }

  pluginOf(partName: string): string | undefined {
    return this.parts.get(partName);
  }

  ownerOf(stem: string): string | undefined {
    return ownerOfPlainName(this.#byStem.get(stem) ?? [], (name) => this.#lineage.isNewest(this.#folder, name));
  }

  #addImage(name: string): void {
    this.images.add(name);
    const stem = stemOf(name);
    this.#byStem.set(stem, [...(this.#byStem.get(stem) ?? []), name]);
  }
}
