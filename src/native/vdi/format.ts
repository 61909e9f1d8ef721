/** VDI as a format of plugin files. A differencing VDI is opened by VirtualBox alone, which makes its own. */
import { z } from 'zod';
import type { NativeFormat } from '../format.ts';
import { guid, size, allocation } from '../schema.ts';
import type { VdiGeometry } from './layout.ts';
import { layouts, plan, synthesize } from './synthesize.ts';

const common = { format: z.literal('vdi'), sizeBytes: size, identity: guid };
const schema = z.discriminatedUnion('layout', [
  z.strictObject({ ...common, layout: z.literal('static') }),
  z.strictObject({ ...common, layout: z.literal('dynamic'), allocation }),
]);

export const vdi: NativeFormat<VdiGeometry> = {
  name: 'vdi',
  extensions: ['vdi'],
  layouts,
  wholeLayout: 'static',
  qemuName: 'vdi',
  mayBeSparse: true,
  schema,
  plan,
  synthesize,
};
