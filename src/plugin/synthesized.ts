/**
 * The synthesized bytes of one native file of a plugin file, as jobs read them that run beside a mount or without one. The image is opened
 * at the first read of guest data; after it failed, it is opened anew at the next one.
 */
import { FormatError } from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';
import type { BlockCache } from '../backup/read/block-cache.ts';
import { KeyRing, type ThreadKeys } from '../backup/crypto/key-ring.ts';
import type { Extent } from '../disk/disk.ts';
import { OpenPlugin } from './open-plugin.ts';
import type { PluginDisk } from './plugin-disk.ts';
import type { PluginFile } from './plugin-file.ts';
import type { AllowedPaths } from './reach.ts';

/** Plain values: it may come from another thread. */
export interface SynthesizedPlace {
  readonly plugin: PluginFile;
  readonly pluginPath: string;
  /** Of the native file: the plugin file's own, or another that it makes. */
  readonly fileName: string;
  readonly allowed: AllowedPaths;
  readonly keys: ThreadKeys;
}

export interface Synthesized extends Closable {
  readonly sizeBytes: number;
  /** Fills all of target, or throws what the image throws. */
  read(target: Uint8Array, offset: number): void;
  extents(offset: number, length: number): Iterable<Extent>;
  /** Closes the image. The next read opens it again. */
  close(): void;
}

/** The plugin file as another thread has told of it. */
export function pluginOf({ plugin, pluginPath, allowed, keys }: SynthesizedPlace, cache: BlockCache): OpenPlugin {
  return new OpenPlugin(plugin, pluginPath, { allowed, keys: new KeyRing(keys), cache });
}

/** @throws FormatError when the plugin file makes no file of that name */
export function openSynthesized(place: SynthesizedPlace, cache: BlockCache): Synthesized {
  const plugin = pluginOf(place, cache);
  const file = plugin.files.find(({ name }) => name === place.fileName);
  if (file === undefined) throw new FormatError(plugin.path, 'native', 0, `makes no file ${place.fileName}`);
  let disk: PluginDisk | undefined;
  const open = (): PluginDisk => (disk ??= plugin.openDisk());
  const close = (): void => {
    const opened = disk;
    disk = undefined;
    opened?.close();
  };
  return {
    sizeBytes: file.map.sizeBytes,
    read: (target, offset) => file.map.read(target, offset, open),
    extents: (offset, length) => file.map.extents(offset, length, open),
    close,
  };
}
