/** Images as `image info` and `chain list` tell of them to programs. */
import { z } from 'zod';
import type { FolderImages } from '../backup/read/folder-images.ts';
import type { ImageDescription } from '../backup/format/image-description.ts';
import { codecs, imageContents, imageKinds } from '../backup/format/layout.ts';
import type { Told } from './output.ts';

const imageSchema = z.object({
  kind: z.enum(imageKinds),
  content: z.enum(imageContents),
  codec: z.enum(codecs),
  chainId: z.string(),
  imageId: z.string(),
  /** Absent of a full image, and of a consolidated one of a whole chain. */
  parent: z.object({ imageId: z.string(), name: z.string(), commitHash: z.string() }).optional(),
  sequence: z.number(),
  blockBytes: z.number(),
  logicalSectorBytes: z.number(),
  physicalSectorBytes: z.number(),
  sourceSizeBytes: z.number(),
  visibleBytes: z.number(),
  createdAt: z.string(),
  sealed: z.boolean(),
  fileSizeBytes: z.number(),
  dataBlocks: z.number(),
  zeroBlocks: z.number(),
  discardedBlocks: z.number(),
  storedBytes: z.number(),
  commitHash: z.string(),
  lineageHash: z.string(),
});

/** `image info`: the newest image first. */
export const imageInfoSchema = z.object({
  diskBytes: z.number(),
  storedBytes: z.number(),
  images: z.array(z.object({ file: z.string(), ...imageSchema.shape })),
});

/** `chain list`: what is damaged is told apart. */
export const chainListSchema = z.object({
  images: z.array(
    z.object({
      path: z.string(),
      description: imageSchema,
      sources: z.array(z.object({ imageId: z.string(), sequence: z.number(), createdAt: z.string() })),
    }),
  ),
  damaged: z.array(z.object({ path: z.string(), reason: z.string() })),
});

export function chainListJson({ images, damaged }: FolderImages): Told<z.input<typeof chainListSchema>> {
  return {
    images: images.map(({ path, description, sources }) => ({
      path,
      description: timed<ImageDescription>(description),
      sources: sources.map(timed),
    })),
    damaged,
  };
}

/** With its time as JSON has it. */
function timed<T extends { readonly createdAt: Date }>(value: T): Omit<T, 'createdAt'> & { createdAt: string } {
  return { ...value, createdAt: value.createdAt.toISOString() };
}
