/** What a transport is to whoever serves a mount over it. */
import type * as fs from '../base/fs.ts';
import type { Placing } from '../replacement/finalize.ts';

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

export interface ServingTransport {
  /** Of a file that the mount shows: who has it open, and what the kernel knows of it, goes on with the disk file. */
  readonly place: Placing;
  /** Resolves when no thread is at a request any more that it began before: false when one does not come to its end. */
  settled(): Promise<boolean>;
  readonly name: 'kernel' | 'fuse-native';
  /** Undefined where the transport cannot tell. */
  status(): TransportStatus | undefined;
  /** Whether somebody has a native file open whose plugin file this is. */
  isOpen(stat: fs.BigIntStats): boolean;
  /** Called twice a second: closes what is idle. False when it cannot serve any more. */
  look(): boolean;
  /** Called more often: keeps serving while threads are stuck. */
  lookAtSources(): void;
  /** After the mount is gone: ends its threads and closes what it holds. @returns whether all threads have ended: others end with the process */
  close(): Promise<boolean>;
}
