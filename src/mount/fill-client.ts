/** Asks about a plugin file's fill: of the process that has its folder mounted, or, where none has, of this one. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { absolutePath } from '../base/given-names.ts';
import type { ThreadKeys } from '../backup/key-ring.ts';
import { UsageError } from '../base/errors.ts';
import { askMount, type FillAction, type FillRequest } from '../mounts/control.ts';
import { listRecords, mountFiles } from '../mounts/mount-record.ts';
import type { Log } from '../base/log.ts';

export interface FillClient {
  /** Whether another process does the work, and goes on when this one ends. */
  readonly isMounted: boolean;
  ask(action: FillAction, more?: Partial<FillRequest>): Promise<unknown>;
  close(): Promise<void>;
}

/** Work that this process does for the answer takes as long as it takes. */
const noTimeout = 0;
const lookEveryMs = 500;

/**
 * @param file a plugin file: under a mount, or in the folder behind it
 * @param keys asked for only where this process reads the image itself
 * @throws UsageError where there is no such file
 */
export async function openFillClient(file: string, keys: () => Promise<ThreadKeys>, log: Log): Promise<FillClient> {
  const real = realPath(file);
  for (const record of listRecords()) {
    for (const folder of [record.mountpoint, record.folder]) {
      if (!real.startsWith(`${folder}/`)) continue;
      const name = path.relative(folder, real);
      return {
        isMounted: true,
        ask: async (action, more) =>
          await askMount(
            mountFiles(record.mountpoint).socket,
            { ...more, command: 'fill', action, file: name },
            noTimeout,
          ),
        close: () => Promise.resolve(),
      };
    }
  }
  // Only here is all the code needed that reads images.
  const { openUnmounted } = await import('./fill-requests.ts');
  const unmounted = await openUnmounted(real, await keys(), log);
  const looking = setInterval(() => unmounted.look(), lookEveryMs);
  return {
    isMounted: false,
    ask: async (action, more) =>
      await unmounted.answer({ ...more, command: 'fill', action, file: path.basename(real) }),
    async close() {
      clearInterval(looking);
      await unmounted.close();
    },
  };
}

function realPath(file: string): string {
  // A mount that is stuck is asked nothing.
  const absolute = absolutePath(file);
  if (listRecords().some(({ mountpoint }) => absolute.startsWith(`${mountpoint}/`))) return absolute;
  try {
    return path.join(fs.realpathSync(path.dirname(file)), path.basename(file));
  } catch {
    throw new UsageError(`${path.dirname(file)}: there is no such folder`);
  }
}
