/**
 * A plugin file as one has it open: what it says, where it lies, how far its pointers may lead, and what its images are read with. From here its
 * disk is opened, and all else that needs more than its text.
 *
 * Making one costs nothing and opens nothing. It does not look at the plugin file again: what it says is what was read once.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { assert, FormatError, UnsupportedError, type UnavailableError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { closeAll, closing } from '../base/ownership.ts';
import { sourceGate } from '../base/source-gate.ts';
import type { BlockCache } from '../backup/read/block-cache.ts';
import { findImage, openChainDisk, type ChainDisk } from '../backup/read/chain.ts';
import { Image } from '../backup/read/image.ts';
import { KeyRing } from '../backup/crypto/key-ring.ts';
import type { ChainKey } from '../backup/crypto/seal.ts';
import { assembleBootable, type BootExtras } from '../bootable/assemble.ts';
import type { Disk } from '../disk/disk.ts';
import { applyPatchSet, type StoredPatchSet } from '../guest/patch-set.ts';
import type { NativeFile } from '../native/format.ts';
import { synthesizeFiles } from '../native/formats.ts';
import type { FileAddress, ImagePointer, SourceAddress } from '../source/address.ts';
import { changedError, FrozenSource, type FileJudge } from '../source/frozen-source.ts';
import { readBootFile } from './boot-file.ts';
import { openPatchSetOf } from './patch-set-file.ts';
import { pluginDisk, type OpenedSource, type PluginDisk } from './plugin-disk.ts';
import { imagesOf, pointersOf, sourceIdsOf, sourcesOf, type PluginFile } from './plugin-file.ts';
import { registerPointers } from './pointer-registry.ts';
import { Reach, type AllowedPaths } from './reach.ts';

/** What a plugin file is opened with. */
export interface PluginContext {
  readonly allowed: AllowedPaths;
  /** Of encrypted images. Default: none. */
  readonly keys?: KeyRing;
  /** For blocks of its images. Default: a small one for each chain. */
  readonly cache?: BlockCache;
}

export class OpenPlugin {
  readonly plugin: PluginFile;
  readonly path: string;
  readonly #context: PluginContext;
  readonly #keys: KeyRing;
  readonly #reach: Reach;

  /**
   * @param pluginPath where it lies, or has lain: its pointers begin in that folder
   * @param context default: nothing may be followed, for who asks only its text
   */
  constructor(plugin: PluginFile, pluginPath: string, context: PluginContext = { allowed: { folders: [] } }) {
    this.plugin = plugin;
    this.path = pluginPath;
    this.#context = context;
    this.#keys = context.keys ?? new KeyRing();
    this.#reach = new Reach(pluginPath, context.allowed);
  }

  /** The same with other contents, as they may be written to its place. */
  with(plugin: PluginFile): OpenPlugin {
    return new OpenPlugin(plugin, this.path, this.#context);
  }

  /** The same without the patch set in force: its disk reads as the images have it. */
  withoutTarget(): OpenPlugin {
    const { target, ...plain } = this.plugin;
    return target === undefined ? this : this.with(plain);
  }

  /** The native files that it makes, and none of their bytes. */
  get files(): readonly NativeFile[] {
    return synthesizeFiles(this.plugin.native, path.basename(this.path));
  }

  /** Where these would lie beside it; what a guest writes to one is kept beside that. */
  get nativePaths(): string[] {
    return this.files.map(({ name }) => path.join(path.dirname(this.path), name));
  }

  /** Of the first of what it points to (source-gate.ts); 0 where nobody watches sources. */
  get firstSource(): number {
    return this.#reach.sourceOf(absolutePath(path.dirname(this.path), this.plugin.source.path));
  }

  /**
   * Judges all pointers by their text alone: what they lead to need not be there.
   * @throws ForbiddenError when one leads outside
   */
  judgePointers(): void {
    for (const pointer of sourcesOf(this.plugin)) this.#reach.named(pointer.path);
  }

  /**
   * Opens the disk. Every image of every chain, and every file of a disk file, is judged before anything of it is read, by where symbolic links
   * lead. Encrypted images open without their keys, but for a sealed patch set over them.
   * @throws ForbiddenError, UnavailableError, FormatError when an image is another than the plugin file was made for; UnavailableError when a disk
   *   file has changed since
   */
  openDisk(): PluginDisk {
    const { bootable } = this.plugin;
    const sources: OpenedSource[] = [];
    let patchSet: StoredPatchSet | undefined;
    try {
      for (const [index, source] of sourcesOf(this.plugin).entries())
        sources.push(this.#openSource(source, this.#sizeOf(index)));
      this.#requireBesideReadable();
      patchSet = this.openPatchSet();
      const plain = sources.map(({ disk }) => disk);
      const disks = patchSet === undefined ? plain : this.#patched(patchSet, plain);
      const disk =
        bootable === undefined
          ? disks[0]
          : assembleBootable(bootable, disks, readBootFile(bootable, this.path), extrasOf(patchSet));
      assert(disk !== undefined, 'a plugin file points to nothing');
      return pluginDisk(disk, sources, filesOf(patchSet));
    } catch (error) {
      closeAll([...sources, ...filesOf(patchSet)]);
      throw error;
    }
  }

  /**
   * Opens the chain of the image that it points to, of a disk around volumes that of the first.
   * @throws as openDisk; UnsupportedError where it points to a disk file
   */
  openImage(): ChainDisk {
    const { source, disk } = this.plugin;
    if (source.kind === 'chain') return this.#openChain(source, disk.sizeBytes);
    throw new UnsupportedError(`${this.path}: stands for a disk file, and no image is behind it`);
  }

  /** The patch set in force, whose file is the caller's to close; undefined where there is none. @throws as openPatchSetOf */
  openPatchSet(): StoredPatchSet | undefined {
    return openPatchSetOf(this.plugin, this.path, () => this.sealingKey());
  }

  /**
   * The key that what is written to the disk, and what is made of its guest, is sealed with: of its first encrypted image's chain. One that is
   * at hand needs no image.
   * @throws ForbiddenError when there is none; UnavailableError when there is neither a key nor the image that could be opened for it
   */
  sealingKey(): ChainKey {
    for (const pointer of imagesOf(this.plugin)) {
      const key = this.#keys.ofChain(pointer.chainId) ?? this.#keyOf(pointer);
      if (key !== undefined) return key;
    }
    throw new FormatError(this.path, 'replacement', 0, 'is to be sealed, but none of its images is encrypted');
  }

  /**
   * Has the folders of its sources know of the plugin file: it may lie elsewhere than where it was made. What cannot be told, or would have to be
   * waited for, is let be: a guest waits for the read that this is a part of. Its path is absolute then, and under no mount.
   */
  tellSourceFolders(): void {
    for (const pointer of pointersOf(this.plugin)) {
      try {
        const named = this.#reach.named(pointer.path);
        sourceGate().through(this.#reach.sourceOf(named), () => registerPointers(this.path, [pointer], false));
      } catch (error) {
        if (sourceGate().passage !== 'passed') throw error;
      }
    }
  }

  #sizeOf(index: number): number {
    const { bootable, disk } = this.plugin;
    return bootable === undefined ? disk.sizeBytes : (bootable.volumes[index]?.sizeBytes ?? 0);
  }

  #openSource(source: SourceAddress, sizeBytes: number): OpenedSource {
    if (source.kind === 'file') {
      const file = this.#openFile(source, sizeBytes);
      return { disk: file.disk, count: file.fileCount, close: () => file.close() };
    }
    const chain = this.#openChain(source, sizeBytes);
    return { disk: chain, chain, count: chain.images.length, close: () => chain.close() };
  }

  #openFile(address: FileAddress, sizeBytes: number): FrozenSource {
    const named = this.#reach.named(address.path);
    const open = (): FrozenSource => {
      const real = this.#reach.judge(named, named);
      const file = FrozenSource.open(real, address.format, this.#fileJudge(address, real, named));
      try {
        if (file.state().stateSha256 === address.stateSha256 && file.disk.sizeBytes === sizeBytes) return file;
        throw this.#changed(file.fileCount === 1 ? named : `${named} or one of its files`);
      } catch (error) {
        file.close();
        throw error;
      }
    };
    return sourceGate().through(this.#reach.sourceOf(named), open, (file) => file.close());
  }

  /** @param real the disk file itself, whose state is asked first: what has become of its content says less */
  #fileJudge({ sizeBytes, modifiedNs }: FileAddress, real: string, named: string): FileJudge {
    return {
      before: (file) => void this.#reach.judge(file, named),
      after: (file, stat) => {
        if (file === real && (Number(stat.size) !== sizeBytes || String(stat.mtimeNs) !== modifiedNs))
          throw this.#changed(named);
        this.#reach.requireReadableByAuthors(file, ({ dev, ino }) => dev === stat.dev && ino === stat.ino);
      },
    };
  }

  #changed(file: string): UnavailableError {
    return changedError(`${this.path}: ${file}`, 'the plugin file was made');
  }

  #openChain(pointer: ImagePointer, sizeBytes: number): ChainDisk {
    const named = this.#reach.named(pointer.path);
    const judge = (image: string): void => void this.#reach.judge(image, named);
    const open = (): ChainDisk => {
      const disk = openChainDisk(currentPathOf(named, pointer, judge), this.#context.cache, judge, this.#keys);
      try {
        const [newest] = disk.images;
        assert(newest !== undefined, 'a chain has no image');
        this.#requireMeant(newest, pointer, sizeBytes);
        for (const image of disk.images) this.#reach.requireReadableByAuthors(image.path, (stat) => image.isFile(stat));
        return disk;
      } catch (error) {
        disk.close();
        throw error;
      }
    };
    return sourceGate().through(this.#reach.sourceOf(named), open, (disk) => disk.close());
  }

  /** Undefined where the image is not encrypted. */
  #keyOf(pointer: ImagePointer): ChainKey | undefined {
    const named = this.#reach.named(pointer.path);
    const judge = (image: string): void => void this.#reach.judge(image, named);
    return sourceGate().through(this.#reach.sourceOf(named), () => {
      const imagePath = currentPathOf(named, pointer, judge);
      judge(imagePath);
      using image = closing(Image.open(imagePath));
      this.#requireMeant(image.value, pointer);
      this.#reach.requireReadableByAuthors(imagePath, (stat) => image.value.isFile(stat));
      return image.value.description.sealed ? this.#keys.require(image.value) : undefined;
    });
  }

  /** @throws FormatError when it is another image than the pointer's */
  #requireMeant({ path: imagePath, description }: Image, pointer: ImagePointer, sizeBytes?: number): void {
    const { imageId, chainId, sourceSizeBytes } = description;
    const isMeant = imageId === pointer.imageId && chainId === pointer.chainId;
    if (isMeant && (sizeBytes === undefined || sourceSizeBytes === sizeBytes)) return;
    throw new FormatError(
      this.path,
      'image',
      0,
      `${imagePath} is another image than the plugin file was made for; make it again`,
    );
  }

  /** The files that go with it: the patch set in force, the boot file. They are read whole, and known by their hashes. */
  #requireBesideReadable(): void {
    const { patchSets, target, bootable } = this.plugin;
    const patchSet = patchSets?.find((described) => described.target === target)?.name;
    for (const name of [patchSet, bootable?.bootFile?.name])
      if (name !== undefined) this.#reach.requireReadableByAuthors(path.join(path.dirname(this.path), name));
  }

  #patched(patchSet: StoredPatchSet, disks: readonly Disk[]): readonly Disk[] {
    return applyPatchSet(patchSet, disks, sourceIdsOf(this.plugin), `${this.path}: patch set for ${patchSet.target}`);
  }
}

function filesOf(patchSet: StoredPatchSet | undefined): readonly Disk[] {
  return patchSet === undefined ? [] : [patchSet.file];
}

function extrasOf(patchSet: StoredPatchSet | undefined): BootExtras {
  return {
    ...(patchSet?.bootConfig === undefined ? {} : { config: patchSet.bootConfig }),
    ...(patchSet?.initramfs === undefined ? {} : { initramfs: patchSet.initramfs }),
  };
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
