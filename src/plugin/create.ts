/** Makes plugin files: looks at the image, or the disk file, once, so that nobody needs to for metadata again. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { AssertionError, FormatError, UsageError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { writeFileDurably } from '../base/durable.ts';
import { absolutePath } from '../base/given-names.ts';
import { closing } from '../base/ownership.ts';
import { lengthBytes, maxNameBytes } from '../base/suffixed.ts';
import { namedGuid, randomGuid, type Guid } from '../bytes/guid.ts';
import { openChainDisk, type ChainDisk } from '../backup/read/chain.ts';
import type { KeyRing } from '../backup/crypto/key-ring.ts';
import { Image } from '../backup/read/image.ts';
import type { ImageDescription } from '../backup/format/image-description.ts';
import { allocatedRuns } from '../native/allocation.ts';
import {
  formatNames,
  formatOf,
  formatOfName,
  planGeometry,
  synthesizeFiles,
  type FormatName,
  type Geometry,
} from '../native/formats.ts';
import type { DiskFacts, PlanOptions } from '../native/format.ts';
import { dataPathOf, hasReplacement, mapPathOf } from './beside.ts';
import { assertMayWriteBootFile, writeBootFile } from './boot-file.ts';
import type { Bootable } from './bootable-schema.ts';
import { isDiskFile, planOverFile } from './create-over-file.ts';
import { ownContentAt } from '../source/own-content.ts';
import { makeAround, newestOf, pointerTo, relativePathOf, type BootOptions } from './create-bootable.ts';
import { registerPointers } from './pointer-registry.ts';
import {
  encodePluginFile,
  pointersOf,
  parsePluginFile,
  readPluginFile,
  type PluginContents,
  type PluginFile,
  type ReplacementKind,
  type WriteMode,
} from './plugin-file.ts';

export interface PluginOptions extends PlanOptions {
  /** Default: by the plugin file's extension. */
  readonly format?: FormatName;
  readonly force?: boolean;
  /** How the folders of its images are to know it: absolute, and under no mount. Default: by its own path. */
  readonly knownAs?: string;
  /** Told of folders of images that cannot be written to, and so do not know of it. */
  readonly onUntold?: (imageFolder: string) => void;
  /** What a native disk file is, whatever its name and its content say. Given, the source is no image. */
  readonly sourceFormat?: string;
  /** What becomes of writes to the native file. */
  readonly write?: WriteMode;
  /** What is written, or copied out of an encrypted image: sealed with its key or plain. To be chosen for each of these, and for no other. */
  readonly replacement?: ReplacementKind;
  /** Makes a disk that boots around the volume of the image, and around further ones. */
  readonly boot?: BootOptions;
  /** Of encrypted images: a volume must be looked into to boot it. */
  readonly keys?: KeyRing;
}

/**
 * Writes the plugin file `pluginPath` for the disk as of the image at `sourcePath`, or for the disk that a native disk file there holds.
 * @throws UsageError when the file exists (without `force`) or is no plugin file, writes lie beside it, or no format fits its name; as openSource
 */
export function createPluginFile(sourcePath: string, pluginPath: string, options: PluginOptions = {}): PluginFile {
  assertMayReplace(pluginPath, options.force === true);
  const format = options.format ?? formatOfName(pluginPath);
  if (format === undefined) {
    throw new UsageError(
      `${pluginPath}: its extension names no disk format; use ${formatNames.map((name) => `.${name}`).join(', ')} or --format`,
    );
  }
  const place = { sourcePath, pluginPath, format, identity: randomGuid() };
  return isDiskFile(sourcePath, options.sourceFormat)
    ? createOverFile(place, options)
    : createOverImage(place, options);
}

/** Where it is made, of what, and as what. */
interface NewPlugin {
  readonly sourcePath: string;
  readonly pluginPath: string;
  readonly format: FormatName;
  readonly identity: Guid;
}

function createOverFile({ sourcePath, pluginPath, format, identity }: NewPlugin, options: PluginOptions): PluginFile {
  if (options.boot !== undefined)
    throw new UsageError(
      `${sourcePath}: is a disk file, and a disk is made around images of volumes; make one with veneer image create --volume`,
    );
  const { write, replacement } = options;
  requireChoice(sourcePath, false, replacement);
  const { source, native } = planOverFile(sourcePath, pluginPath, { ...options, format, identity });
  assertNothingKept(pluginPath, native);
  const plugin = {
    id: identity,
    source,
    disk: { content: 'disk', sizeBytes: native.sizeBytes },
    ...(write === undefined ? {} : { write }),
    ...(replacement === undefined ? {} : { replacement }),
    native,
  } as const;
  return writePlugin(pluginPath, plugin, options);
}

function createOverImage(place: NewPlugin, options: PluginOptions): PluginFile {
  const { sourcePath, pluginPath, format, identity } = place;
  const relativePath = relativePathOf(sourcePath, pluginPath);
  // The whole chain, so that a broken one is found now and not by the guest.
  using chain = closing(openChainDisk(sourcePath, undefined, undefined, options.keys));
  const image = newestOf(chain.value);
  const isEncrypted = image.sealed || (options.boot?.furtherImages ?? []).some(isEncryptedImage);
  requireChoice(sourcePath, isEncrypted, options.replacement);
  const { write, replacement } = options;
  if (options.boot === undefined) {
    const native = planForDisk(chain.value, format, identity, options);
    assertNothingKept(pluginPath, native);
    const plain = describePlugin(image, { relativePath, identity, native, write, replacement });
    return writePlugin(pluginPath, plain, options);
  }
  using around = closing(
    makeAround({ path: sourcePath, disk: chain.value }, pluginPath, identity, { ...options.boot, keys: options.keys }),
  );
  const { bootable, bootFile, disk } = around.value;
  if (bootFile.length > 0) assertMayWriteBootFile(pluginPath, bootFile, options.force === true);
  const facts = factsOf(image, identity, (unitBytes) => allocatedRuns(disk, unitBytes));
  const native = planGeometry(format, { ...facts, sizeBytes: disk.sizeBytes }, options);
  const plugin = describePlugin(image, { relativePath, identity, native, write, replacement, bootable });
  assertNothingKept(pluginPath, native);
  return writePlugin(pluginPath, plugin, options, bootFile);
}

/** Only a plugin file is ever replaced: what was written to it, or has become of it, is a machine's disk. @throws UsageError */
function assertMayReplace(pluginPath: string, force: boolean): void {
  if (fs.lstatSync(pluginPath, { throwIfNoEntry: false }) === undefined) return;
  if (!force) throw new UsageError(`${pluginPath}: exists already; choose another name, or replace it with --force`);
  const what = fs.lstatSync(pluginPath).isFile() ? ownContentAt(pluginPath) : undefined;
  if (what === 'plugin file') return;
  const why = what === 'image' ? 'an image, which is never changed' : 'no plugin file, and --force replaces no other';
  throw new UsageError(`${pluginPath}: is ${why}; choose another name`);
}

/** What lies beside a name would be taken for written to the disk of that name. @throws UsageError */
function assertNothingKept(pluginPath: string, native: Geometry): void {
  const names = [...namesOfExisting(pluginPath), ...synthesizeFiles(native, path.basename(pluginPath)).map(nameOf)];
  for (const name of names) {
    if (lengthBytes(name) > maxNameBytes)
      throw new UsageError(`${pluginPath}: its file ${name} would have too long a name; choose a shorter one`);
    const filePath = path.join(path.dirname(pluginPath), name);
    if (!hasReplacement(filePath) || !fs.existsSync(dataPathOf(filePath))) continue;
    throw new UsageError(
      `${pluginPath}: has been written to under a mount; take the writes back with veneer image create, or move ${path.basename(dataPathOf(filePath))} and ${path.basename(mapPathOf(filePath))} away, then make it anew`,
    );
  }
}

/** Of a plugin file that is to be replaced. */
function namesOfExisting(pluginPath: string): string[] {
  const name = path.basename(pluginPath);
  if (fs.lstatSync(pluginPath, { throwIfNoEntry: false }) === undefined) return [name];
  try {
    return synthesizeFiles(readPluginFile(pluginPath).native, name).map(nameOf);
  } catch (error) {
    // A damaged one is replaced, and nobody knows what else it was.
    if (error instanceof FormatError) return [name];
    throw error;
  }
}

function nameOf({ name }: { readonly name: string }): string {
  return name;
}

/** @param bootFile what the plugin file names beside itself; empty where there is none */
function writePlugin(
  pluginPath: string,
  contents: PluginContents,
  { knownAs = absolutePath(pluginPath), onUntold }: PluginOptions,
  bootFile: Uint8Array = new Uint8Array(0),
): PluginFile {
  const bytes = encodePluginFile(contents);
  const plugin = parsePluginFile(bytes, pluginPath);
  // A name that the format cannot write into its files is refused before anything is there.
  synthesizeFiles(plugin.native, path.basename(pluginPath));
  // Whoever sees the plugin file finds the boot file there.
  if (bootFile.length > 0) writeBootFile(pluginPath, bootFile);
  // Before the plugin file is there: whoever removes images must find what points to them.
  for (const folder of registerPointers(knownAs, pointersOf(plugin))) onUntold?.(folder);
  writeFileDurably(pluginPath, bytes, fileModes.pluginFile);
  return plugin;
}

function isEncryptedImage(imagePath: string): boolean {
  using image = closing(Image.open(imagePath));
  return image.value.description.sealed;
}

/** What leaves an encrypted image is never silently plain. @throws UsageError */
function requireChoice(imagePath: string, isEncrypted: boolean, replacement: ReplacementKind | undefined): void {
  if (isEncrypted && replacement === undefined) {
    throw new UsageError(
      `${imagePath}: is encrypted; say whether what is written to its disk is to be kept sealed with its key or plain: --replacement sealed or --replacement plain`,
    );
  }
  if (!isEncrypted && replacement === 'sealed')
    throw new UsageError(`${imagePath}: is not encrypted, and there is no key to seal with; leave --replacement away`);
}

/**
 * The plugin file that an image shown without one behaves as: the same at every mount, since its GUIDs come from the image's own.
 * Reads the image's own header and nothing else, and so the layout is always one that holds every block.
 */
export function presentImage(imagePath: string, format: FormatName): PluginFile {
  using image = closing(Image.open(imagePath));
  const { description } = image.value;
  const identity = namedGuid(description.imageId, `presented as ${format}`);
  const facts = factsOf(description, identity, () => {
    throw new AssertionError('a layout that holds every block asked for the allocation');
  });
  const native = planGeometry(format, facts, { layout: formatOf(format).wholeLayout });
  const plugin = describePlugin(description, { relativePath: path.basename(imagePath), identity, native });
  return parsePluginFile(encodePluginFile(plugin), imagePath);
}

/** @throws CapacityError, UsageError as the format's own plan does */
export function planForDisk(disk: ChainDisk, format: FormatName, identity: Guid, options: PlanOptions): Geometry {
  const facts = factsOf(newestOf(disk), identity, (unitBytes) => allocatedRuns(disk, unitBytes));
  return planGeometry(format, facts, options);
}

function factsOf(image: ImageDescription, identity: Guid, runs: DiskFacts['allocatedRuns']): DiskFacts {
  const { sourceSizeBytes, logicalSectorBytes, physicalSectorBytes } = image;
  return { sizeBytes: sourceSizeBytes, logicalSectorBytes, physicalSectorBytes, identity, allocatedRuns: runs };
}

function describePlugin(
  image: ImageDescription,
  plugin: {
    readonly relativePath: string;
    readonly identity: Guid;
    readonly native: Geometry;
    readonly write?: WriteMode | undefined;
    readonly replacement?: ReplacementKind | undefined;
    readonly bootable?: Bootable;
  },
): PluginContents {
  return {
    id: plugin.identity,
    source: { kind: 'chain', ...pointerTo(image, plugin.relativePath) },
    disk: {
      content: plugin.bootable === undefined ? image.content : 'disk',
      sizeBytes: plugin.native.sizeBytes,
    },
    ...(plugin.bootable === undefined ? {} : { bootable: plugin.bootable }),
    ...(plugin.write === undefined ? {} : { write: plugin.write }),
    ...(plugin.replacement === undefined ? {} : { replacement: plugin.replacement }),
    native: plugin.native,
  };
}
