/** Where the disk of a plugin file is to be seen: under a mount that there is already, or under one that is made for this and goes with it. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { FormatError, UsageError } from '../base/errors.ts';
import { absolutePath, temporaryFolder } from '../base/given-names.ts';
import type { ThreadKeys } from '../backup/crypto/key-ring.ts';
import { listRecords } from '../mounts/mount-record.ts';
import { defaultFillJobs } from '../fill/turns.ts';
import { defaultCacheBytes } from '../mount/memory-budget.ts';
import { defaultIdleMs, defaultWorkers, serveMount } from '../mount/serve.ts';
import { defaultSourceTimeoutMs } from '../base/source-watch.ts';
import { readPluginFile, type PluginFile, type WriteMode } from '../plugin/plugin-file.ts';

export interface ShownDisk {
  readonly plugin: PluginFile;
  /** In the folder behind the mount. */
  readonly pluginPath: string;
  /** Under the mount. */
  readonly path: string;
  readonly mountpoint: string;
  /** Whether the mount was made for this. */
  readonly isPrivate: boolean;
  /** Takes a private mount away; leaves any other alone. */
  close(): Promise<void>;
}

export interface ShowOptions {
  readonly allowPaths: readonly string[];
  /** Undefined: as the plugin file says. */
  readonly write: WriteMode | undefined;
  /** Of encrypted images. */
  readonly keys: ThreadKeys;
}

/**
 * @param given the plugin file, in its folder or under a mount
 * @throws UsageError when it is no plugin file, or a mount that there is already cannot be as asked
 */
export async function showDisk(given: string, options: ShowOptions): Promise<ShownDisk> {
  const mounts = listRecords();
  const absolute = absolutePath(given);
  const under = mounts.find(({ mountpoint }) => absolute.startsWith(`${mountpoint}/`));
  const pluginPath =
    under === undefined ? realPathOf(given) : path.join(under.folder, path.relative(under.mountpoint, absolute));
  const plugin = readPlugin(pluginPath, given);
  const mount = under ?? mounts.find(({ folder }) => pluginPath.startsWith(`${folder}/`));
  if (mount !== undefined) {
    if (options.write !== undefined || options.allowPaths.length > 0 || options.keys.credentials.length > 0) {
      throw new UsageError(
        `${given}: is mounted already at ${mount.mountpoint}, and --write, --allow-path and keys are for a mount of its own; unmount it first`,
      );
    }
    const shown = path.join(mount.mountpoint, path.relative(mount.folder, pluginPath));
    return {
      plugin,
      pluginPath,
      path: shown,
      mountpoint: mount.mountpoint,
      isPrivate: false,
      close: () => Promise.resolve(),
    };
  }
  return await mountFor(plugin, pluginPath, options);
}

async function mountFor(plugin: PluginFile, pluginPath: string, options: ShowOptions): Promise<ShownDisk> {
  const home = fs.mkdtempSync(path.join(temporaryFolder(), 'veneer-boot-'));
  const mountpoint = path.join(home, 'disks');
  try {
    fs.mkdirSync(mountpoint);
    const served = await serveMount(path.dirname(pluginPath), mountpoint, {
      allowPaths: options.allowPaths,
      // Whoever boots a machine has chosen its plugin file.
      trustPluginFiles: true,
      present: undefined,
      write: options.write,
      keys: options.keys,
      fill: false,
      fillBytesPerSecond: 0,
      fillJobs: defaultFillJobs,
      sourceTimeoutMs: defaultSourceTimeoutMs,
      cacheBytes: defaultCacheBytes,
      idleMs: defaultIdleMs,
      transport: 'auto',
      workers: defaultWorkers,
    });
    const close = async (): Promise<void> => {
      await served.stop();
      await served.ended;
      fs.rmdirSync(mountpoint);
      fs.rmdirSync(home);
    };
    const shown = path.join(mountpoint, path.basename(pluginPath));
    return { plugin, pluginPath, path: shown, mountpoint, isPrivate: true, close };
  } catch (error) {
    // Never a removal of what is inside: something may be mounted there.
    for (const folder of [mountpoint, home]) if (fs.existsSync(folder)) fs.rmdirSync(folder);
    throw error;
  }
}

function realPathOf(given: string): string {
  try {
    return fs.realpathSync(given);
  } catch (error) {
    throw new UsageError(`${given}: cannot be opened`, { cause: error });
  }
}

function readPlugin(pluginPath: string, given: string): PluginFile {
  try {
    return readPluginFile(pluginPath);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new UsageError(`${given}: is not a sound plugin file; make one with veneer plugin create`, { cause: error });
  }
}
