/** VHDX as a format of plugin files. */
import { z } from 'zod';
import type { NativeFormat } from '../format.ts';
import { guid, size, allocation } from '../schema.ts';
import { synthesizeVhdxChild } from './differencing.ts';
import { blocksOf, type VhdxGeometry } from './layout.ts';
import { layouts, plan, synthesize } from './synthesize.ts';

const schema = z.strictObject({
  format: z.literal('vhdx'),
  layout: z.enum(layouts),
  sizeBytes: size,
  logicalSectorBytes: size,
  physicalSectorBytes: size,
  payloadBlockBytes: size,
  fileWriteGuid: guid,
  dataWriteGuid: guid,
  virtualDiskId: guid,
  allocation: allocation.exactOptional(),
});

export const vhdx: NativeFormat<VhdxGeometry> = {
  name: 'vhdx',
  extensions: ['vhdx', 'avhdx'],
  layouts,
  wholeLayout: 'fixed',
  qemuName: 'vhdx',
  // Hyper-V refuses files that look sparse.
  mayBeSparse: false,
  virtualBytes: (geometry) => blocksOf(geometry).virtualBytes,
  child: synthesizeVhdxChild,
  schema,
  plan,
  synthesize,
};
