/**
 * Where the bytes of a disk come from. Plain values: they lie in plugin files, and go to other threads.
 *
 *   chain  an image and its parents, by their identities
 *   file   a native disk file as it was when this was written: held to its state, since it has no identity that changes with its bytes
 */
import { z } from 'zod';
import { mayBeName } from '../base/names.ts';
import { guid, size } from '../native/schema.ts';
import { sourceFormatNames } from './formats.ts';

export const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'is not a SHA-256 in lower case');

/** From the plugin file's folder; with forward slashes. */
const relativePath = z.string().min(1).refine(mayBeName, 'cannot be a path');

/** Of the newest image of a chain. */
export const imagePointer = z.strictObject({
  path: relativePath,
  imageId: guid,
  chainId: guid,
  createdAt: z.iso.datetime(),
});
export type ImagePointer = z.infer<typeof imagePointer>;

const chainAddress = z.strictObject({ kind: z.literal('chain'), ...imagePointer.shape });

const fileAddress = z.strictObject({
  kind: z.literal('file'),
  path: relativePath,
  /** What it is read as. Default: what its name and its content say together. */
  format: z.enum(sourceFormatNames).exactOptional(),
  /** Of the file itself, where it has parents, extents or parts. */
  sizeBytes: size,
  /** Its time of change in nanoseconds since 1970, in decimal digits. */
  modifiedNs: z.string().regex(/^-?\d{1,20}$/, 'is not a number of nanoseconds'),
  /** Of the state of all files that it is read from; see frozen-source.ts. */
  stateSha256: sha256,
});
export type FileAddress = z.infer<typeof fileAddress>;

export const sourceAddress = z.discriminatedUnion('kind', [chainAddress, fileAddress]);
export type SourceAddress = z.infer<typeof sourceAddress>;
