/**
 * A native file that is open or was lately: its segment map, its counters, and the image behind it, which is opened at the first read of
 * guest data and closed again when nobody has asked for any for a while.
 */
import path from 'node:path';
import {
  assert,
  AssertionError,
  describeError,
  ForbiddenError,
  ReadOnlyError,
  SeveralNamesError,
  UnavailableError,
} from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Closable } from '../base/ownership.ts';
import { sourceGate } from '../base/source-gate.ts';
import type { Extent } from '../disk/disk.ts';
import type { NativeFile } from '../native/format.ts';
import type { OpenPlugin } from '../plugin/open-plugin.ts';
import type { PluginDisk } from '../plugin/plugin-disk.ts';
import { isKept, isOwnKept } from '../replacement/beside.ts';
import { Replacement, type DirectFile, type SharedReplacement } from '../replacement/replacement.ts';
import { currentPath } from '../base/open-path.ts';
import { PluginHome } from '../replacement/plugin-home.ts';
import { placeIn, type KeptFile, type Replacements } from '../replacement/replacements.ts';
import type { Counters } from '../fill/statistics.ts';

export interface NativeFileContext {
  readonly log: Log;
  readonly replacements: Replacements;
  /** The folder that is served, as it is called now. */
  readonly folder: () => string;
  /** Called when an image was opened, which `closeIdle` is to close again. */
  readonly onImageOpened: () => void;
}

/** Which native file it is, and what may be done to it. */
export interface NativeFileIdentity {
  readonly file: NativeFile;
  /** What the plugin file was called when it was opened. */
  readonly pluginPath: string;
  /** The plugin file in its place. Asked anew each time: the mounted folder may be moved. */
  readonly pluginAt: (pluginPath: string) => OpenPlugin;
  /** What threads tell each other of the plugin file by; see DiskSignals. */
  readonly mark: number;
  /** Its name in `status` and messages. */
  readonly name: string;
  /** Shown with no plugin file. */
  readonly isPresented: boolean;
  /** Undefined where it cannot be written. */
  readonly replacement: KeptFile | undefined;
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
  /** How much the threads had told each other when no replacement was found last. */
  #lookedAt = -1;
  /** Of the plugin file, while something is done that a handle on it asked for: it leads there, whatever becomes of names. */
  #pluginFd = -1;
  #failure: { error: unknown; atMs: number } | undefined;
  readonly #openDisk = (): PluginDisk => this.#disk ?? this.#open();

  constructor(identity: NativeFileIdentity, counters: Counters, context: NativeFileContext) {
    this.name = identity.name;
    this.#identity = identity;
    this.#file = identity.file;
    this.counters = counters;
    this.#context = context;
  }

  /** Whether its image stays open, and so in its place, as long as somebody has the file open: no plugin file tells that it is needed. */
  get holdsImage(): boolean {
    return this.#identity.isPresented && this.handles > 0;
  }

  /** Which of the plugin file's files it is: '' for the one that has its name. */
  get part(): string {
    return this.#file.name === path.basename(this.#identity.pluginPath) ? '' : this.#file.name;
  }

  /**
   * As the guest sees it: writes may have made it longer or shorter.
   * @param pluginFd here and below: any descriptor of the plugin file, of the handle that asks
   */
  sizeBytes(pluginFd: number): number {
    return this.#replaced(pluginFd)?.sizeBytes ?? this.#file.map.sizeBytes;
  }

  /**
   * Reads what lies before the end of the file into the front of `target`.
   * @returns bytes read, less than asked for only at the end
   * @throws what the image throws: counted and logged here
   */
  read(target: Uint8Array, offset: number, pluginFd: number): number {
    const startMs = performance.now();
    let length = Math.max(0, Math.min(target.length, this.#file.map.sizeBytes - offset));
    const hitsBefore = this.#disk?.cacheHits ?? 0;
    const missesBefore = this.#disk?.cacheMisses ?? 0;
    try {
      const replacement = this.#replaced(pluginFd);
      if (this.#disk !== undefined && this.servesAlone) this.close();
      if (replacement !== undefined) length = replacement.read(target, offset);
      else if (length > 0) this.#file.map.read(target.subarray(0, length), offset, this.#openDisk);
    } catch (error) {
      const why = `read of ${length} bytes at ${offset} failed: ${describeError(error)}`;
      this.#tellFailure(why, { offset, length });
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
  prepare(offset: number, pluginFd: number): number | undefined {
    const stepBytes = this.#disk?.inflatedBlockBytes;
    if (stepBytes === undefined || offset >= this.#file.map.sizeBytes) return undefined;
    try {
      const replacement = this.#replaced(pluginFd);
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
  write(source: Uint8Array, offset: number, pluginFd: number): number {
    this.#change(pluginFd, `write of ${source.length} bytes at ${offset}`, (replacement) =>
      replacement.write(source, offset),
    );
    this.counters.add('writes', 1);
    this.counters.add('writtenBytes', source.length);
    return source.length;
  }

  truncate(sizeBytes: number, pluginFd: number): void {
    this.#change(pluginFd, `truncation to ${sizeBytes} bytes`, (replacement) => replacement.truncate(sizeBytes));
    this.counters.set('sizeBytes', sizeBytes);
  }

  /** Makes it at least so long. */
  growTo(sizeBytes: number, pluginFd: number): void {
    if (sizeBytes <= this.sizeBytes(pluginFd)) return;
    this.#change(pluginFd, `growth to ${sizeBytes} bytes`, (replacement) => replacement.growTo(sizeBytes));
    this.counters.set('sizeBytes', this.sizeBytes(pluginFd));
  }

  /** Makes a range inside the file read as zeros. */
  discard(offset: number, lengthBytes: number, pluginFd: number): void {
    this.#change(pluginFd, `discard of ${lengthBytes} bytes at ${offset}`, (replacement) =>
      replacement.discard(offset, lengthBytes),
    );
  }

  /** The real file, where it serves alone: for a transport that lets the kernel read and write it by itself. */
  directFile(pluginFd: number): DirectFile | undefined {
    const replacement = this.#replaced(pluginFd);
    return replacement?.servesAlone === true ? replacement.directFile : undefined;
  }

  /** Whether bytes may have changed that no write here told of: what the kernel keeps of them may be stale. */
  get isWrittenDirectly(): boolean {
    return this.#replacement?.isWrittenDirectly === true;
  }

  /** Everything acknowledged is on disk when it returns. */
  sync(pluginFd: number): void {
    if (this.#replaced(pluginFd) !== undefined) this.#change(pluginFd, 'flush', (replacement) => replacement.sync());
  }

  /** The runs of the file, for SEEK_DATA and SEEK_HOLE: what was written counts as data. */
  *extents(offset: number, length: number, pluginFd: number): Generator<Extent> {
    const replacement = this.#replaced(pluginFd);
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

  #change(pluginFd: number, what: string, action: (replacement: Replacement) => void): void {
    try {
      action(this.#replaced(pluginFd) ?? this.#replace());
    } catch (error) {
      this.#tellFailure(`${what} failed: ${describeError(error)}`);
      throw error;
    }
    this.lastUsedMs = performance.now();
  }

  /** One that is to be tried again later has not failed. */
  /** Of a source that does not answer, who watches it tells; who was turned away at its gate is no failure of its own. */
  #tellFailure(why: string, data: Readonly<Record<string, unknown>> = {}): void {
    const { passage } = sourceGate();
    if (passage !== 'turned away') this.counters.fail(why);
    if (passage === 'passed') this.#context.log('error', `${this.name}: ${why}`, { file: this.name, ...data });
  }

  /** The replacement, where there is one: of an earlier mount, made by this thread, or by another. */
  #replaced(pluginFd: number): Replacement | undefined {
    this.#pluginFd = pluginFd;
    if (this.#replacement !== undefined) return this.#replacement;
    const { made } = this.#context.replacements.signals;
    if (made === this.#lookedAt || this.#identity.replacement === undefined) return undefined;
    const parts = this.#look(this.#identity.replacement, made);
    return parts === undefined ? undefined : this.#use(parts);
  }

  /** Asks where somebody has said that there is one. On disk it is seen once, at first: afterwards nobody else makes any, and who does says so. */
  #look(kept: KeptFile, made: number): SharedReplacement | undefined {
    if (this.#context.replacements.signals.isNoted(this.#identity.mark)) {
      const parts = this.#acquire(false);
      if (parts !== undefined) return parts;
    }
    const isKeptNow = this.#lookedAt < 0 && this.#isKeptNow(kept);
    // Not where its plugin file has gone, from where it may come back.
    if (isKeptNow === false) this.#lookedAt = made;
    return isKeptNow === true ? this.#acquire(false) : undefined;
  }

  /** Undefined where its plugin file is nowhere in the folder, or must not be written: what it reads as is as it was. */
  #isKeptNow(kept: KeptFile): boolean | undefined {
    let home: PluginHome;
    try {
      home = PluginHome.find(this.#pluginFd, this.#context.folder(), this.name);
    } catch (error) {
      if (error instanceof SeveralNamesError || error instanceof UnavailableError) return undefined;
      throw error;
    }
    try {
      const place = placeIn(home, kept);
      if (place === undefined) return undefined;
      return kept.discard ? isOwnKept(place) : isKept(place);
    } finally {
      home.close();
    }
  }

  #replace(): Replacement {
    const parts = this.#acquire(true);
    assert(parts !== undefined, 'a replacement was to be made, and was not');
    return this.#use(parts);
  }

  #acquire(makes: boolean): SharedReplacement | undefined {
    const { replacement } = this.#identity;
    if (replacement === undefined) throw new ReadOnlyError(`${this.name}: is read-only under this mount`);
    const { replacements } = this.#context;
    return replacements.acquire({ ...replacement, pluginFd: this.#pluginFd, makes }, () =>
      this.#plugin.sealingKey().toThread(),
    );
  }

  #use(parts: SharedReplacement): Replacement {
    this.#replacement = new Replacement(parts, {
      sizeBytes: this.#file.map.sizeBytes,
      read: (target, offset) => this.#file.map.read(target, offset, this.#openDisk),
    });
    this.counters.set('replaced', 1);
    return this.#replacement;
  }

  /** Where it lies now: pointers to images are relative to its folder. */
  get #plugin(): OpenPlugin {
    const { pluginAt, pluginPath } = this.#identity;
    // A folder above it may have been moved. Its own name is part of what it reads as.
    return pluginAt(path.join(path.dirname(currentPath(this.#pluginFd)), path.basename(pluginPath)));
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
    const plugin = this.#plugin;
    const { log, onImageOpened } = this.#context;
    this.counters.set('source', plugin.firstSource);
    try {
      this.#disk = plugin.openDisk();
      if (!this.#identity.isPresented) plugin.tellSourceFolders();
    } catch (error) {
      if (sourceGate().passage === 'passed') this.#failure = { error, atMs: now };
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
