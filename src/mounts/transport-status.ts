/** What `status` tells of the threads that serve a mount. */
export interface TransportStatus {
  /** Threads that answer. */
  readonly workers: number;
  /** Workers that died and were replaced. */
  readonly diedWorkers: number;
  readonly requests: number;
  /** That wait for a source with too many threads inside. Absent from mounts of earlier versions. */
  readonly waitingRequests?: number;
  /** Files and folders that are open under the mount. */
  readonly openFiles: number;
  /** Files that the kernel remembers, each of which is held open. */
  readonly rememberedFiles: number;
}
