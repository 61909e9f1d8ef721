/** What a file of the folder is: a plugin file, an image, or a file like any other. Decided by content, never by extension. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { LRUCache } from 'lru-cache';
import { isUnfinishedName } from '../base/durable.ts';
import { systemErrorCode, isShortage } from '../base/errors.ts';
import { minFileBytes } from '../backup/format/layout.ts';
import type { NativeFile } from '../native/format.ts';
import { synthesizeFiles, type FormatName } from '../native/formats.ts';
import { presentImage } from '../plugin/create.ts';
import { ownershipOf, type Ownership } from '../plugin/authors.ts';
import { maxPluginFileBytes, parsePluginFile, type PluginFile } from '../plugin/plugin-file.ts';
import { markBytes, ownContentIn } from '../source/own-content.ts';
import { isRecordName } from '../replacement/record.ts';
import { systemError } from '../base/system-error.ts';
import { pathIfTold, type Place } from './place.ts';
import { SeenFiles } from './seen-files.ts';

/** A plugin file, or an image that is shown as if it had one. */
export interface NativeSource {
  /** Names this state of this file: another inode, size or time of change is another source. */
  readonly key: string;
  readonly plugin: PluginFile;
  readonly ownership: Ownership;
  /** An image that is shown with no plugin file. */
  readonly isPresented: boolean;
  readonly files: readonly NativeFile[];
}

export type Classification =
  | { readonly kind: 'plain' }
  | { readonly kind: 'image' }
  | { readonly kind: 'plugin'; readonly source: NativeSource }
  /** It claims to be a plugin file, but is not a sound one: shown, and never opened. */
  | { readonly kind: 'broken plugin'; readonly error: Error }
  /** It cannot be read, and so may be anything: shown, and not opened either. */
  | { readonly kind: 'unreadable'; readonly error: Error };

const plain: Classification = { kind: 'plain' };
const image: Classification = { kind: 'image' };
const maxSources = 256;
const maxClaims = 4096;

export class Classifier {
  readonly #seen = new SeenFiles();
  readonly #known = new LRUCache<string, Classification>({ max: maxSources });
  readonly #claims = new LRUCache<string, boolean>({ max: maxClaims });
  readonly #presented = new LRUCache<string, NativeSource>({ max: maxSources });

  /** @param stat of the place, taken just now. @throws ENOENT when it has gone since */
  classify(place: Place, stat: fs.BigIntStats): Classification {
    const mayBePlugin = stat.size <= maxPluginFileBytes && stat.size >= markBytes;
    const mayBeImage = stat.size >= minFileBytes;
    if (!stat.isFile() || !(mayBePlugin || mayBeImage)) return plain;
    // Only of a plugin file does the name matter, since it is written into some native files.
    const seen = this.#seen.get(stat);
    if (seen !== undefined) return seen === 'image' ? image : plain;
    const told = pathIfTold(place);
    const name = told === undefined ? undefined : path.basename(told);
    // Whoever makes an image or a plugin file under the mount writes it, and gives it its name when it is whole.
    // The record of a plugin file whose disk file is in place stands for no disk any more.
    if (name !== undefined && (isUnfinishedName(name) || isRecordName(name))) return plain;
    const named = `${keyOf(stat)}:${name ?? ''}`;
    const known = this.#known.get(named);
    if (known !== undefined) return known;
    const found = readableContents(place, name, named, mayBePlugin);
    // Who may read it can change without its times.
    if (found.kind === 'unreadable') return found;
    if (found.kind === 'plain' || found.kind === 'image') this.#seen.set(stat, found.kind);
    else this.#known.set(named, found);
    return found;
  }

  /** Whether it claims to be a plugin file, sound or not. Asked for many files at once: nothing of it is parsed. */
  isPlugin(place: Place, stat: fs.BigIntStats): boolean {
    if (!stat.isFile() || stat.size > maxPluginFileBytes || stat.size < markBytes) return false;
    const key = keyOf(stat);
    const known = this.#claims.get(key);
    if (known !== undefined) return known;
    const fd = place.open(fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    try {
      const found = ownContentIn(fd) === 'plugin file';
      this.#claims.set(key, found);
      return found;
    } finally {
      fs.closeSync(fd);
    }
  }

  /**
   * The native disk that an image is shown as where the mount presents images.
   * @throws whatever opening the image throws
   */
  presented(place: Place, stat: fs.BigIntStats, format: FormatName, name: string): NativeSource {
    const key = `${keyOf(stat)}:presented:${name}`;
    const known = this.#presented.get(key);
    if (known !== undefined) return known;
    const plugin = presentImage(place.path, format);
    const source = {
      key,
      plugin,
      ownership: ownershipOf(stat),
      isPresented: true,
      files: synthesizeFiles(plugin.native, name),
    };
    this.#presented.set(key, source);
    return source;
  }
}

function readableContents(place: Place, name: string | undefined, key: string, mayBePlugin: boolean): Classification {
  try {
    return classifyContents(place, name, key, mayBePlugin);
  } catch (error) {
    if (systemErrorCode(error) === undefined || systemErrorCode(error) === 'ENOENT' || isShortage(error)) throw error;
    return { kind: 'unreadable', error: error as Error };
  }
}

function classifyContents(place: Place, name: string | undefined, key: string, mayBePlugin: boolean): Classification {
  const fd = place.open(fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  try {
    const content = ownContentIn(fd);
    if (content === 'image') return image;
    if (!mayBePlugin || content === undefined) return plain;
    try {
      const ownership = ownershipOf(fs.fstatSync(fd, { bigint: true }), fd);
      if (name === undefined) throw systemError('ENAMETOOLONG', 'open', 'a plugin file');
      const plugin = parsePluginFile(fs.readFileSync(fd), place.path);
      return {
        kind: 'plugin',
        source: { key, plugin, ownership, isPresented: false, files: synthesizeFiles(plugin.native, name) },
      };
    } catch (error) {
      return { kind: 'broken plugin', error: error instanceof Error ? error : new Error(String(error)) };
    }
  } finally {
    fs.closeSync(fd);
  }
}

function keyOf(stat: fs.BigIntStats): string {
  return `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}`;
}
