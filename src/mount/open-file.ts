/** What is open under the mount: a file that passes through, or a native file that is made on the fly. */
import * as fs from '../base/fs.ts';
import { fallocateMode } from '../base/fallocate.ts';
import type { Runs } from '../disk/seek.ts';
import type { Counters } from '../fill/statistics.ts';
import { maxFileBytes } from '../replacement/layout.ts';
import type { DirectFile } from '../replacement/replacement.ts';
import { allocate } from '../base/system-calls.ts';
import { systemError } from '../base/system-error.ts';
import type { NativeFileState } from './native-file-state.ts';

export interface OpenFile {
  /** Set for native files: whole pages of it may stay in the kernel's cache, since it changes only through this mount. */
  readonly isNative: boolean;
  /** Of the file behind. */
  readonly fd: number;
  /** @returns bytes read into the front of target; less than asked for only at the end of the file */
  read(target: Uint8Array, offset: number): number;
  /** @returns bytes written, all of them */
  write(source: Uint8Array, offset: number): number;
  truncate(sizeBytes: number): void;
  /** @param mode of fallocate(2) */
  allocate(mode: number, offset: number, lengthBytes: number): void;
  /** Everything acknowledged is on disk when it returns. */
  sync(dataOnly: boolean): void;
  /** The file behind, for attributes. */
  stat(): fs.BigIntStats;
  /** Data and holes; undefined where the file behind is to be asked. */
  readonly runs: Runs | undefined;
  close(): void;
  /** For a file of another thread: lets go of it, and leaves the descriptor to that thread. */
  forget(): void;
}

/** A file of the folder, as it is. Owns the descriptor. */
export class PassThroughFile implements OpenFile {
  readonly isNative = false;
  readonly runs = undefined;
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

  allocate(mode: number, offset: number, lengthBytes: number): void {
    allocate(this.fd, mode, offset, lengthBytes);
  }

  sync(dataOnly: boolean): void {
    if (dataOnly) fs.fdatasyncSync(this.fd);
    else fs.fsyncSync(this.fd);
  }

  stat(): fs.BigIntStats {
    return fs.fstatSync(this.fd, { bigint: true });
  }

  close(): void {
    fs.closeSync(this.fd);
  }

  forget(): void {
    // It holds nothing but the descriptor.
  }
}

/** A native file made on the fly. Holds the file behind it open, so that it lives on when that is renamed or deleted. */
export class SynthesizedFile implements OpenFile {
  readonly isNative = true;
  readonly fd: number;
  readonly state: NativeFileState;
  /** Where it counts as open, whatever it is called by now. */
  readonly counted: Counters;

  /** @param counted where another thread, which has opened it, has counted it */
  constructor(fd: number, state: NativeFileState, counted?: Counters) {
    this.fd = fd;
    this.state = state;
    this.counted = counted ?? state.counters;
    state.handles++;
    if (counted !== undefined) return;
    this.counted.add('opens', 1);
    this.counted.add('openNow', 1);
  }

  read(target: Uint8Array, offset: number): number {
    return this.state.read(target, offset, this.fd);
  }

  write(source: Uint8Array, offset: number): number {
    return this.state.write(source, offset, this.fd);
  }

  truncate(sizeBytes: number): void {
    this.state.truncate(sizeBytes, this.fd);
  }

  /** See NativeFileState.prepare. */
  prepare(offset: number): number | undefined {
    return this.state.prepare(offset, this.fd);
  }

  /** See NativeFileState.directFile. */
  get directFile(): DirectFile | undefined {
    return this.state.directFile(this.fd);
  }

  get isWrittenDirectly(): boolean {
    return this.state.isWrittenDirectly;
  }

  /** A replacement takes room when it is written; what is made zero becomes holes. */
  allocate(mode: number, offset: number, lengthBytes: number): void {
    const zeroes = (mode & (fallocateMode.punchHole | fallocateMode.zeroRange)) !== 0;
    if ((mode & ~(fallocateMode.keepSize | fallocateMode.punchHole | fallocateMode.zeroRange)) !== 0) {
      throw systemError('EOPNOTSUPP', 'fallocate', this.state.name);
    }
    const end = offset + lengthBytes;
    if (end > maxFileBytes) throw systemError('EFBIG', 'fallocate', this.state.name);
    if ((mode & fallocateMode.keepSize) === 0) this.state.growTo(end, this.fd);
    if (zeroes) this.state.discard(offset, lengthBytes, this.fd);
  }

  sync(): void {
    this.state.sync(this.fd);
  }

  stat(): fs.BigIntStats {
    return fs.fstatSync(this.fd, { bigint: true });
  }

  get runs(): Runs {
    const { state, fd } = this;
    return { sizeBytes: state.sizeBytes(fd), extents: (offset, length) => state.extents(offset, length, fd) };
  }

  close(): void {
    this.leave();
    fs.closeSync(this.fd);
  }

  forget(): void {
    this.state.handles--;
  }

  /** Nobody has it open any more, or it is another kind of file from now on; the descriptor stays. */
  leave(): void {
    this.forget();
    this.counted.add('openNow', -1);
  }
}
