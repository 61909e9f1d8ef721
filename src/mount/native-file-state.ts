/**
 * A native file that is open or was lately: its segment map, its counters, and the image behind it, which is opened at the first read of
 * guest data and closed again when nobody has asked for any for a while.
 */
import { AssertionError, describeError, ForbiddenError, ReadOnlyError, UnavailableError } from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';
import type { BlockCache } from '../backup/block-cache.ts';
import type { KeyRing } from '../backup/key-ring.ts';
import type { Extent } from '../disk/disk.ts';
import type { NativeFile } from '../native/format.ts';
import type { PluginFile } from '../plugin/plugin-file.ts';
import { openPluginDisk, sealingKey, type AllowedPaths, type PluginDisk } from '../plugin/resolve.ts';
import { hasReplacement, type ReplacementPlace } from '../replacement/open.ts';
import { Replacement, type DirectFile } from '../replacement/replacement.ts';
import type { Replacements } from './replacements.ts';
import type { Counters } from './statistics.ts';

/** Where something worth a log line goes. */
export type Log = (level: 'info' | 'warn' | 'error', message: string, data: Readonly<Record<string, unknown>>) => void;

export interface NativeFileContext {
  readonly cache: BlockCache;
  readonly keys: KeyRing;
  readonly log: Log;
  readonly replacements: Replacements;
  /** Called when an image was opened, which `closeIdle` is to close again. */
  readonly onImageOpened: () => void;
}

/** Which native file it is, and what may be done to it. */
export interface NativeFileIdentity {
  readonly file: NativeFile;
  readonly plugin: PluginFile;
  readonly pluginPath: string;
  readonly allowed: AllowedPaths;
  /** Its name in `status` and messages. */
  readonly name: string;
  /** Where its replacement lies, and a key that does not change with its name; undefined where it cannot be written. */
  readonly replacement:
    { readonly key: string; readonly place: ReplacementPlace; readonly discard: boolean } | undefined;
}

/** After an image could not be opened, reads fail at once for this long: a hypervisor that polls must not open it a thousand times a second. */
const retryAfterMs = 250;
const oneByte = new Uint8Array(1);

export class NativeFileState implements Closable {
  readonly name: string;
  /** Handles of this thread that are open on it. */
  handles = 0;
  lastUsedMs = performance.now();
  readonly #file: NativeFile;
  readonly #identity: NativeFileIdentity;
  readonly #context: NativeFileContext;
  readonly counters: Counters;
  #disk: PluginDisk | undefined;
  #replacement: Replacement | undefined;
  #failure: { error: unknown; atMs: number } | undefined;
  readonly #openDisk = (): PluginDisk => this.#disk ?? this.#open();

  constructor(identity: NativeFileIdentity, counters: Counters, context: NativeFileContext) {
    this.name = identity.name;
    this.#identity = identity;
    this.#file = identity.file;
    this.counters = counters;
    this.#context = context;
  }

  /** As the guest sees it: writes may have made it longer or shorter. */
  get sizeBytes(): number {
    return this.#replaced()?.sizeBytes ?? this.#file.map.sizeBytes;
  }

  /**
   * Reads what lies before the end of the file into the front of `target`.
   * @returns bytes read, less than asked for only at the end
   * @throws what the image throws: counted and logged here
   */
  read(target: Uint8Array, offset: number): number {
    const startMs = performance.now();
    let length = Math.max(0, Math.min(target.length, this.#file.map.sizeBytes - offset));
    const hitsBefore = this.#disk?.cacheHits ?? 0;
    const missesBefore = this.#disk?.cacheMisses ?? 0;
    try {
      const replacement = this.#replaced();
      if (this.#disk !== undefined && this.servesAlone) this.close();
      if (replacement !== undefined) length = replacement.read(target, offset);
      else if (length > 0) this.#file.map.read(target.subarray(0, length), offset, this.#openDisk);
    } catch (error) {
      this.counters.add('errors', 1);
      this.#context.log('error', `${this.name}: read of ${length} bytes at ${offset} failed: ${describeError(error)}`, {
        file: this.name,
        offset,
        length,
      });
      throw error;
    }
    this.lastUsedMs = performance.now();
    this.counters.add('reads', 1);
    this.counters.add('readBytes', length);
    if (this.#disk !== undefined) {
      this.counters.add('cacheHits', this.#disk.cacheHits - hitsBefore);
      this.counters.add('cacheMisses', this.#disk.cacheMisses - missesBefore);
    }
    this.counters.addLatency((this.lastUsedMs - startMs) * 1000);
    return length;
  }

  /**
   * Has the block at `offset` inflated and kept, if it is one that takes inflating. What goes wrong is left to the reads that follow.
   * @returns the offset to go on with; undefined where nothing is gained by going on
   */
  prepare(offset: number): number | undefined {
    const stepBytes = this.#disk?.inflatedBlockBytes;
    if (stepBytes === undefined || offset >= this.#file.map.sizeBytes) return undefined;
    try {
      const replacement = this.#replaced();
      if (replacement !== undefined) replacement.read(oneByte, offset);
      else this.#file.map.read(oneByte, offset, this.#openDisk);
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      return undefined;
    }
    return offset + stepBytes;
  }

  /**
   * Writes all of source to the replacement, which the first write makes.
   * @returns bytes written
   * @throws ReadOnlyError; whatever the replacement throws
   */
  write(source: Uint8Array, offset: number): number {
    this.#change(`write of ${source.length} bytes at ${offset}`, (replacement) => replacement.write(source, offset));
    this.counters.add('writes', 1);
    this.counters.add('writtenBytes', source.length);
    return source.length;
  }

  truncate(sizeBytes: number): void {
    this.#change(`truncation to ${sizeBytes} bytes`, (replacement) => replacement.truncate(sizeBytes));
    this.counters.set('sizeBytes', sizeBytes);
  }

  /** Makes it at least so long. */
  growTo(sizeBytes: number): void {
    if (sizeBytes <= this.sizeBytes) return;
    this.#change(`growth to ${sizeBytes} bytes`, (replacement) => replacement.growTo(sizeBytes));
    this.counters.set('sizeBytes', this.sizeBytes);
  }

  /** Makes a range inside the file read as zeros. */
  discard(offset: number, lengthBytes: number): void {
    this.#change(`discard of ${lengthBytes} bytes at ${offset}`, (replacement) =>
      replacement.discard(offset, lengthBytes),
    );
  }

  /** The real file, where it serves alone: for a transport that lets the kernel read and write it by itself. */
  get directFile(): DirectFile | undefined {
    const replacement = this.#replaced();
    return replacement?.servesAlone === true ? replacement.directFile : undefined;
  }

  /** Whether bytes may have changed that no write here told of: what the kernel keeps of them may be stale. */
  get isWrittenDirectly(): boolean {
    return this.#replacement?.isWrittenDirectly === true;
  }

  /** Everything acknowledged is on disk when it returns. */
  sync(): void {
    if (this.#replaced() !== undefined) this.#change('flush', (replacement) => replacement.sync());
  }

  /** The runs of the file, for SEEK_DATA and SEEK_HOLE: what was written counts as data. */
  *extents(offset: number, length: number): Generator<Extent> {
    const replacement = this.#replaced();
    if (replacement === undefined) {
      yield* this.#file.map.extents(offset, length, this.#openDisk);
      return;
    }
    if (replacement.servesAlone) {
      yield* replacement.dataExtents(offset, length);
      return;
    }
    for (const run of replacement.runs(offset, length)) {
      if (run.written) yield { offset: run.offset, length: run.length, kind: 'data' };
      else yield* this.#baseExtents(run.offset, run.length);
    }
  }

  /** Whether the image is not needed any more. */
  get servesAlone(): boolean {
    return this.#replacement?.servesAlone === true;
  }

  get isImageOpen(): boolean {
    return this.#disk !== undefined;
  }

  /** Closes the image; the next read of guest data opens it again. Idempotent. */
  close(): void {
    const disk = this.#disk;
    if (disk === undefined) return;
    this.#disk = undefined;
    this.counters.add('imageOpenNow', -1);
    disk.close();
  }

  /** What the synthesized file has, and zeros past its end. */
  *#baseExtents(offset: number, length: number): Generator<Extent> {
    const inBase = Math.max(0, Math.min(length, this.#file.map.sizeBytes - offset));
    if (inBase > 0) yield* this.#file.map.extents(offset, inBase, this.#openDisk);
    if (inBase < length) yield { offset: offset + inBase, length: length - inBase, kind: 'zero' };
  }

  #change(what: string, action: (replacement: Replacement) => void): void {
    try {
      action(this.#replaced() ?? this.#replace());
    } catch (error) {
      this.counters.add('errors', 1);
      this.#context.log('error', `${this.name}: ${what} failed: ${describeError(error)}`, { file: this.name });
      throw error;
    }
    this.lastUsedMs = performance.now();
  }

  /** The replacement, where there is one: of an earlier mount, made by this thread, or by another. */
  #replaced(): Replacement | undefined {
    if (this.#replacement !== undefined) return this.#replacement;
    const { replacement } = this.#identity;
    // A file that is discarded at unmount is not taken over from an earlier mount: only this one can have made it.
    if (replacement === undefined || this.counters.get('replaced') === 0) return undefined;
    return hasReplacement(replacement.place.path) ? this.#replace() : undefined;
  }

  #replace(): Replacement {
    const { replacement } = this.#identity;
    if (replacement === undefined) throw new ReadOnlyError(`${this.name}: is read-only under this mount`);
    const { plugin, pluginPath, allowed } = this.#identity;
    const { keys, replacements } = this.#context;
    const parts = replacements.acquire(replacement.key, replacement.place, replacement.discard, () =>
      sealingKey(plugin, pluginPath, allowed, keys).toThread(),
    );
    this.#replacement = new Replacement(parts, {
      sizeBytes: this.#file.map.sizeBytes,
      read: (target, offset) => this.#file.map.read(target, offset, this.#openDisk),
    });
    this.counters.set('replaced', 1);
    return this.#replacement;
  }

  #open(): PluginDisk {
    const now = performance.now();
    if (this.#failure !== undefined && now - this.#failure.atMs < retryAfterMs) {
      // A key that is missing is missing the second time, too.
      if (this.#failure.error instanceof ForbiddenError) throw this.#failure.error;
      throw new UnavailableError(`${this.name}: its image could not be opened a moment ago`, {
        cause: this.#failure.error,
      });
    }
    const { plugin, pluginPath, allowed } = this.#identity;
    const { cache, keys, log, onImageOpened } = this.#context;
    try {
      this.#disk = openPluginDisk(plugin, pluginPath, allowed, cache, keys);
    } catch (error) {
      this.#failure = { error, atMs: now };
      throw error;
    }
    this.#failure = undefined;
    onImageOpened();
    this.counters.add('imageOpens', 1);
    this.counters.add('imageOpenNow', 1);
    log('info', `${this.name}: opened its image`, {
      images: this.#disk.imageCount,
      ms: Math.round((performance.now() - now) * 10) / 10,
    });
    return this.#disk;
  }
}
