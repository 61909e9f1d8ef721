/**
 * From a plugin file to the disk it points to, and no further: a plugin file comes from whoever can write to the folder, so its pointers
 * are followed only inside the folder tree that is mounted, and into paths that the mount allows.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { assert, FormatError, ForbiddenError, UnavailableError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { closeAll, closing } from '../base/ownership.ts';
import { sourceGate } from '../base/source-gate.ts';
import { sourceNameOf } from '../base/source-name.ts';
import type { BlockCache } from '../backup/block-cache.ts';
import { findImage, openChainDisk, type ChainDisk } from '../backup/chain.ts';
import { Image } from '../backup/image.ts';
import type { KeyRing } from '../backup/key-ring.ts';
import type { ChainKey } from '../backup/seal.ts';
import { assembleBootable, type BootExtras } from '../bootable/assemble.ts';
import type { Disk } from '../disk/disk.ts';
import { applyPatchSet, type StoredPatchSet } from '../guest/patch-set.ts';
import { requireReadable, type Ownership } from './authors.ts';
import { readBootFile } from './boot-file.ts';
import type { ImagePointer } from './bootable-schema.ts';
import { openPatchSetOf } from './patch-set-file.ts';
import { imagesOf, type PluginFile } from './plugin-file.ts';
import { registerPointers } from './pointer-registry.ts';

/** Where pointers may lead. All absolute; the first is the mounted folder. */
export interface AllowedPaths {
  readonly folders: readonly string[];
  /** Of the plugin file, where whoever may write it must be able to read what it points to. */
  readonly ownership?: Ownership;
}

/** The disk that a plugin file stands for, and what it knows of the images behind it. */
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
 * Judges all pointers by their text alone: the images need not be there.
 * @throws ForbiddenError when one leads outside
 */
export function judgePointers(plugin: PluginFile, pluginPath: string, allowed: AllowedPaths): void {
  for (const pointer of imagesOf(plugin)) imagePathOf(pointer, pluginPath, allowed);
}

function imagePathOf(pointer: ImagePointer, pluginPath: string, allowed: AllowedPaths): string {
  const target = absolutePath(path.dirname(pluginPath), pointer.path);
  requireInside(target, allowed, target, pluginPath, pointer.path);
  return target;
}

/**
 * Opens the disk. Every image of every chain is judged before anything of it is read, by where symbolic links lead. Encrypted images open
 * without their keys, but for a sealed patch set over them.
 * @throws ForbiddenError, UnavailableError, FormatError when an image is another than the plugin file was made for
 */
export function openPluginDisk(
  plugin: PluginFile,
  pluginPath: string,
  allowed: AllowedPaths,
  cache: BlockCache,
  keys: KeyRing,
): PluginDisk {
  const { bootable } = plugin;
  const sizes = bootable === undefined ? [plugin.disk.sizeBytes] : bootable.volumes.map((volume) => volume.sizeBytes);
  const chains: ChainDisk[] = [];
  let patchSet: StoredPatchSet | undefined;
  let disk: Disk | undefined;
  try {
    for (const [index, pointer] of imagesOf(plugin).entries()) {
      chains.push(openPointer(pointer, sizes[index] ?? 0, pluginPath, allowed, cache, keys));
    }
    for (const name of filesBeside(plugin))
      requireReadableByAuthors(path.join(path.dirname(pluginPath), name), pluginPath, allowed);
    patchSet = openPatchSetOf(plugin, pluginPath, () => sealingKey(plugin, pluginPath, allowed, keys));
    const disks = patchSet === undefined ? chains : patchedBy(patchSet, chains, plugin, pluginPath);
    if (bootable === undefined) disk = disks[0];
    else disk = assembleBootable(bootable, disks, readBootFile(bootable, pluginPath), extrasOf(patchSet));
    assert(disk !== undefined, 'a plugin file points to no image');
  } catch (error) {
    closeAll([...chains, ...filesOf(patchSet)]);
    throw error;
  }
  return pluginDisk(disk, chains, filesOf(patchSet));
}

function filesOf(patchSet: StoredPatchSet | undefined): readonly Disk[] {
  return patchSet === undefined ? [] : [patchSet.file];
}

/** Names of the files that go with a plugin file: the patch set in force, the boot file. */
function filesBeside({ patchSets, target, bootable }: PluginFile): string[] {
  const patchSet = patchSets?.find((described) => described.target === target)?.name;
  return [patchSet, bootable?.bootFile?.name].filter((name) => name !== undefined);
}

/** @param image that was opened by this path; what else lies there is read whole, and known by its hash */
function requireReadableByAuthors(file: string, pluginPath: string, allowed: AllowedPaths, image?: Image): void {
  if (allowed.ownership === undefined) return;
  const real = realPath(file, pluginPath);
  const folder = requireInside(real, allowed, file, pluginPath, file);
  requireReadable(real, folder, allowed.ownership, pluginPath, (stat) => image?.isFile(stat) ?? true);
}

function patchedBy(
  patchSet: StoredPatchSet,
  chains: readonly ChainDisk[],
  plugin: PluginFile,
  pluginPath: string,
): readonly Disk[] {
  const imageIds = imagesOf(plugin).map(({ imageId }) => imageId);
  return applyPatchSet(patchSet, chains, imageIds, `${pluginPath}: patch set for ${patchSet.target}`);
}

function extrasOf(patchSet: StoredPatchSet | undefined): BootExtras {
  return {
    ...(patchSet?.bootConfig === undefined ? {} : { config: patchSet.bootConfig }),
    ...(patchSet?.initramfs === undefined ? {} : { initramfs: patchSet.initramfs }),
  };
}

/** @param disk owns the chains */
function pluginDisk(disk: Disk, chains: readonly ChainDisk[], files: readonly Disk[]): PluginDisk {
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

/**
 * The key that what is written to the disk, and what is made of its guest, is sealed with: of its first encrypted image's chain. One that is
 * at hand needs no image.
 * @throws ForbiddenError when there is none; UnavailableError when there is neither a key nor the image that could be opened for it
 */
export function sealingKey(plugin: PluginFile, pluginPath: string, allowed: AllowedPaths, keys: KeyRing): ChainKey {
  for (const pointer of imagesOf(plugin)) {
    const known = keys.ofChain(pointer.chainId);
    if (known !== undefined) return known;
    const { named, judge } = judged(pointer, pluginPath, allowed);
    const key = sourceGate().through(sourceOf(named, pluginPath), () => {
      const imagePath = currentPathOf(named, pointer, judge);
      judge(imagePath);
      using image = closing(Image.open(imagePath));
      requireMeant(image.value, pointer, pluginPath);
      requireReadableByAuthors(imagePath, pluginPath, allowed, image.value);
      return image.value.description.sealed ? keys.require(image.value) : undefined;
    });
    if (key !== undefined) return key;
  }
  throw new FormatError(pluginPath, 'replacement', 0, 'is to be sealed, but none of its images is encrypted');
}

function judged(
  pointer: ImagePointer,
  pluginPath: string,
  allowed: AllowedPaths,
): { named: string; judge: (image: string) => void } {
  const named = imagePathOf(pointer, pluginPath, allowed);
  return {
    named,
    judge: (image) =>
      void requireInside(
        realPath(image, pluginPath),
        allowed,
        named,
        pluginPath,
        path.relative(path.dirname(pluginPath), image),
      ),
  };
}

/** Of its first image; 0 where nobody watches sources. */
export function firstSourceOf(plugin: PluginFile, pluginPath: string): number {
  const [pointer] = imagesOf(plugin);
  return pointer === undefined ? 0 : sourceOf(absolutePath(path.dirname(pluginPath), pointer.path), pluginPath);
}

/** What is passed on the way to the image; see source-gate.ts. */
function sourceOf(named: string, pluginPath: string): number {
  return sourceGate().sourceOf(() => sourceNameOf(named, path.dirname(pluginPath)));
}

/**
 * Opens the chain of the image that a plugin file points to.
 * @throws as openPluginDisk
 */
export function openPluginImage(
  plugin: PluginFile,
  pluginPath: string,
  allowed: AllowedPaths,
  cache: BlockCache,
  keys: KeyRing,
): ChainDisk {
  return openPointer(plugin.image, plugin.disk.sizeBytes, pluginPath, allowed, cache, keys);
}

function openPointer(
  pointer: ImagePointer,
  sizeBytes: number,
  pluginPath: string,
  allowed: AllowedPaths,
  cache: BlockCache,
  keys: KeyRing,
): ChainDisk {
  const { named, judge } = judged(pointer, pluginPath, allowed);
  const open = (): ChainDisk => {
    const imagePath = currentPathOf(named, pointer, judge);
    const disk = openChainDisk(imagePath, cache, judge, keys);
    try {
      const [newest] = disk.images;
      assert(newest !== undefined, 'a chain has no image');
      requireMeant(newest, pointer, pluginPath, sizeBytes);
      for (const image of disk.images) requireReadableByAuthors(image.path, pluginPath, allowed, image);
      return disk;
    } catch (error) {
      disk.close();
      throw error;
    }
  };
  return sourceGate().through(sourceOf(named, pluginPath), open, (disk) => disk.close());
}

/**
 * Has the folders of its images know of a plugin file: it may lie elsewhere than where it was made. What cannot be told, or would have to be
 * waited for, is let be: a guest waits for the read that this is a part of.
 * @param pluginPath absolute, and under no mount
 */
export function tellImageFolders(plugin: PluginFile, pluginPath: string, allowed: AllowedPaths): void {
  for (const image of imagesOf(plugin)) {
    try {
      const { named } = judged(image, pluginPath, allowed);
      sourceGate().through(sourceOf(named, pluginPath), () => registerPointers(pluginPath, [image], false));
    } catch (error) {
      if (sourceGate().passage !== 'passed') throw error;
    }
  }
}

/** @throws FormatError when it is another image than the pointer's */
function requireMeant(
  { path: imagePath, description }: Image,
  pointer: ImagePointer,
  pluginPath: string,
  sizeBytes?: number,
): void {
  const { imageId, chainId, sourceSizeBytes } = description;
  const isMeant = imageId === pointer.imageId && chainId === pointer.chainId;
  if (isMeant && (sizeBytes === undefined || sourceSizeBytes === sizeBytes)) return;
  throw new FormatError(
    pluginPath,
    'image',
    0,
    `${imagePath} is another image than the plugin file was made for; make it again`,
  );
}

/** An image that was renamed, or taken the place of by a consolidated one, is known by its identity. */
function currentPathOf(named: string, pointer: ImagePointer, judge: (image: string) => void): string {
  if (!isMissing(named) || !fs.existsSync(path.dirname(named))) return named;
  return findImage(path.dirname(named), pointer.imageId, judge) ?? named;
}

/** Whether nothing has this name: a link that leads nowhere has, and what no name can be is not missing. */
function isMissing(named: string): boolean {
  try {
    return fs.lstatSync(named, { throwIfNoEntry: false }) === undefined;
  } catch {
    return false;
  }
}

/**
 * An allowed folder is looked at only where its name alone does not tell, and the one that the pointer names first: one that does not answer
 * must not keep those from their images whose own does.
 * @param named where the pointer leads by its text
 * @returns the folder that the target lies in
 */
function requireInside(
  target: string,
  { folders }: AllowedPaths,
  named: string,
  pluginPath: string,
  pointer: string,
): string {
  const found = folders.find((folder) => isWithin(target, folder));
  if (found !== undefined) return found;
  const byName = [...folders].sort((a, b) => Number(isWithin(named, b)) - Number(isWithin(named, a)));
  for (const folder of byName) {
    const real = realFolder(folder);
    if (real !== undefined && isWithin(target, real)) return real;
  }
  throw new ForbiddenError(
    `${pluginPath}: points to ${JSON.stringify(pointer)}, outside the mounted folder; mount with --allow-path ${path.dirname(target)} if that is meant`,
  );
}

function isWithin(target: string, folder: string): boolean {
  return target === folder || target.startsWith(folder.endsWith('/') ? folder : `${folder}/`);
}

/** Without links. A folder that is away for the moment allows nothing, and costs the others nothing. */
function realFolder(folder: string): string | undefined {
  const gate = sourceGate();
  try {
    return gate.through(
      gate.sourceOf(() => sourceNameOf(folder, '/')),
      () => fs.realpathSync(folder),
    );
  } catch {
    return undefined;
  }
}

function realPath(target: string, pluginPath: string): string {
  try {
    return fs.realpathSync(target);
  } catch (error) {
    throw new UnavailableError(`${pluginPath}: ${target} is not there`, { cause: error, retryable: true });
  }
}
