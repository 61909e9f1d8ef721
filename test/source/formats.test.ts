/**
 * Every entry of the registry of sources, with nothing said of it but its line there: QEMU makes such a file, it is known by its content, read by
 * its name as the disk that it holds, refused under another's, broken ones are refused or read, and the README names it.
 */
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import type { DiskReader, ReaderContext } from '../../src/native/reader.ts';
import { sourceFormats } from '../../src/source/formats.ts';
import { openSource } from '../../src/source/open-source.ts';
import { probe } from '../../src/source/probe.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { writeGolden } from '../native/golden.ts';
import { missingProgram, runProgram } from '../native/judges.ts';
import { survivesMutants } from '../native/mutants.ts';

const sizeBytes = 5 * MiB;
const missing = missingProgram(['qemu-img']);
const readme = fs.readFileSync(path.join(import.meta.dirname, '../../README.md'), 'utf8');
/** Nothing lies beside a mutant. */
const alone: ReaderContext = {
  fileName: 'mutant',
  depth: 0,
  isSaid: true,
  openParent: () => expect.fail('a parent was asked for'),
  openBeside: () => {
    throw new UsageError('nothing lies beside it');
  },
  namesBeside: () => [],
};

/** One that QEMU makes of a golden disk, under a name of its own. */
function made(folder: TempFolder, { name, qemuName = '' }: DiskReader): { raw: string; file: string } {
  const raw = folder.file('golden');
  writeGolden(raw, sizeBytes, new Seeded(`registry ${name}`));
  const file = folder.file(`disk.${name}`);
  const options = qemuName === 'vpc' ? ['-o', 'force_size=on'] : [];
  runProgram('qemu-img', ['convert', '-f', 'raw', '-O', qemuName, ...options, raw, file]);
  return { raw, file };
}

describe.each(sourceFormats)('the source format $name', (reader) => {
  it('is in the README, and has a name that is its own', () => {
    expect(readme).toMatch(new RegExp(`^\\| [^|]*\\| \`${reader.name}\` \\|`, 'm'));
    expect(sourceFormats.filter(({ name }) => name === reader.name)).toHaveLength(1);
    expect(reader.what).toMatch(/^(an?|the) /);
  });

  if (reader.qemuName === undefined) return;

  it('reads what QEMU made, by its name and its content together', (context) => {
    if (missing !== undefined) context.skip(`${missing} is not installed`);
    using folder = new TempFolder();
    const { raw, file } = made(folder, reader);
    const source = openSource(file);
    try {
      const bytes = Buffer.alloc(sizeBytes);
      source.read(bytes, 0);
      expect(source.sizeBytes).toBe(sizeBytes);
      expect(bytes.equals(fs.readFileSync(raw))).toBe(true);
    } finally {
      source.close();
    }
    const head = openFileDisk(file);
    expect(probe(head)[0]?.format).toBe(reader.isBare === true ? undefined : reader);
    head.close();
  });

  const { isBare = false } = reader;
  it.skipIf(isBare)('is refused under the name of a raw file, with both ways to insist', (context) => {
    if (missing !== undefined) context.skip(`${missing} is not installed`);
    using folder = new TempFolder();
    const { file } = made(folder, reader);
    fs.renameSync(file, folder.file('disk.img'));
    expect(() => openSource(folder.file('disk.img'))).toThrow(
      new RegExp(`is ${reader.what}.*--source-format ${reader.name};.*--source-format raw`),
    );
    openSource(folder.file('disk.img'), reader.name).close();
  });

  it.skipIf(isBare)('mutants of a file are refused or read', { timeout: 120_000 }, (context) => {
    if (missing !== undefined) context.skip(`${missing} is not installed`);
    using folder = new TempFolder();
    const file = fs.readFileSync(made(folder, reader).file);
    survivesMutants(`registry mutants, ${reader.name}`, {
      file,
      structures: [
        [0, 4096],
        [Math.max(0, file.length - 512), file.length],
      ],
      open: (disk) => reader.open(disk, alone),
    });
  });
});
