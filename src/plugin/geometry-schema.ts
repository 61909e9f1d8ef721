/** The geometries of all native formats as zod schemas: a plugin file comes from outside. What a geometry means is its format's room to check. */
import { z } from 'zod';
import type { Geometry } from '../native/formats.ts';
import { guid, size } from '../source/address.ts';

const allocation = z.string();

const vhdx = z.strictObject({
  format: z.literal('vhdx'),
  layout: z.enum(['fixed', 'dynamic']),
  sizeBytes: size,
  logicalSectorBytes: size,
  physicalSectorBytes: size,
  payloadBlockBytes: size,
  fileWriteGuid: guid,
  dataWriteGuid: guid,
  virtualDiskId: guid,
  allocation: allocation.exactOptional(),
});

const vhdCommon = { format: z.literal('vhd'), sizeBytes: size, identity: guid };
const vhd = z.discriminatedUnion('layout', [
  z.strictObject({ ...vhdCommon, layout: z.literal('fixed'), virtualSizeBytes: size }),
  z.strictObject({ ...vhdCommon, layout: z.literal('dynamic'), blockBytes: size, allocation }),
]);

const vmdkCommon = { format: z.literal('vmdk'), sizeBytes: size, identity: guid };
const vmdk = z.discriminatedUnion('layout', [
  z.strictObject({ ...vmdkCommon, layout: z.literal('flat') }),
  z.strictObject({ ...vmdkCommon, layout: z.literal('sparse'), grainBytes: size, allocation }),
]);

const vdiCommon = { format: z.literal('vdi'), sizeBytes: size, identity: guid };
const vdi = z.discriminatedUnion('layout', [
  z.strictObject({ ...vdiCommon, layout: z.literal('static') }),
  z.strictObject({ ...vdiCommon, layout: z.literal('dynamic'), allocation }),
]);

const qcow2Common = { format: z.literal('qcow2'), sizeBytes: size, clusterBytes: size };
const qcow2 = z.discriminatedUnion('layout', [
  z.strictObject({ ...qcow2Common, layout: z.literal('full') }),
  z.strictObject({ ...qcow2Common, layout: z.literal('compact'), allocation }),
]);

const raw = z.strictObject({ format: z.literal('raw'), layout: z.literal('flat'), sizeBytes: size });

export const geometrySchema: z.ZodType<Geometry> = z.discriminatedUnion('format', [vhdx, vhd, vmdk, vdi, qcow2, raw]);
