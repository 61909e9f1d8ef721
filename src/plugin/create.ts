/** Makes plugin files: looks at the image once, so that nobody needs to for metadata again. */
import fs from 'node:fs';
import path from 'node:path';
import { assert, AssertionError, UsageError } from '../base/errors.ts';
import { writeFileDurably } from '../base/durable.ts';
import { closing } from '../base/ownership.ts';
import { namedGuid, randomGuid, type Guid } from '../bytes/guid.ts';
import { openChainDisk } from '../backup/chain.ts';
import { Image, type ImageDescription } from '../backup/image.ts';
import { allocatedRuns } from '../native/allocation.ts';
import { formatNames, formatOfName, planGeometry, wholeLayouts, type FormatName } from '../native/formats.ts';
import type { DiskFacts, PlanOptions } from '../native/format.ts';
import { encodePluginFile, parsePluginFile, type PluginFile } from './plugin-file.ts';

export interface PluginOptions extends PlanOptions {
  /** Default: by the plugin file's extension. */
  readonly format?: FormatName;
  readonly force?: boolean;
}

/**
 * Writes the plugin file `pluginPath` for the disk as of the image at `imagePath`.
 * @throws UsageError when the file exists, no format fits its name, or the image is not in its folder or below it
 */
export function createPluginFile(imagePath: string, pluginPath: string, options: PluginOptions = {}): PluginFile {
  if (options.force !== true && fs.existsSync(pluginPath)) {
    throw new UsageError(`${pluginPath}: exists already; choose another name, or replace it with --force`);
  }
  const format = options.format ?? formatOfName(pluginPath);
  if (format === undefined) {
    throw new UsageError(
      `${pluginPath}: its extension names no disk format; use ${formatNames.map((name) => `.${name}`).join(', ')} or --format`,
    );
  }
  const relative = path.relative(path.dirname(path.resolve(pluginPath)), path.resolve(imagePath));
  // The whole chain, so that a broken one is found now and not by the guest.
  using disk = closing(openChainDisk(imagePath));
  const newest = disk.value.images[0];
  assert(newest !== undefined, 'a chain has no image');
  const plugin = describePlugin(newest.description, {
    relativePath: relative.split(path.sep).join('/'),
    format,
    identity: randomGuid(),
    plan: options,
    allocatedRuns: (unitBytes) => allocatedRuns(disk.value, unitBytes),
  });
  const bytes = encodePluginFile(plugin);
  writeFileDurably(pluginPath, bytes);
  return parsePluginFile(bytes, pluginPath);
}

/**
 * The plugin file that an image shown without one behaves as: the same at every mount, since its GUIDs come from the image's own.
 * Reads the image's own header and nothing else, and so the layout is always one that holds every block.
 */
export function presentImage(imagePath: string, format: FormatName): PluginFile {
  using image = closing(Image.open(imagePath));
  const { description } = image.value;
  const plugin = describePlugin(description, {
    relativePath: path.basename(imagePath),
    format,
    identity: namedGuid(description.imageId, `presented as ${format}`),
    plan: { layout: wholeLayouts[format] },
    allocatedRuns: () => {
      throw new AssertionError('a layout that holds every block asked for the allocation');
    },
  });
  return parsePluginFile(encodePluginFile(plugin), imagePath);
}

interface PluginPlan {
  readonly relativePath: string;
  readonly format: FormatName;
  readonly identity: Guid;
  readonly plan: PlanOptions;
  readonly allocatedRuns: DiskFacts['allocatedRuns'];
}

function describePlugin(image: ImageDescription, plugin: PluginPlan): Omit<PluginFile, 'veneer' | 'version' | 'about'> {
  const facts = {
    sizeBytes: image.sourceSizeBytes,
    logicalSectorBytes: image.logicalSectorBytes,
    physicalSectorBytes: image.physicalSectorBytes,
    identity: plugin.identity,
    allocatedRuns: plugin.allocatedRuns,
  };
  return {
    id: plugin.identity,
    image: {
      path: plugin.relativePath,
      imageId: image.imageId,
      chainId: image.chainId,
      createdAt: image.createdAt.toISOString(),
    },
    disk: { content: image.content, sizeBytes: image.sourceSizeBytes },
    native: planGeometry(plugin.format, facts, plugin.plan),
  };
}
