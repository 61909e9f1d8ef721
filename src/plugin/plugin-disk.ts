/** The disk that a plugin file stands for, and what it knows of the images behind it. */
import { closeAll, type Closable } from '../base/ownership.ts';
import type { ChainDisk } from '../backup/read/chain.ts';
import type { Disk } from '../disk/disk.ts';

/** One of its sources, open. */
export interface OpenedSource extends Closable {
  readonly disk: Disk;
  /** Images, or files. */
  readonly count: number;
  /** Where it is one: of another source nothing is inflated here, and nothing has a key. */
  readonly chain?: ChainDisk;
}

export interface PluginDisk extends Disk {
  readonly imageCount: number;
  /** Of the smallest blocks that are inflated to read a part of them; undefined where the images are not compressed. */
  readonly inflatedBlockBytes: number | undefined;
  /** Of all images together. */
  readonly cacheHits: number;
  readonly cacheMisses: number;
  /** @throws ForbiddenError when an image is encrypted and its key is not there */
  requireKeys(): void;
}

/**
 * @param disk owns the sources
 * @param files what else is closed with it
 */
export function pluginDisk(disk: Disk, sources: readonly OpenedSource[], files: readonly Disk[]): PluginDisk {
  const chains = sources.map(({ chain }) => chain).filter((chain) => chain !== undefined);
  const compressed = chains.filter(({ images }) => images.some(({ description }) => description.codec !== 'none'));
  return {
    sizeBytes: disk.sizeBytes,
    read: (target, offset) => disk.read(target, offset),
    extents: (offset, length) => disk.extents(offset, length),
    close: () => closeAll([disk, ...files]),
    imageCount: sources.reduce((sum, { count }) => sum + count, 0),
    inflatedBlockBytes:
      compressed.length === 0 ? undefined : Math.min(...compressed.map(({ blockBytes }) => blockBytes)),
    get cacheHits() {
      return chains.reduce((sum, chain) => sum + chain.cacheHits, 0);
    },
    get cacheMisses() {
      return chains.reduce((sum, chain) => sum + chain.cacheMisses, 0);
    },
    requireKeys() {
      for (const chain of chains) chain.requireKey();
    },
  };
}
