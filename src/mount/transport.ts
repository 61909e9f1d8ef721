/** What a transport is to whoever serves a mount over it. */
import type * as fs from '../base/fs.ts';
import type { Mounted } from '../fill/fills.ts';
import type { TransportStatus } from '../mounts/transport-status.ts';

export interface ServingTransport extends Mounted {
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
