/**
 * File descriptors of images: opened when needed, closed when too many are open. A chain may have thousands of images.
 *
 * A file that is opened again must be the one that was opened first (inode, size, time of change), else reads fail: an image never
 * changes after its commit.
 */
import * as fs from '../../base/fs.ts';
import { LRUCache } from 'lru-cache';
import { assert, UnavailableError } from '../../base/errors.ts';
import { readFully, readFullyInto } from '../../base/full-io.ts';
import { sourceGate } from '../../base/source-gate.ts';
import type { Closable } from '../../base/ownership.ts';
import type { ImageBytes } from '../format/image-description.ts';

/** Open descriptors for images, per thread. */
const maxOpenHandles = 128;

const openHandles = new LRUCache<ImageFile, number>({
  max: maxOpenHandles,
  dispose: (fd, file) => sourceGate().closing(file.source, () => fs.closeSync(fd)),
});

export class ImageFile implements Closable, ImageBytes {
  readonly path: string;
  readonly sizeBytes: number;
  /** What it was opened inside of; see source-gate.ts. */
  readonly source: number = sourceGate().current;
  readonly #identity: string;
  #closed = false;

  private constructor(path: string, sizeBytes: number, identity: string) {
    this.path = path;
    this.sizeBytes = sizeBytes;
    this.#identity = identity;
  }

  /** @throws UnavailableError when the file is not there or not a regular file */
  static open(path: string): ImageFile {
    const fd = openForReading(path);
    try {
      const stat = fs.fstatSync(fd, { bigint: true });
      if (!stat.isFile()) throw new UnavailableError(`${path}: is not a regular file`);
      const file = new ImageFile(path, Number(stat.size), identityOf(stat));
      openHandles.set(file, fd);
      return file;
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
  }

  /** @throws UnavailableError when the bytes cannot be had, or the file is no longer the one that was opened */
  read(target: Uint8Array, position: number): void {
    assert(!this.#closed, `${this.path} is read after it was closed`);
    const gate = sourceGate();
    gate.enter(this.source);
    try {
      readFully(openHandles.get(this) ?? this.#reopen(), target, position, this.path);
    } finally {
      gate.leave(this.source);
    }
  }

  /** As `read`, into all targets in turn. */
  readInto(targets: readonly Uint8Array[], position: number): void {
    assert(!this.#closed, `${this.path} is read after it was closed`);
    const gate = sourceGate();
    gate.enter(this.source);
    try {
      readFullyInto(openHandles.get(this) ?? this.#reopen(), targets, position, this.path);
    } finally {
      gate.leave(this.source);
    }
  }

  /** Whether a file that somebody has opened is the one that was opened here. */
  isFile(stat: fs.BigIntStats): boolean {
    return identityOf(stat) === this.#identity;
  }

  close(): void {
    this.#closed = true;
    openHandles.delete(this);
  }

  #reopen(): number {
    const fd = openForReading(this.path);
    if (identityOf(fs.fstatSync(fd, { bigint: true })) !== this.#identity) {
      fs.closeSync(fd);
      throw new UnavailableError(`${this.path}: is no longer the file that was opened; mount again to use the new one`);
    }
    openHandles.set(this, fd);
    return fd;
  }
}

function openForReading(path: string): number {
  try {
    // A pipe without a writer must be refused, not waited for.
    return fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    throw new UnavailableError(`${path}: the image cannot be opened`, { cause: error, retryable: true });
  }
}

function identityOf(stat: fs.BigIntStats): string {
  return `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}`;
}
