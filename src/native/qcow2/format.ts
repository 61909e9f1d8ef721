/** qcow2 as a format of plugin files, and for changes over any other. */
import { z } from 'zod';
import type { NativeFormat } from '../format.ts';
import { size, allocation } from '../schema.ts';
import { synthesizeOverlay } from './differencing.ts';
import type { Qcow2Geometry } from './layout.ts';
import { layouts, plan, synthesize } from './synthesize.ts';

const common = { format: z.literal('qcow2'), sizeBytes: size, clusterBytes: size };
const schema = z.discriminatedUnion('layout', [
  z.strictObject({ ...common, layout: z.literal('full') }),
  z.strictObject({ ...common, layout: z.literal('compact'), allocation }),
]);

export const qcow2: NativeFormat<Qcow2Geometry> = {
  name: 'qcow2',
  extensions: ['qcow2'],
  layouts,
  wholeLayout: 'full',
  qemuName: 'qcow2',
  mayBeSparse: true,
  overlay: synthesizeOverlay,
  schema,
  plan,
  synthesize,
};
