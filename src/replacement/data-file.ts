/**
 * The data file of a replacement: plain, each byte where the native file has it, or sealed (sealed-file.ts). Offsets and sizes here are those
 * of the native file. What stands here knows nothing of units that are present or not.
 *
 * Who writes or makes holes holds the locks of the units that he touches; who changes the size, those of all units.
 */
import * as fs from '../base/fs.ts';
import { resizeFile } from '../base/durable.ts';
import { UnavailableError } from '../base/errors.ts';
import { readFully, writeFully } from '../base/full-io.ts';
import { seekData, seekHole } from '../disk/lseek.ts';
import { punchHole } from './punch-hole.ts';

export interface DataFile {
  /** As long as it is now: the system is asked. */
  readonly sizeBytes: number;
  /** Fills all of target. @throws UnavailableError */
  read(target: Uint8Array, offset: number): void;
  /** Writes all of source, which lies in one unit; the file is at least so long then. @throws CapacityError, UnavailableError */
  write(source: Uint8Array, offset: number): void;
  /** Whole units read as zeros. @throws UnavailableError where the file system cannot: they are as they were then */
  makeHole(offset: number, lengthBytes: number): void;
  /** A range that lies in one unit and in the file reads as zeros: holes where the file system can. @throws CapacityError, UnavailableError */
  zero(offset: number, lengthBytes: number): void;
  /** What is cut off is gone: when the file grows again, it reads as zeros there. @throws CapacityError, UnavailableError */
  resize(sizeBytes: number): void;
  /** The first data at or after `offset`; undefined when only a hole follows. */
  nextData(offset: number): number | undefined;
  /** The first hole at or after `offset`, which the end counts as; undefined past the end. */
  nextHole(offset: number): number | undefined;
}

export class PlainFile implements DataFile {
  readonly #fd: number;
  readonly #name: string;

  constructor(fd: number, name: string) {
    this.#fd = fd;
    this.#name = name;
  }

  get sizeBytes(): number {
    return fs.fstatSync(this.#fd).size;
  }

  read(target: Uint8Array, offset: number): void {
    readFully(this.#fd, target, offset, this.#name);
  }

  write(source: Uint8Array, offset: number): void {
    writeFully(this.#fd, source, offset, this.#name);
  }

  makeHole(offset: number, lengthBytes: number): void {
    punchHole(this.#fd, offset, lengthBytes, this.#name);
  }

  zero(offset: number, lengthBytes: number): void {
    if (!madeHole(this, offset, lengthBytes)) this.write(new Uint8Array(lengthBytes), offset);
  }

  resize(sizeBytes: number): void {
    resizeFile(this.#fd, sizeBytes, this.#name);
  }

  nextData(offset: number): number | undefined {
    return seekData(this.#fd, offset, this.#name);
  }

  nextHole(offset: number): number | undefined {
    return seekHole(this.#fd, offset, this.#name);
  }
}

/** False where the file system can make no hole. */
export function madeHole(file: DataFile, offset: number, lengthBytes: number): boolean {
  try {
    file.makeHole(offset, lengthBytes);
    return true;
  } catch (error) {
    if (error instanceof UnavailableError) return false;
    throw error;
  }
}
