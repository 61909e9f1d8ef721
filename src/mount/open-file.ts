/** What is open under the mount: a file that passes through, or a native file that is made on the fly. */
import * as fs from '../base/fs.ts';
import { fallocateMode } from '../base/fallocate.ts';
import type { Extent } from '../disk/disk.ts';
import type { NativeFileState } from './native-file-state.ts';
import type { DirectFile } from '../replacement/replacement.ts';
import { allocate } from './system-calls.ts';
import { systemError } from './system-error.ts';

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
  /** Data and holes from `offset` to the end; undefined where the file behind is to be asked. Throws ENXIO past the end. */
  extents(offset: number): Iterable<Extent> | undefined;
  close(): void;
  /** For a file of another thread: lets go of it, and leaves the descriptor to that thread. */
  forget(): void;
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

  extents(): undefined {
    return undefined;
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

  /** @param isAdopted another thread has opened and counted it */
  constructor(fd: number, state: NativeFileState, isAdopted = false) {
    this.fd = fd;
    this.state = state;
    state.addHandle(!isAdopted);
  }

  read(target: Uint8Array, offset: number): number {
    return this.state.read(target, offset);
  }

  write(source: Uint8Array, offset: number): number {
    return this.state.write(source, offset);
  }

  truncate(sizeBytes: number): void {
    this.state.truncate(sizeBytes);
  }

  /** See NativeFileState.prepare. */
  prepare(offset: number): number | undefined {
    return this.state.prepare(offset);
  }

  /** See NativeFileState.directFile. */
  get directFile(): DirectFile | undefined {
    return this.state.directFile;
  }

  get isOnlyHandle(): boolean {
    return this.state.isOnlyHandle;
  }

  get isWrittenDirectly(): boolean {
    return this.state.isWrittenDirectly;
  }

  countDirect(): void {
    this.state.countDirect();
  }

  /** A replacement takes room when it is written; what is made zero becomes holes. */
  allocate(mode: number, offset: number, lengthBytes: number): void {
    const zeroes = (mode & (fallocateMode.punchHole | fallocateMode.zeroRange)) !== 0;
    if ((mode & ~(fallocateMode.keepSize | fallocateMode.punchHole | fallocateMode.zeroRange)) !== 0) {
      throw systemError('EOPNOTSUPP', 'fallocate', this.state.name);
    }
    const end = offset + lengthBytes;
    if ((mode & fallocateMode.keepSize) === 0) this.state.growTo(end);
    if (zeroes) this.state.discard(offset, lengthBytes);
  }

  sync(): void {
    this.state.sync();
  }

  stat(): fs.BigIntStats {
    return fs.fstatSync(this.fd, { bigint: true });
  }

  extents(offset: number): Iterable<Extent> {
    const { sizeBytes } = this.state;
    if (offset >= sizeBytes) throw systemError('ENXIO', 'lseek', this.state.name);
    return this.state.extents(offset, sizeBytes - offset);
  }

  close(): void {
    this.state.dropHandle(true);
    fs.closeSync(this.fd);
  }

  /** @param isLast whether nobody has it open any more */
  forget(isLast = false): void {
    this.state.dropHandle(isLast);
  }
}
