/** A disk that can be filled: a plugin file, found once, and the native files that it makes. */
import type * as fs from '../base/fs.ts';
import type { SynthesizedPlace } from '../plugin/synthesized.ts';
import type { KeptFile } from '../replacement/replacements.ts';

/** One native file of a disk, as jobs see it. */
export interface NativeDiskFile {
  /** In `status` and messages. */
  readonly name: string;
  readonly replacement: KeptFile;
  readonly synthesized: SynthesizedPlace;
  isReplaced(): boolean;
}

/** A plugin file, and the native files that it makes: its own name's first. */
export interface NativeDisk {
  readonly name: string;
  readonly pluginPath: string;
  /** Of the plugin file that it was found to be. */
  readonly stat: fs.BigIntStats;
  readonly files: readonly NativeDiskFile[];
}
