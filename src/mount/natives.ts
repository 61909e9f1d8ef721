/**
 * The native files of a mount: from a place to the synthesized file that it stands for, its state, and where its writes go. The filter
 * module asks here for all that is no ordinary file.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { UsageError } from '../base/errors.ts';
import { closeAll, type Closable } from '../base/ownership.ts';
import type { BlockCache } from '../backup/block-cache.ts';
import type { KeyRing, ThreadKeys } from '../backup/key-ring.ts';
import type { NativeFile } from '../native/format.ts';
import type { FormatName } from '../native/formats.ts';
import type { WriteMode } from '../plugin/plugin-file.ts';
import type { AllowedPaths } from '../plugin/resolve.ts';
import type { SynthesizedPlace } from '../plugin/synthesized.ts';
import { hasReplacement } from '../replacement/open.ts';
import type { Classifier, NativeSource } from './classify.ts';
import { NativeFileState, type Log, type NativeFileIdentity } from './native-file-state.ts';
import type { Place } from './place.ts';
import type { Replacements } from './replacements.ts';
import type { Statistics } from './statistics.ts';
import { systemError } from './system-error.ts';

/** Which native file a place stands for. */
export interface FoundNative {
  readonly source: NativeSource;
  readonly file: NativeFile;
}

type ReplacementIdentity = NonNullable<NativeFileIdentity['replacement']>;

/** One native file of a disk, as jobs see it. */
export interface NativeDiskFile {
  /** In `status` and messages. */
  readonly name: string;
  readonly replacement: ReplacementIdentity;
  readonly synthesized: SynthesizedPlace;
  isReplaced(): boolean;
}

/** A plugin file, and the native files that it makes: its own name's first. */
export interface NativeDisk {
  readonly name: string;
  readonly pluginPath: string;
  readonly files: readonly NativeDiskFile[];
}

export interface NativesContext {
  readonly allowed: AllowedPaths;
  /** Whether plugin files may point to what those who may write them may not read. */
  readonly trustsPluginFiles: boolean;
  /** Show every image as a native disk of this format. */
  readonly present: FormatName | undefined;
  /** What becomes of writes; undefined: what each plugin file says. */
  readonly write: WriteMode | undefined;
  readonly statistics: Statistics;
  readonly cache: BlockCache;
  readonly keys: KeyRing;
  /** The same, for threads of jobs. */
  readonly threadKeys: ThreadKeys;
  readonly log: Log;
  readonly replacements: Replacements;
  /** Called when an image was opened, which `closeIdle` is to close again. */
  readonly onImageOpened: () => void;
  readonly nameOf: (place: Place) => string;
}

/** What is thrown away at unmount is kept apart from what an earlier mount kept. */
export const discardSuffix = '.discard';

export class Natives implements Closable {
  readonly #context: NativesContext;
  readonly #classifier: Classifier;
  readonly #states = new Map<string, NativeFileState>();

  constructor(context: NativesContext, classifier: Classifier) {
    this.#context = context;
    this.#classifier = classifier;
  }

  /** @throws ENOENT when its file no longer makes a file of that name */
  find(place: Place, stat: fs.BigIntStats): FoundNative {
    const name = place.part === '' ? path.basename(place.path) : place.part;
    const found = this.#classifier.classify(place, stat);
    const { present, nameOf } = this.#context;
    let source: NativeSource | undefined;
    if (found.kind === 'plugin') source = found.source;
    else if (found.kind === 'image' && present !== undefined)
      source = this.#classifier.presented(place, stat, present, name);
    const file = source?.files.find((candidate) => candidate.name === name);
    if (source === undefined || file === undefined) throw systemError('ENOENT', 'open', nameOf(place));
    return { source, file };
  }

  /** @throws UsageError unless the place is a plugin file whose writes are kept */
  disk(place: Place, stat: fs.BigIntStats): NativeDisk {
    const name = this.#context.nameOf(place);
    const found = this.#classifier.classify(place, stat);
    if (found.kind !== 'plugin')
      throw new UsageError(`${name}: is not a plugin file; make one with: veneer plugin create`);
    const { source } = found;
    const files = source.files.map((file) => {
      const replacement = this.replacementOf(place, { source, file });
      if (replacement === undefined)
        throw new UsageError(`${name}: is read-only under this mount; mount with --write intercept to fill it`);
      return {
        name: path.join(path.dirname(name), file.name),
        replacement,
        synthesized: {
          plugin: source.plugin,
          pluginPath: place.path,
          fileName: file.name,
          allowed: this.#allowedFor(source),
          keys: this.#context.threadKeys,
        },
        isReplaced: () => hasReplacement(replacement.place.path),
      };
    });
    return { name, pluginPath: place.path, files };
  }

  stateOf(place: Place, native: FoundNative): NativeFileState {
    const { source, file } = native;
    const key = `${source.key}:${file.name}`;
    let state = this.#states.get(key);
    if (state === undefined) {
      const replacement = this.replacementOf(place, native);
      const name = this.#context.nameOf(place);
      const counters = this.#context.statistics.counters(name);
      if (counters.get('sizeBytes') === 0) counters.set('sizeBytes', file.map.sizeBytes);
      // Writes of an earlier mount.
      if (replacement !== undefined && hasReplacement(replacement.place.path)) counters.set('replaced', 1);
      const allowed = this.#allowedFor(source);
      const identity = { file, plugin: source.plugin, pluginPath: place.path, allowed, name, replacement };
      state = new NativeFileState(identity, counters, this.#context);
      this.#states.set(key, state);
    }
    state.lastUsedMs = performance.now();
    return state;
  }

  /** Where writes to a native file go; undefined where it is read-only: shown with no plugin file, or by the mode of writing. */
  replacementOf(place: Place, { source, file }: FoundNative): ReplacementIdentity | undefined {
    const mode = this.#context.write ?? source.plugin.write ?? 'intercept';
    if (source.isPresented || mode === 'none') return undefined;
    const discard = mode === 'discard';
    const filePath = path.join(path.dirname(place.path), file.name) + (discard ? discardSuffix : '');
    const { id } = source.plugin;
    return {
      key: `${id}:${source.files.indexOf(file)}:${mode}`,
      place: {
        path: filePath,
        pluginId: id,
        baseBytes: file.map.sizeBytes,
        isSealed: source.plugin.replacement === 'sealed',
      },
      discard,
    };
  }

  /** Where its pointers may lead: where root serves, and does not trust all plugin files, to what its authors may read. */
  #allowedFor({ ownership }: NativeSource): AllowedPaths {
    const { allowed, trustsPluginFiles } = this.#context;
    return trustsPluginFiles ? allowed : { ...allowed, ownership };
  }

  /** As Filter.closeIdle. */
  closeIdle(idleMs: number): number | undefined {
    const now = performance.now();
    let next: number | undefined;
    for (const [key, state] of this.#states) {
      const leftMs = idleMs - (now - state.lastUsedMs);
      if (leftMs > 0 && !state.servesAlone) {
        if (state.isImageOpen) next = Math.min(next ?? leftMs, leftMs);
        continue;
      }
      state.close();
      if (state.handles === 0 && leftMs <= 0) this.#states.delete(key);
    }
    return next;
  }

  close(): void {
    closeAll(this.#states.values());
    this.#states.clear();
  }
}
