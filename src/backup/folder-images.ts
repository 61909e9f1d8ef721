/** The images of a folder, and which of them are made on which. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { unfinishedSuffix } from '../base/durable.ts';
import { describeError, systemErrorCode, VeneerError } from '../base/errors.ts';
import { closing } from '../base/ownership.ts';
import type { Guid } from '../bytes/guid.ts';
import { Image } from './image.ts';
import { startsAsImage, type ImageDescription } from './image-description.ts';
import type { Source } from './provenance.ts';

export interface FolderImage {
  readonly path: string;
  readonly description: ImageDescription;
  /** The images that it was made from: itself, if it was not consolidated. */
  readonly sources: readonly Pick<Source, 'imageId' | 'sequence'>[];
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
    if (!entry.isFile() || entry.name.endsWith(unfinishedSuffix)) continue;
    const file = path.join(folder, entry.name);
    try {
      if (!isImageFile(file)) continue;
      using image = closing(Image.open(file));
      const { description } = image.value;
      if (chainId !== undefined && description.chainId !== chainId) continue;
      const sources = image.value.sources().map(({ imageId, sequence }) => ({ imageId, sequence }));
      images.push({ path: file, description, sources });
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
