/**
 * The native files of a mount: from a place to the synthesized file that it stands for, its state, and where its writes go. The filter
 * module asks here for all that is no ordinary file.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { FormatError, ReadOnlyError } from '../base/errors.ts';
import { closeAll, type Closable } from '../base/ownership.ts';
import { lengthBytes, maxNameBytes } from '../base/suffixed.ts';
import type { Guid } from '../bytes/guid.ts';
import type { BlockCache } from '../backup/read/block-cache.ts';
import type { KeyRing, ThreadKeys } from '../backup/crypto/key-ring.ts';
import type { NativeFile } from '../native/format.ts';
import type { FormatName } from '../native/formats.ts';
import { discardedPathOf, hasReplacement, mapPathOf } from '../plugin/beside.ts';
import type { WriteMode } from '../plugin/plugin-file.ts';
import { OpenPlugin } from '../plugin/open-plugin.ts';
import type { AllowedPaths } from '../plugin/reach.ts';
import { isKept, mayBeMap, peekHeader, requireNotRenamed } from '../replacement/beside.ts';
import type { RemovedPlace } from '../replacement/open.ts';
import { fillableOf, notFillable, type Fillable } from '../fill/fillable.ts';
import { markOf } from '../replacement/disk-signals.ts';
import { discardId, keptFileOf } from '../replacement/kept-file.ts';
import { requireOneName } from '../replacement/plugin-home.ts';
import type { KeptFile, Replacements } from '../replacement/replacements.ts';
import type { Statistics } from '../fill/statistics.ts';
import { systemError } from '../base/system-error.ts';
import type { Log } from '../base/log.ts';
import type { Classifier, NativeSource } from './classify.ts';
import { NativeFileState } from './native-file-state.ts';
import type { Place } from './place.ts';

/** Which native file a place stands for. */
export interface FoundNative {
  readonly source: NativeSource;
  readonly file: NativeFile;
  /** Of the plugin file. */
  readonly stat: fs.BigIntStats;
}

export interface NativesContext {
  readonly allowed: () => AllowedPaths;
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
  /** This very mount: what it is to throw away at its end is known by it. */
  readonly mountId: Guid;
  readonly folder: () => string;
  /** Called when an image was opened, which `closeIdle` is to close again. */
  readonly onImageOpened: () => void;
  readonly nameOf: (place: Place) => string;
}

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
    return { source, file, stat };
  }

  /** @throws UsageError unless the place is a plugin file whose writes are kept; FormatError where it is damaged */
  disk(place: Place, stat: fs.BigIntStats): Fillable {
    const { nameOf, write, mountId, threadKeys } = this.#context;
    const name = nameOf(place);
    const found = this.#classifier.classify(place, stat);
    if (found.kind === 'broken plugin') throw found.error;
    if (found.kind !== 'plugin') throw notFillable(name);
    const { plugin, files } = found.source;
    const allowed = (): AllowedPaths => this.#allowedFor(found.source);
    return fillableOf({ plugin, pluginPath: place.path, stat, files }, name, {
      write,
      mountId,
      allowed,
      keys: threadKeys,
    });
  }

  /**
   * Whether it may be opened: what was written to it is its own, and can be kept.
   * @throws ReadOnlyError, SeveralNamesError; FormatError, ForbiddenError, UnavailableError when what lies beside it must not be used
   */
  requireSound(place: Place, native: FoundNative, forWriting: boolean): void {
    const kept = this.replacementOf(place, native);
    const name = this.#context.nameOf(place);
    if (kept === undefined) {
      if (forWriting) throw new ReadOnlyError(`${name}: is read-only under this mount`);
      return;
    }
    const pluginPath = place.path;
    requireOneName(native.stat, path.dirname(pluginPath), path.basename(pluginPath), name);
    if (lengthBytes(native.file.name) > maxNameBytes)
      throw new FormatError(name, 'name', 0, 'is longer than a name may be; give its plugin file a shorter one');
    if (!kept.discard && !isKept(kept.place)) requireNotRenamed(kept.place);
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
      const mark = markOf(native.stat);
      const { isPresented } = source;
      const pluginAt = (pluginPath: string): OpenPlugin => this.#openPlugin(source, pluginPath);
      const identity = { file, pluginAt, pluginPath: place.path, mark, name, isPresented, replacement };
      state = new NativeFileState(identity, counters, this.#context);
      this.#states.set(key, state);
    }
    state.lastUsedMs = performance.now();
    return state;
  }

  /** Where writes to a native file go; undefined where it is read-only: shown with no plugin file, or by the mode of writing. */
  replacementOf(place: Place, { source, file, stat }: FoundNative): KeptFile | undefined {
    if (source.isPresented) return undefined;
    const { write, mountId } = this.#context;
    const { plugin, files } = source;
    return keptFileOf({ plugin, pluginPath: place.path, stat, files }, file, write, mountId);
  }

  /**
   * What lies beside a plugin file and is its own, of this mount or an earlier one; what cannot be read may be.
   * @param place by its name
   */
  keptBeside(place: Place, source: NativeSource): RemovedPlace[] {
    const [folderAt, folder] = [path.dirname(place.at), path.dirname(place.path)];
    const names = source.files.flatMap(({ name }) => [name, discardedPathOf(name)]);
    const ids: readonly string[] = [source.plugin.id, discardId(source.plugin.id, this.#context.mountId)];
    return names
      .map((name) => ({ path: path.join(folder, name), at: `${folderAt}/${name}` }))
      .filter(({ at }) => {
        if (!hasReplacement(at) || !mayBeMap(mapPathOf(at))) return false;
        const header = peekHeader(at);
        return header === undefined || ids.includes(header.pluginId);
      });
  }

  #openPlugin(source: NativeSource, pluginPath: string): OpenPlugin {
    const { keys, cache } = this.#context;
    return new OpenPlugin(source.plugin, pluginPath, { allowed: this.#allowedFor(source), keys, cache });
  }

  /** Where its pointers may lead: where root serves, and does not trust all plugin files, to what its authors may read. */
  #allowedFor({ ownership }: NativeSource): AllowedPaths {
    const allowed = this.#context.allowed();
    return this.#context.trustsPluginFiles ? allowed : { ...allowed, ownership };
  }

  /** As Filter.closeIdle. */
  closeIdle(idleMs: number): number | undefined {
    const now = performance.now();
    let next: number | undefined;
    for (const [key, state] of this.#states) {
      const leftMs = state.holdsImage ? idleMs : idleMs - (now - state.lastUsedMs);
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
