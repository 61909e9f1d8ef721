/** What a mount tells of itself, to `status`. */
import { z } from 'zod';
import type { SourceStatus } from '../base/source-watch.ts';
import { fillStatusSchema } from '../fill/fill-status.ts';
import { fileStatisticsSchema } from '../fill/statistics.ts';
import { mountRecordSchema } from './mount-record.ts';
import { transportStatusSchema } from './transport-status.ts';

const sourceStatusSchema = z.object({
  source: z.string(),
  sinceMs: z.number(),
  /** That are inside it, or were given up there and are not back. */
  threads: z.number(),
}) satisfies z.ZodType<SourceStatus>;

export const mountStatusSchema = mountRecordSchema.extend({
  /** What the transport tells of itself, where it can. */
  serving: transportStatusSchema.optional(),
  cacheBudgetBytes: z.number(),
  residentBytes: z.number(),
  log: z.string(),
  /** `reason`: why what is read of a file fails or takes long, where its source does not answer. */
  files: z.array(fileStatisticsSchema.extend({ reason: z.string().exactOptional() })),
  /** Those that do not answer. Absent from mounts of earlier versions. */
  sources: z.array(sourceStatusSchema).exactOptional(),
  /** Absent from mounts of earlier versions. */
  fills: z.array(fillStatusSchema).exactOptional(),
});
export type MountStatus = z.infer<typeof mountStatusSchema>;
