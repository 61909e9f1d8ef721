/** What is open under the mount: a file that passes through, or a native file that is made on the fly. */
import fs from 'node:fs';
import { ReadOnlyError } from '../base/errors.ts';
import type { Extent } from '../disk/disk.ts';
import type { NativeFileState } from './native-file-state.ts';

export interface OpenFile {
  /** Set for native files: whole pages of it may stay in the kernel's cache, since it changes only through this mount. */
  readonly isNative: boolean;
  /** @returns bytes read into the front of target; less than asked for only at the end of the file */
  read(target: Uint8Array, offset: number): number;
  /** @returns bytes written, all of them */
  write(source: Uint8Array, offset: number): number;
  truncate(sizeBytes: number): void;
  /** Everything acknowledged is on disk when it returns. */
  sync(dataOnly: boolean): void;
  /** The file behind, for attributes. */
  stat(): fs.BigIntStats;
  /** Data and holes; undefined where the transport should ask the kernel's own file. */
  extents(offset: number, length: number): Iterable<Extent> | undefined;
  close(): void;
}

/** A file of the folder, as it is. Owns the descriptor. */
export class PassThroughFile implements OpenFile {
  readonly isNative = false;
  readonly fd: number;

  constructor(fd: number) {
    this.fd = fd;
  }

  read(target: Uint8Array, offset: number): number {
    let done = 0;
    while (done < target.length) {
      const count = fs.readSync(this.fd, target, done, target.length - done, offset + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  write(source: Uint8Array, offset: number): number {
    let done = 0;
    while (done < source.length) {
      done += fs.writeSync(this.fd, source, done, source.length - done, offset + done);
    }
    return done;
  }

  truncate(sizeBytes: number): void {
    fs.ftruncateSync(this.fd, sizeBytes);
  }

  sync(dataOnly: boolean): void {
    if (dataOnly) fs.fdatasyncSync(this.fd);
    else fs.fsyncSync(this.fd);
  }

  stat(): fs.BigIntStats {
    return fs.fstatSync(this.fd, { bigint: true });
  }

  extents(): undefined {
    return undefined;
  }

  close(): void {
    fs.closeSync(this.fd);
  }
}

/** A native file made on the fly. Holds the file behind it open, so that it lives on when that is renamed or deleted. */
export class SynthesizedFile implements OpenFile {
  readonly isNative = true;
  readonly fd: number;
  readonly state: NativeFileState;

  constructor(fd: number, state: NativeFileState) {
    this.fd = fd;
    this.state = state;
    state.addHandle();
  }

  read(target: Uint8Array, offset: number): number {
    return this.state.read(target, offset);
  }

  write(): number {
    throw this.#readOnly();
  }

  truncate(): void {
    throw this.#readOnly();
  }

  sync(): void {
    // Nothing can have been written.
  }

  stat(): fs.BigIntStats {
    return fs.fstatSync(this.fd, { bigint: true });
  }

  extents(offset: number, length: number): Iterable<Extent> {
    return this.state.extents(offset, length);
  }

  close(): void {
    this.state.dropHandle();
    fs.closeSync(this.fd);
  }

  #readOnly(): ReadOnlyError {
    return new ReadOnlyError(
      `${this.state.name}: is read-only; put a differencing disk (a qcow2 overlay) over it to write`,
    );
  }
}
