/** VMDK as a format of plugin files. */
import { z } from 'zod';
import type { NativeFormat } from '../format.ts';
import { guid, size, allocation } from '../schema.ts';
import { synthesizeDelta } from './differencing.ts';
import type { VmdkGeometry } from './layout.ts';
import { describedBy, layouts, plan, synthesize } from './synthesize.ts';

const common = { format: z.literal('vmdk'), sizeBytes: size, identity: guid };
const schema = z.discriminatedUnion('layout', [
  z.strictObject({ ...common, layout: z.literal('flat') }),
  z.strictObject({ ...common, layout: z.literal('sparse'), grainBytes: size, allocation }),
]);

export const vmdk: NativeFormat<VmdkGeometry> = {
  name: 'vmdk',
  extensions: ['vmdk'],
  layouts,
  wholeLayout: 'flat',
  qemuName: 'vmdk',
  mayBeSparse: true,
  furtherFiles: { describedBy },
  child: synthesizeDelta,
  schema,
  plan,
  synthesize,
};
