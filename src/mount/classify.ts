/** What a file of the folder is: a plugin file, an image, or a file like any other. Decided by content, never by extension. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { LRUCache } from 'lru-cache';
import { unfinishedSuffix } from '../base/durable.ts';
import { startsAsImage } from '../backup/image-description.ts';
import { minFileBytes } from '../backup/layout.ts';
import type { NativeFile } from '../native/format.ts';
import { synthesizeFiles, type FormatName } from '../native/formats.ts';
import { presentImage } from '../plugin/create.ts';
import {
  isPluginFile,
  markerBytes,
  maxPluginFileBytes,
  parsePluginFile,
  type PluginFile,
} from '../plugin/plugin-file.ts';
import { isRecordName } from '../replacement/record.ts';
import type { Place } from './place.ts';

/** A plugin file, or an image that is shown as if it had one. */
export interface NativeSource {
  /** Names this state of this file: another inode, size or time of change is another source. */
  readonly key: string;
  readonly plugin: PluginFile;
  /** An image that is shown with no plugin file. */
  readonly isPresented: boolean;
  readonly files: readonly NativeFile[];
}

export type Classification =
  | { readonly kind: 'plain' }
  | { readonly kind: 'image' }
  | { readonly kind: 'plugin'; readonly source: NativeSource }
  /** It claims to be a plugin file, but is not a sound one: shown, and never opened. */
  | { readonly kind: 'broken plugin'; readonly error: Error };

const plain: Classification = { kind: 'plain' };
const image: Classification = { kind: 'image' };
const maxRemembered = 4096;
const maxSources = 256;

export class Classifier {
  readonly #nameless = new LRUCache<string, Classification>({ max: maxRemembered });
  readonly #known = new LRUCache<string, Classification>({ max: maxSources });
  readonly #presented = new LRUCache<string, NativeSource>({ max: maxSources });

  /** @param stat of the place, taken just now. @throws the system's error when it cannot be read */
  classify(place: Place, stat: fs.BigIntStats): Classification {
    const mayBePlugin = stat.size <= maxPluginFileBytes && stat.size >= markerBytes;
    const mayBeImage = stat.size >= minFileBytes;
    if (!stat.isFile() || !(mayBePlugin || mayBeImage)) return plain;
    const key = keyOf(stat);
    // Only of a plugin file does the name matter, since it is written into some native files.
    const nameless = this.#nameless.get(key);
    if (nameless !== undefined) return nameless;
    const name = path.basename(place.path);
    // Whoever makes an image or a plugin file under the mount writes it, and gives it its name when it is whole.
    // The record of a plugin file whose disk file is in place stands for no disk any more.
    if (name.endsWith(unfinishedSuffix) || isRecordName(name)) return plain;
    const named = `${key}:${name}`;
    const known = this.#known.get(named);
    if (known !== undefined) return known;
    const found = classifyContents(place, name, named, mayBePlugin);
    if (found.kind === 'plugin') this.#known.set(named, found);
    else this.#nameless.set(key, found);
    return found;
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
    const source = { key, plugin, isPresented: true, files: synthesizeFiles(plugin.native, name) };
    this.#presented.set(key, source);
    return source;
  }
}

function classifyContents(place: Place, name: string, key: string, mayBePlugin: boolean): Classification {
  const fd = place.open(fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  try {
    const first = Buffer.alloc(markerBytes);
    fs.readSync(fd, first, 0, first.length, 0);
    if (startsAsImage(first)) return image;
    if (!mayBePlugin || !isPluginFile(first)) return plain;
    try {
      const plugin = parsePluginFile(fs.readFileSync(fd), place.path);
      return {
        kind: 'plugin',
        source: { key, plugin, isPresented: false, files: synthesizeFiles(plugin.native, name) },
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
