/** A sparse raw file together with a model of what it holds: what images are made of, and what they are held against. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { writeFully } from '../../src/base/full-io.ts';
import { KiB } from '../../src/base/units.ts';
import { ModelDisk } from '../disk/model-disk.ts';
import type { Seeded } from '../seeded.ts';

export class SourceDisk {
  readonly path: string;
  readonly model: ModelDisk;

  /** Makes a file that is one hole. */
  constructor(path: string, sizeBytes: number) {
    this.path = path;
    this.model = new ModelDisk(sizeBytes);
    fs.writeFileSync(path, '');
    fs.truncateSync(path, sizeBytes);
  }

  get sizeBytes(): number {
    return this.model.sizeBytes;
  }

  write(offset: number, bytes: Uint8Array): void {
    this.model.write(offset, bytes);
    this.#onFile((fd) => writeFully(fd, bytes, offset, this.path));
  }

  /** Writes zeros: data to the file system, not a hole. */
  zero(offset: number, length: number): void {
    this.model.zero(offset, length);
    this.#onFile((fd) => writeFully(fd, Buffer.alloc(length), offset, this.path));
  }

  resize(sizeBytes: number): void {
    this.model.resize(sizeBytes);
    fs.truncateSync(this.path, sizeBytes);
  }

  sha256(): string {
    return createHash('sha256').update(fs.readFileSync(this.path)).digest('hex');
  }

  #onFile(action: (fd: number) => void): void {
    const fd = fs.openSync(this.path, 'r+');
    try {
      action(fd);
    } finally {
      fs.closeSync(fd);
    }
  }
}

/** Some writes of random places and lengths, some of them zeros, now and then across many blocks. Returns the ranges touched. */
export function scribble(disk: SourceDisk, random: Seeded, count: number): Array<{ offset: number; length: number }> {
  const touched: Array<{ offset: number; length: number }> = [];
  for (let index = 0; index < count; index++) {
    const longest = random.oneIn(6) ? 600 * KiB : random.oneIn(2) ? 70 * KiB : 1500;
    const offset = random.below(disk.sizeBytes);
    const length = Math.min(random.between(1, longest), disk.sizeBytes - offset);
    if (random.oneIn(4)) disk.zero(offset, length);
    else disk.write(offset, random.oneIn(2) ? random.bytes(length) : random.compressibleBytes(length));
    touched.push({ offset, length });
  }
  return touched;
}
