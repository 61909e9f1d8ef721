/** The disk that a plugin file stands for, and what it knows of the images behind it. */
import { closeAll } from '../base/ownership.ts';
import type { ChainDisk } from '../backup/chain.ts';
import type { Disk } from '../disk/disk.ts';

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
 * @param disk owns the chains
 * @param files what else is closed with it
 */
export function pluginDisk(disk: Disk, chains: readonly ChainDisk[], files: readonly Disk[]): PluginDisk {
  const compressed = chains.filter(({ images }) => images.some(({ description }) => description.codec !== 'none'));
  return {
    sizeBytes: disk.sizeBytes,
    read: (target, offset) => disk.read(target, offset),
    extents: (offset, length) => disk.extents(offset, length),
    close: () => closeAll([disk, ...files]),
    imageCount: chains.reduce((count, chain) => count + chain.images.length, 0),
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
