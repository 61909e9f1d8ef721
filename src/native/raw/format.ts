/** The bytes of the disk themselves as a format of plugin files. */
import { z } from 'zod';
import type { NativeFormat } from '../format.ts';
import { size } from '../schema.ts';
import type { RawGeometry } from './layout.ts';
import { layouts, plan, synthesize } from './synthesize.ts';

const schema = z.strictObject({ format: z.literal('raw'), layout: z.enum(layouts), sizeBytes: size });

export const raw: NativeFormat<RawGeometry> = {
  name: 'raw',
  extensions: ['raw', 'img'],
  layouts,
  wholeLayout: 'flat',
  qemuName: 'raw',
  mayBeSparse: true,
  schema,
  plan,
  synthesize,
};
