/** VHD as a format of plugin files. */
import { z } from 'zod';
import type { NativeFormat } from '../format.ts';
import { guid, size, allocation } from '../schema.ts';
import { synthesizeVhdChild } from './differencing.ts';
import { virtualBytesOf, type VhdGeometry } from './layout.ts';
import { layouts, plan, synthesize } from './synthesize.ts';

const common = { format: z.literal('vhd'), sizeBytes: size, identity: guid };
const schema = z.discriminatedUnion('layout', [
  z.strictObject({ ...common, layout: z.literal('fixed'), virtualSizeBytes: size }),
  z.strictObject({ ...common, layout: z.literal('dynamic'), blockBytes: size, allocation }),
]);

export const vhd: NativeFormat<VhdGeometry> = {
  name: 'vhd',
  extensions: ['vhd', 'avhd'],
  layouts,
  wholeLayout: 'fixed',
  qemuName: 'vpc',
  // Hyper-V refuses files that look sparse.
  mayBeSparse: false,
  virtualBytes: virtualBytesOf,
  child: synthesizeVhdChild,
  schema,
  plan,
  synthesize,
};
