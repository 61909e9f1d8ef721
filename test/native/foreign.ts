/** The suite of every Disk, run over disk files that QEMU made. */
import fs from 'node:fs';
import { it, type TestContext } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { conformsToDisk } from '../disk/conformance.ts';
import type { ModelDisk } from '../disk/model-disk.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { tinyDisk, writeGolden } from './golden.ts';
import { missingProgram, runProgram } from './judges.ts';

export interface Foreign {
  readonly folder: TempFolder;
  /** A raw file of the disk that `model` is. */
  readonly golden: string;
  readonly model: ModelDisk;
}

/**
 * Runs the suite over what `make` opens in a folder with a golden disk of `sizeBytes`; what it changes in the disk it changes in the
 * model. Skips, and says so, where QEMU is not installed.
 */
export function readsWhatQemuMade(title: string, sizeBytes: number, make: (foreign: Foreign) => Disk): void {
  const missing = missingProgram(['qemu-img', 'qemu-io']);
  if (missing !== undefined) {
    it(title, (context) => context.skip(`${missing} is not installed`));
    return;
  }
  conformsToDisk(title, () => {
    const folder = new TempFolder();
    try {
      const golden = folder.file('golden.raw');
      const model = writeGolden(golden, sizeBytes, new Seeded(title));
      const disk = make({ folder, golden, model });
      const boundaries = [64 * 1024, MiB, 2 * MiB, 3 * MiB].filter((boundary) => boundary < sizeBytes);
      return { disk, model, boundaries, remove: () => folder.remove() };
    } catch (error) {
      folder.remove();
      throw error;
    }
  });
}

/** Converts the golden disk; `options` are those of the format (`-o`). Returns the file's path. */
export function convertGolden(
  { folder, golden }: Foreign,
  format: string,
  options: readonly string[] = [],
  flags: readonly string[] = [],
): string {
  const file = folder.file(`vm.${format}`);
  const set = options.length === 0 ? [] : ['-o', options.join(',')];
  runProgram('qemu-img', ['convert', '-f', 'raw', '-O', format, ...flags, ...set, golden, file]);
  return file;
}

/** Writes one byte all over a range of a disk file through QEMU, and into the model. */
export function writeThroughQemu(
  { model }: Foreign,
  format: string,
  file: string,
  value: number,
  offset: number,
  length: number,
): void {
  const command = value === 0 ? `write -z ${offset} ${length}` : `write -P ${value} ${offset} ${length}`;
  runProgram('qemu-io', ['-f', format, '-c', command, file]);
  if (value === 0) model.zero(offset, length);
  else model.write(offset, Buffer.alloc(length, value));
}

/** The tiny disk as a file that QEMU made, in memory; skips the test where QEMU is not installed. */
export function convertedBytes(context: TestContext, format: string, flags: readonly string[]): Buffer {
  if (missingProgram(['qemu-img']) !== undefined) context.skip('qemu-img is not installed');
  using folder = new TempFolder();
  const disk = tinyDisk();
  const bytes = Buffer.alloc(disk.sizeBytes);
  disk.read(bytes, 0);
  const file = folder.file('converted');
  runProgram('qemu-img', ['convert', '-f', 'raw', '-O', format, ...flags, folder.write('raw', bytes), file]);
  return fs.readFileSync(file);
}
