/**
 * Patch sets beside a plugin file, one for each target; the plugin file knows their SHA-256, which of them is in force, and whether they are
 * sealed.
 */
import { createHash } from 'node:crypto';
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { FormatError, IntegrityError, UnavailableError, UsageError } from '../base/errors.ts';
import { openRegular } from '../base/regular-file.ts';
import { suffixed } from '../base/suffixed.ts';
import type { ChainKey } from '../backup/crypto/seal.ts';
import { openVerified } from '../disk/verified.ts';
import { encodePatchSet, parsePatchSet, type PatchSet, type StoredPatchSet } from '../guest/patch-set.ts';
import type { Target } from '../guest/plan.ts';
import { sourceIdsOf, type PluginFile } from './plugin-file.ts';
import {
  isSealedPatchSet,
  maxSealedPatchSetBytes,
  openPatchSet,
  sealPatchSet,
  type PatchSetPlace,
} from './sealed-patch-set.ts';

export type DescribedPatchSet = NonNullable<PluginFile['patchSets']>[number];

export function patchSetPath(pluginPath: string, target: Target): string {
  return suffixed(pluginPath, `.patch-${target}`);
}

export function describePatchSet(pluginPath: string, target: Target, contents: Uint8Array): DescribedPatchSet {
  return {
    target,
    name: path.basename(patchSetPath(pluginPath, target)),
    sizeBytes: contents.length,
    sha256: hashOf(contents),
  };
}

/**
 * The file for a patch set, sealed or plain as the plugin file says.
 * @param key asked for only where it is sealed
 */
export function patchSetFile(plugin: PluginFile, set: PatchSet, key: () => ChainKey): Uint8Array {
  return isSealed(plugin) ? sealPatchSet(set, placeOf(plugin, set.target), key()) : encodePatchSet(set);
}

/**
 * The patch set in force; undefined where there is none. Its file is the caller's to close.
 * @param key asked for only where it is sealed
 * @throws UnavailableError when it is not there; IntegrityError when it is another than the plugin file was made with; FormatError; VeneerError
 *   (INTEGRITY) when a sealed one was changed; what `key` throws
 */
export function openPatchSetOf(
  plugin: PluginFile,
  pluginPath: string,
  key: () => ChainKey,
): StoredPatchSet | undefined {
  if (plugin.target === undefined) return undefined;
  const described = plugin.patchSets?.find(({ target }) => target === plugin.target);
  if (described === undefined)
    throw new UsageError(`${pluginPath}: has no patch set for ${plugin.target}; reconfigure it again`);
  const file = path.join(path.dirname(pluginPath), described.name);
  const contents = openVerified(
    openFile(file, described.sizeBytes),
    described.sizeBytes,
    described.sha256,
    `${file}: patch set of ${pluginPath}`,
  );
  try {
    if (isSealedPatchSet(contents) === isSealed(plugin))
      return isSealed(plugin)
        ? openPatchSet(contents, placeOf(plugin, plugin.target), key(), file)
        : parsePatchSet(contents, file);
    // Never silently the other: whoever has no key can make a plain one.
    const [is, should] = isSealed(plugin) ? ['plain', 'sealed'] : ['sealed', 'plain'];
    throw new FormatError(file, 'version', 8, `is ${is}, and the plugin file wants it ${should}; reconfigure again`);
  } catch (error) {
    contents.close();
    throw error;
  }
}

/** Whether the file beside the plugin file is the patch set that it describes. */
export function isPatchSetOf({ target, name, sizeBytes, sha256 }: DescribedPatchSet, pluginPath: string): boolean {
  const file = patchSetPath(pluginPath, target);
  if (name !== path.basename(file)) return false;
  try {
    openVerified(openFile(file, sizeBytes), sizeBytes, sha256, file).close();
    return true;
  } catch (error) {
    if (error instanceof UnavailableError || error instanceof IntegrityError) return false;
    throw error;
  }
}

function isSealed(plugin: PluginFile): boolean {
  return plugin.replacement === 'sealed';
}

function placeOf(plugin: PluginFile, target: Target): PatchSetPlace {
  return { target, pluginId: plugin.id, imageIds: sourceIdsOf(plugin) };
}

function openFile(file: string, sizeBytes: number): number {
  let fd: number;
  try {
    // A plugin file may name anything.
    fd = openRegular(file, fs.constants.O_RDONLY);
  } catch (error) {
    throw new UnavailableError(`${file}: the patch set cannot be opened; reconfigure again`, {
      cause: error,
      retryable: true,
    });
  }
  try {
    const stat = fs.fstatSync(fd);
    if (stat.size !== sizeBytes || sizeBytes > maxSealedPatchSetBytes)
      throw new UnavailableError(`${file}: is not the patch set of ${sizeBytes} bytes; reconfigure again`);
    return fd;
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

function hashOf(contents: Uint8Array): string {
  return createHash('sha256').update(contents).digest('hex');
}
