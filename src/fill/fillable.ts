/** A disk that can be filled: a plugin file, found once, and the native files that it makes. */
import type * as fs from '../base/fs.ts';
import path from 'node:path';
import { UsageError } from '../base/errors.ts';
import type { ThreadKeys } from '../backup/crypto/key-ring.ts';
import type { Guid } from '../bytes/guid.ts';
import type { WriteMode } from '../plugin/plugin-file.ts';
import type { AllowedPaths } from '../plugin/reach.ts';
import type { SynthesizedPlace } from '../plugin/synthesized.ts';
import { isKept } from '../replacement/beside.ts';
import { keptFileOf, type KeptPlugin } from '../replacement/kept-file.ts';
import { requireOneName } from '../replacement/plugin-home.ts';
import type { KeptFile } from '../replacement/replacements.ts';

/** One native file of a disk, as jobs see it. */
export interface FillableFile {
  /** In `status` and messages. */
  readonly name: string;
  readonly replacement: KeptFile;
  /** As the folder is called by now. */
  synthesized(): SynthesizedPlace;
  isReplaced(): boolean;
}

/** A plugin file, and the native files that it makes: its own name's first. */
export interface Fillable {
  readonly name: string;
  readonly pluginPath: string;
  /** Of the plugin file that it was found to be. */
  readonly stat: fs.BigIntStats;
  readonly files: readonly FillableFile[];
}

/** How the disks of a folder are read and written. */
export interface FillableContext {
  /** What becomes of writes; undefined: what each plugin file says. */
  readonly write: WriteMode | undefined;
  readonly mountId: Guid;
  /** Where the plugin file's pointers may lead: asked anew, since the folder may be moved. */
  allowed(): AllowedPaths;
  readonly keys: ThreadKeys;
}

/**
 * @param name in `status` and messages
 * @throws UsageError where its writes are refused; SeveralNamesError
 */
export function fillableOf(found: KeptPlugin, name: string, context: FillableContext): Fillable {
  const { plugin, pluginPath, stat } = found;
  const files = found.files.map((file) => {
    const replacement = keptFileOf(found, file, context.write, context.mountId);
    if (replacement === undefined)
      throw new UsageError(`${name}: is read-only under this mount; mount with --write intercept to fill it`);
    return {
      name: path.join(path.dirname(name), file.name),
      replacement,
      synthesized: () => ({
        plugin,
        pluginPath,
        fileName: file.name,
        allowed: context.allowed(),
        keys: context.keys,
      }),
      isReplaced: () => isKept(replacement.place),
    };
  });
  requireOneName(stat, path.dirname(pluginPath), path.basename(pluginPath), name);
  return { name, pluginPath, stat, files };
}

/** Of a file that stands for no disk. */
export function notFillable(name: string): UsageError {
  return new UsageError(`${name}: is not a plugin file; make one with: veneer plugin create`);
}
