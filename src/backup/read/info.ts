/** What `image info` tells of an image and its chain. */
import path from 'node:path';
import { closeAll } from '../../base/ownership.ts';
import type { ImageDescription } from '../format/image-description.ts';
import { openChain } from './chain.ts';

export interface ChainDescription {
  /** Of the disk as of the newest image. */
  readonly diskBytes: number;
  /** Records of all images. */
  readonly storedBytes: number;
  /** Newest first. */
  readonly images: readonly (Omit<ImageDescription, 'createdAt'> & {
    readonly file: string;
    readonly createdAt: string;
  })[];
}

/** @throws as openChain does */
export function describeChain(newest: string): ChainDescription {
  const images = openChain(newest);
  try {
    return {
      diskBytes: images[0]?.description.sourceSizeBytes ?? 0,
      storedBytes: images.reduce((sum, image) => sum + image.description.storedBytes, 0),
      images: images.map((image) => ({
        file: path.basename(image.path),
        ...image.description,
        createdAt: image.description.createdAt.toISOString(),
      })),
    };
  } finally {
    closeAll(images);
  }
}
