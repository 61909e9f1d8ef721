/** Where what is written to a native file is kept: told by its plugin file and the way in which writes are taken, with nothing looked at. */
import type * as fs from '../base/fs.ts';
import path from 'node:path';
import { namedGuid, type Guid } from '../bytes/guid.ts';
import type { NativeFile } from '../native/format.ts';
import { formatOf } from '../native/formats.ts';
import { discardedPathOf } from '../plugin/beside.ts';
import type { PluginFile, WriteMode } from '../plugin/plugin-file.ts';
import type { KeptFile } from './replacements.ts';

/** A plugin file, and what it makes. */
export interface KeptPlugin {
  readonly plugin: PluginFile;
  readonly pluginPath: string;
  readonly stat: fs.BigIntStats;
  readonly files: readonly NativeFile[];
}

/**
 * @param mode as the mount has it; undefined: as the plugin file says
 * @param mountId the mount that is to throw away at its end what is not kept
 * @returns undefined where nothing may be written
 */
export function keptFileOf(
  { plugin, pluginPath, stat, files }: KeptPlugin,
  file: NativeFile,
  mode: WriteMode | undefined,
  mountId: Guid,
): KeptFile | undefined {
  const how = mode ?? plugin.write ?? 'intercept';
  if (how === 'none') return undefined;
  const discard = how === 'discard';
  const filePath = path.join(path.dirname(pluginPath), file.name);
  return {
    place: {
      path: discard ? discardedPathOf(filePath) : filePath,
      pluginId: discard ? discardId(plugin.id, mountId) : plugin.id,
      baseBytes: file.map.sizeBytes,
      isSealed: plugin.replacement === 'sealed',
      owner: { uid: Number(stat.uid), mode: Number(stat.mode) },
    },
    pluginName: path.basename(pluginPath),
    fileName: file.name,
    index: files.indexOf(file),
    holdsName: formatOf(plugin.native.format).furtherFiles !== undefined,
    discard,
  };
}

/** By which a mount knows what it is to throw away of a plugin file. */
export function discardId(pluginId: Guid, mountId: Guid): Guid {
  return namedGuid(pluginId, `discarded by ${mountId}`);
}
