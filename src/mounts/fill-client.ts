/** Asks about a plugin file's fill: of the process that has its folder mounted, or, where none has, of this one. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { absolutePath } from '../base/given-names.ts';
import type { ThreadKeys } from '../backup/crypto/key-ring.ts';
import { UsageError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { FillRequestName } from '../fill/requests.ts';
import { askMount, type Answer, type Ask } from './control.ts';
import { listRecords, mountFiles } from './mount-record.ts';
import { takeFolder } from './served-folder.ts';

export interface FillClient {
  /** Whether another process does the work, and goes on when this one ends. */
  readonly isMounted: boolean;
  /** What to ask about. */
  readonly file: string;
  ask<N extends FillRequestName>(name: N, ask: Ask<N>): Promise<Answer<N>>;
  close(): Promise<void>;
}

/** Work that this process does for the answer takes as long as it takes. */
const noTimeout = 0;
const lookEveryMs = 500;

/**
 * @param file a plugin file: under a mount, or in the folder behind it
 * @param keys asked for only where this process reads the image itself
 * @throws UsageError where there is no such file, or a mount has its folder that is not this user's to speak with
 */
export async function openFillClient(file: string, keys: () => Promise<ThreadKeys>, log: Log): Promise<FillClient> {
  const real = realPath(file);
  for (const record of listRecords()) {
    for (const folder of [record.mountpoint, record.folder]) {
      if (!real.startsWith(`${folder}/`)) continue;
      const { socket } = mountFiles(record.mountpoint);
      return {
        isMounted: true,
        file: path.relative(folder, real),
        ask: async (name, ask) => await askMount(socket, name, ask, noTimeout),
        close: () => Promise.resolve(),
      };
    }
  }
  return await openHere(real, keys, log);
}

/** @param pluginPath in a folder that no process of this user has mounted */
async function openHere(pluginPath: string, keys: () => Promise<ThreadKeys>, log: Log): Promise<FillClient> {
  // Only here is all the code needed that reads images.
  const { openUnmountedFills } = await import('../fill/unmounted.ts');
  const asked = await keys();
  const folder = path.dirname(pluginPath);
  const taken = await takeFolder(folder, undefined);
  const fills = openUnmountedFills(folder, taken, asked, log);
  const answers: { readonly [N in FillRequestName]: (ask: Ask<N>) => Promise<Answer<N>> } = fills.answers;
  const looking = setInterval(() => fills.look(), lookEveryMs);
  return {
    isMounted: false,
    file: path.basename(pluginPath),
    ask: async (name, ask) => await answers[name](ask),
    async close() {
      clearInterval(looking);
      await fills.close();
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
