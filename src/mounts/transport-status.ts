/** What `status` tells of the threads that serve a mount. */
import { z } from 'zod';

export const transportStatusSchema = z.object({
  /** Threads that answer. */
  workers: z.number(),
  /** Workers that died and were replaced. */
  diedWorkers: z.number(),
  requests: z.number(),
  /** That wait for a source with too many threads inside. Absent from mounts of earlier versions. */
  waitingRequests: z.number().exactOptional(),
  /** Files and folders that are open under the mount. */
  openFiles: z.number(),
  /** Files that the kernel remembers, each of which is held open. */
  rememberedFiles: z.number(),
});
export type TransportStatus = z.infer<typeof transportStatusSchema>;
