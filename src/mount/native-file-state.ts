/**
 * A native file that is open or was lately: its segment map, its counters, and the image behind it, which is opened at the first read of
 * guest data and closed again when nobody has asked for any for a while.
 */
import { describeError, UnavailableError } from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';
import type { BlockCache } from '../backup/block-cache.ts';
import type { ChainDisk } from '../backup/chain.ts';
import type { Extent } from '../disk/disk.ts';
import type { NativeFile } from '../native/format.ts';
import type { PluginFile } from '../plugin/plugin-file.ts';
import { openPluginDisk, type AllowedPaths } from '../plugin/resolve.ts';
import type { Counters } from './statistics.ts';

/** Where something worth a log line goes. */
export type Log = (level: 'info' | 'warn' | 'error', message: string, data: Readonly<Record<string, unknown>>) => void;

export interface NativeFileContext {
  readonly allowed: AllowedPaths;
  readonly cache: BlockCache;
  readonly log: Log;
}

/** After an image could not be opened, reads fail at once for this long: a hypervisor that polls must not open it a thousand times a second. */
const retryAfterMs = 250;

export class NativeFileState implements Closable {
  readonly name: string;
  readonly sizeBytes: number;
  /** Handles open on it. */
  handles = 0;
  lastUsedMs = performance.now();
  readonly #file: NativeFile;
  readonly #plugin: PluginFile;
  readonly #pluginPath: string;
  readonly #context: NativeFileContext;
  readonly #counters: Counters;
  #disk: ChainDisk | undefined;
  #failure: { error: unknown; atMs: number } | undefined;
  readonly #openDisk = (): ChainDisk => this.#disk ?? this.#open();

  constructor(
    file: NativeFile,
    plugin: PluginFile,
    pluginPath: string,
    name: string,
    counters: Counters,
    context: NativeFileContext,
  ) {
    this.name = name;
    this.sizeBytes = file.map.sizeBytes;
    this.#file = file;
    this.#plugin = plugin;
    this.#pluginPath = pluginPath;
    this.#counters = counters;
    this.#context = context;
  }

  addHandle(): void {
    this.handles++;
    this.#counters.add('opens', 1);
    this.#counters.add('openNow', 1);
  }

  dropHandle(): void {
    this.handles--;
    this.#counters.add('openNow', -1);
  }

  /**
   * Reads what lies before the end of the file into the front of `target`.
   * @returns bytes read, less than asked for only at the end
   * @throws what the image throws: counted and logged here
   */
  read(target: Uint8Array, offset: number): number {
    const startMs = performance.now();
    const length = Math.max(0, Math.min(target.length, this.sizeBytes - offset));
    const hitsBefore = this.#disk?.cacheHits ?? 0;
    const missesBefore = this.#disk?.cacheMisses ?? 0;
    try {
      if (length > 0) this.#file.map.read(target.subarray(0, length), offset, this.#openDisk);
    } catch (error) {
      this.#counters.add('errors', 1);
      this.#context.log('error', `${this.name}: read of ${length} bytes at ${offset} failed: ${describeError(error)}`, {
        file: this.name,
        offset,
        length,
      });
      throw error;
    }
    this.lastUsedMs = performance.now();
    this.#counters.add('reads', 1);
    this.#counters.add('readBytes', length);
    if (this.#disk !== undefined) {
      this.#counters.add('cacheHits', this.#disk.cacheHits - hitsBefore);
      this.#counters.add('cacheMisses', this.#disk.cacheMisses - missesBefore);
    }
    this.#counters.addLatency((this.lastUsedMs - startMs) * 1000);
    return length;
  }

  /** The runs of the file, for SEEK_DATA and SEEK_HOLE. */
  extents(offset: number, length: number): Iterable<Extent> {
    return this.#file.map.extents(offset, length, this.#openDisk);
  }

  /** Closes the image; the next read of guest data opens it again. Idempotent. */
  close(): void {
    const disk = this.#disk;
    if (disk === undefined) return;
    this.#disk = undefined;
    this.#counters.add('imageOpenNow', -1);
    disk.close();
  }

  #open(): ChainDisk {
    const now = performance.now();
    if (this.#failure !== undefined && now - this.#failure.atMs < retryAfterMs) {
      throw new UnavailableError(`${this.name}: its image could not be opened a moment ago`, {
        cause: this.#failure.error,
      });
    }
    const { allowed, cache, log } = this.#context;
    try {
      this.#disk = openPluginDisk(this.#plugin, this.#pluginPath, allowed, cache);
    } catch (error) {
      this.#failure = { error, atMs: now };
      throw error;
    }
    this.#failure = undefined;
    this.#counters.add('imageOpens', 1);
    this.#counters.add('imageOpenNow', 1);
    log('info', `${this.name}: opened its image`, {
      images: this.#disk.images.length,
      ms: Math.round((performance.now() - now) * 10) / 10,
    });
    return this.#disk;
  }
}
