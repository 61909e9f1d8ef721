/**
 * A disk that is made around volumes, as a plugin file holds it: the geometry of `bootable/`, the images of the volumes, and the boot file.
 * What the geometry means is checked where the disk is assembled; here it is only kept small and of the right kind.
 */
import { z } from 'zod';
import { mayBeName } from '../base/names.ts';
import {
  configBytes,
  firmwares,
  maxBootFileBytes,
  maxVolumes,
  partitionStyles,
  partitionTypeNames,
  type BootableGeometry,
} from '../bootable/geometry.ts';
import { bootCodeBytes, sectorBytes } from '../volume/table-layout.ts';
import { guid, size } from '../native/schema.ts';
import { imagePointer, sha256, type ImagePointer } from '../source/address.ts';

/** Of a file beside the plugin file. */
export const plainName = z
  .string()
  .regex(/^[^/]{1,255}$/, 'is not a plain file name')
  .refine(mayBeName, 'cannot be a file name');

const maxEfiFiles = 16;
const maxPatches = 16;
const maxPatchChars = 1024;

const sectors = size.multipleOf(sectorBytes);
const base64 = z.base64();
const range = { offsetBytes: size, lengthBytes: z.number().int().positive().max(maxBootFileBytes) };

/** A geometry, and the files that it takes bytes from. */
export interface Bootable extends BootableGeometry {
  /** Of the volumes behind the first. */
  readonly furtherImages: readonly ImagePointer[];
  /** Beside the plugin file; it holds what of GRUB is on the disk. */
  readonly bootFile?: { readonly name: string; readonly sizeBytes: number; readonly sha256: string };
}

export const bootableSchema: z.ZodType<Bootable> = z
  .strictObject({
    style: z.enum(partitionStyles),
    firmware: z.enum(firmwares),
    sizeBytes: sectors.min(sectorBytes),
    diskSignature: z
      .number()
      .int()
      .nonnegative()
      .max(2 ** 32 - 1),
    diskGuid: guid,
    bootCodeBase64: base64.max(4 * Math.ceil(bootCodeBytes / 3)).exactOptional(),
    core: z.strictObject({ ...range, startBytes: sectors }).exactOptional(),
    config: z.string().max(configBytes).exactOptional(),
    efiFiles: z
      .array(
        z.strictObject({
          path: z.string().regex(/^(\/[A-Z0-9_-]{1,8}(\.[A-Z0-9_-]{1,3})?){1,8}$/, 'is not a path of 8.3 names'),
          from: z.union([z.literal('config'), z.strictObject(range)]),
        }),
      )
      .max(maxEfiFiles)
      .exactOptional(),
    partitions: z
      .array(
        z.strictObject({
          type: z.enum(partitionTypeNames),
          startBytes: sectors,
          sizeBytes: sectors.min(sectorBytes),
          guid,
          active: z.boolean(),
          volume: z
            .number()
            .int()
            .min(0)
            .max(maxVolumes - 1)
            .exactOptional(),
        }),
      )
      .max(maxVolumes + 1),
    volumes: z
      .array(
        z.strictObject({
          sizeBytes: size,
          patches: z.array(z.strictObject({ offset: size, base64: base64.max(maxPatchChars) })).max(maxPatches),
        }),
      )
      .min(1)
      .max(maxVolumes),
    room: z.strictObject({ startBytes: sectors, sizeBytes: sectors }).exactOptional(),
    furtherImages: z.array(imagePointer).max(maxVolumes - 1),
    bootFile: z
      .strictObject({
        name: plainName,
        sizeBytes: z.number().int().positive().max(maxBootFileBytes),
        sha256,
      })
      .exactOptional(),
  })
  .refine((bootable) => bootable.volumes.length === 1 + bootable.furtherImages.length, {
    path: ['furtherImages'],
    message: 'are not as many as the volumes behind the first',
  });
