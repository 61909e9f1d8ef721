/** The images of a folder, and which of them are made on which; and the folders of a tree that hold images. */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import { isUnfinishedName } from '../../base/durable.ts';
import { describeError, systemErrorCode, VeneerError } from '../../base/errors.ts';
import { foldersFrom } from '../../base/folder-tree.ts';
import { closing } from '../../base/ownership.ts';
import type { Guid } from '../../bytes/guid.ts';
import { startsAsImage, type ImageDescription } from '../format/image-description.ts';
import { superblock } from '../format/layout.ts';
import type { Source } from '../format/provenance.ts';
import { Image } from './image.ts';

/** The last moment that a date can be. */
const maxTimeMs = 8_640_000_000_000_000n;

export interface FolderSource extends Pick<Source, 'imageId' | 'sequence'> {
  /** As the image said it, which may have had a wrong clock. */
  readonly createdAt: Date;
}

export interface FolderImage {
  readonly path: string;
  readonly description: ImageDescription;
  /** The images that it was made from: itself, if it was not consolidated. */
  readonly sources: readonly FolderSource[];
}

export interface FolderImages {
  readonly images: readonly FolderImage[];
  /** Files that claim to be images and cannot be opened, and why. */
  readonly damaged: readonly { readonly path: string; readonly reason: string }[];
}

/** @param chainId only those of this chain */
export function listImages(folder: string, chainId?: Guid): FolderImages {
  const images: FolderImage[] = [];
  const damaged: { path: string; reason: string }[] = [];
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isFile() || isUnfinishedName(entry.name)) continue;
    const file = path.join(folder, entry.name);
    try {
      if (!isImageFile(file)) continue;
      using image = closing(Image.open(file));
      const { description } = image.value;
      if (chainId !== undefined && description.chainId !== chainId) continue;
      images.push({ path: file, description, sources: sourcesOf(image.value) });
    } catch (error) {
      const code = systemErrorCode(error);
      if (!(error instanceof VeneerError) && code === undefined) throw error;
      // Gone since.
      if (code === 'ENOENT') continue;
      damaged.push({ path: file, reason: describeError(error) });
    }
  }
  return { images: images.sort((a, b) => (a.path < b.path ? -1 : 1)), damaged };
}

/** Folders from this one down in which a file claims to be an image. @param isSkipped as `foldersFrom` */
export function imageFolders(folder: string, isSkipped: (folder: string) => boolean): string[] {
  return [...foldersFrom(folder, isSkipped)].filter(holdsImages);
}

function holdsImages(folder: string): boolean {
  return fs
    .readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isFile() && !isUnfinishedName(entry.name))
    .some((entry) => mayBeImage(path.join(folder, entry.name)));
}

/** What cannot be read may be one. */
function mayBeImage(file: string): boolean {
  try {
    return isImageFile(file);
  } catch {
    return true;
  }
}

function sourcesOf(image: Image): FolderSource[] {
  return image.sources().map(({ imageId, sequence, superblockOffset }) => {
    const time = new Uint8Array(8);
    image.readRaw(time, superblockOffset + superblock.offsetOf('createdAtMs'));
    const ms = Buffer.from(time.buffer).readBigUInt64LE(0);
    return { imageId, sequence, createdAt: new Date(Number(ms < maxTimeMs ? ms : maxTimeMs)) };
  });
}

/** Whether a file says that it is an image; false for what cannot be read. */
export function isImageFile(file: string): boolean {
  const fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  try {
    const first = new Uint8Array(8);
    return fs.readSync(fd, first, 0, first.length, 0) === first.length && startsAsImage(first);
  } finally {
    fs.closeSync(fd);
  }
}
