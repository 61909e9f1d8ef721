/**
 * What a native file under a mount may hold that an image does not: the image that the incremental is to be made on, which need not be the one
 * that the plugin file points to. The disk may differ from that image (written-ranges.ts), and that image from the parent
 * (chain-difference.ts): where neither is so, all three read the same, and nothing has to be read.
 */
import path from 'node:path';
import { absolutePath } from '../base/given-names.ts';
import { UsageError, VeneerError } from '../base/errors.ts';
import { closing } from '../base/ownership.ts';
import { MiB } from '../base/units.ts';
import { BlockCache } from '../backup/read/block-cache.ts';
import { chainDifference } from '../backup/read/chain-difference.ts';
import { openChainDisk, type ChainDisk } from '../backup/read/chain.ts';
import { mergeRanges, type ByteRange } from '../disk/byte-ranges.ts';
import { KeyRing } from '../backup/crypto/key-ring.ts';
import { OpenPlugin } from '../plugin/open-plugin.ts';
import { imagesOf } from '../plugin/plugin-file.ts';
import type { WrittenSource } from './written-ranges.ts';

/** Indexes alone are read. */
const cacheBytes = MiB;

/**
 * @returns undefined where nothing is known: all of the disk is to be compared then
 * @throws UsageError where the parent is an image of a volume, and the disk is made around it; whatever opening the parent throws
 */
export function changedSince(
  source: WrittenSource,
  parentPath: string,
  keys = new KeyRing(),
): readonly ByteRange[] | undefined {
  using parent = closing(openChainDisk(parentPath, BlockCache.ofOneThread(cacheBytes), undefined, keys));
  requireSameContent(source, parent.value, parentPath);
  if (source.changed === undefined || source.plugin.bootable !== undefined) return undefined;
  const difference = differenceFrom(parent.value, source, parentPath, keys);
  return difference === undefined ? undefined : mergeRanges([...source.changed, ...difference]);
}

function requireSameContent({ shown, plugin }: WrittenSource, parent: ChainDisk, parentPath: string): void {
  if (plugin.bootable === undefined) return;
  const found = parent.images[0]?.description;
  const isOfVolume = imagesOf(plugin).some(({ chainId }) => chainId === found?.chainId);
  if (!isOfVolume && found?.content !== 'volume') return;
  throw new UsageError(
    `${shown}: is a disk made around a volume, and ${parentPath} is of the volume alone; make a full image of it, without --parent`,
  );
}

/** Undefined where the plugin file's image cannot be opened here, or is of another lineage. */
function differenceFrom(
  parent: ChainDisk,
  { plugin, pluginPath, folder }: WrittenSource,
  parentPath: string,
  keys: KeyRing,
): ByteRange[] | undefined {
  const allowed = { folders: [folder, absolutePath(path.dirname(parentPath))] };
  const cache = BlockCache.ofOneThread(cacheBytes);
  let image: ChainDisk;
  try {
    image = new OpenPlugin(plugin, pluginPath, { allowed, keys, cache }).openImage();
  } catch (error) {
    if (error instanceof VeneerError) return undefined;
    throw error;
  }
  using owned = closing(image);
  return chainDifference(owned.value, parent);
}
