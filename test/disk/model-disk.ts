/** What a disk should hold: a plain account of what was written, independent of every Disk under test. Any size; memory only for data. */
import { expect } from 'vitest';
import type { Disk } from '../../src/disk/disk.ts';

const unitBytes = 4096;
const compareBytes = 1024 * 1024;

export class ModelDisk {
  #sizeBytes: number;
  readonly #units = new Map<number, Buffer>();

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
  }

  /** A model that holds these bytes. */
  static of(bytes: Uint8Array): ModelDisk {
    const model = new ModelDisk(bytes.length);
    model.write(0, bytes);
    return model;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  copy(): ModelDisk {
    const copy = new ModelDisk(this.#sizeBytes);
    for (const [unit, bytes] of this.#units) copy.#units.set(unit, Buffer.from(bytes));
    return copy;
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const unit = Math.floor((offset + done) / unitBytes);
      const within = (offset + done) % unitBytes;
      const part = bytes.subarray(done, done + unitBytes - within);
      const held = this.#units.get(unit) ?? Buffer.alloc(unitBytes);
      held.set(part, within);
      this.#units.set(unit, held);
      done += part.length;
    }
  }

  zero(offset: number, length: number): void {
    for (let at = offset; at < offset + length;) {
      const unit = Math.floor(at / unitBytes);
      const end = Math.min((unit + 1) * unitBytes, offset + length);
      if (end - at === unitBytes) this.#units.delete(unit);
      else this.#units.get(unit)?.fill(0, at % unitBytes, (at % unitBytes) + end - at);
      at = end;
    }
  }

  /** What is cut off is forgotten: it is zero when the disk grows again. */
  resize(sizeBytes: number): void {
    for (const unit of [...this.#units.keys()]) {
      if (unit * unitBytes >= sizeBytes) this.#units.delete(unit);
    }
    this.#units.get(Math.floor(sizeBytes / unitBytes))?.fill(0, sizeBytes % unitBytes);
    this.#sizeBytes = sizeBytes;
  }

  read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let at = offset; at < offset + length;) {
      const unit = Math.floor(at / unitBytes);
      const end = Math.min((unit + 1) * unitBytes, offset + length);
      this.#units.get(unit)?.copy(bytes, at - offset, at % unitBytes, (at % unitBytes) + end - at);
      at = end;
    }
    return bytes;
  }
}

/** Compares without printing megabytes when it fails. */
export function expectSameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  expect(actual.length, `length of ${what}`).toBe(expected.length);
  if (Buffer.compare(actual, expected) === 0) return;
  const index = actual.findIndex((byte, at) => byte !== expected[at]);
  const shown = (bytes: Uint8Array): string => Buffer.from(bytes.subarray(index, index + 8)).toString('hex');
  expect.fail(`${what}: byte ${index} differs: ${shown(actual)}… where ${shown(expected)}… belongs`);
}

/** Reads a range of the disk, in pieces, and expects what the model holds. */
export function expectReadsAs(disk: Disk, model: ModelDisk, offset = 0, length = model.sizeBytes - offset): void {
  for (let at = offset; at < offset + length; at += compareBytes) {
    const bytes = Buffer.alloc(Math.min(compareBytes, offset + length - at), 0xa5);
    disk.read(bytes, at);
    expectSameBytes(bytes, model.read(at, bytes.length), `${bytes.length} bytes from disk byte ${at}`);
  }
}
