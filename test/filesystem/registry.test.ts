/**
 * Every entry of the registry of file systems, with nothing said of it but its line there: a volume that a foreign tool made and filled without a
 * mount is known by its own entry alone, told as blkid tells it, read to the last byte; and what is left of broken ones is refused or read.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { FilesByPath } from '../../src/filesystem/by-path.ts';
import { fileSystems } from '../../src/filesystem/registry.ts';
import { survivesGuestMutants } from '../guest/mutants.ts';
import { missingProgram } from '../native/judges.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { differences, prototypeOf, run } from './trees.ts';

interface Maker {
  readonly programs: readonly string[];
  readonly sizeBytes: number;
  /** Makes the file system on an empty file, and fills it from a folder. */
  make(image: string, tree: string): void;
}

/** A file system that is read needs somebody else who makes one. */
const makers: Readonly<Record<string, Maker>> = {
  ext4: {
    programs: ['mke2fs'],
    sizeBytes: 16 * MiB,
    make: (image, tree) => run('mke2fs', '-q', '-F', '-t', 'ext4', '-L', 'LABEL', '-d', tree, image),
  },
  XFS: {
    programs: ['mkfs.xfs'],
    sizeBytes: 320 * MiB,
    make(image, tree) {
      const prototype = `${image}.prototype`;
      fs.writeFileSync(prototype, prototypeOf(tree));
      run('mkfs.xfs', '-q', '-f', '-L', 'LABEL', '-p', prototype, image);
    },
  },
  btrfs: {
    programs: ['mkfs.btrfs'],
    sizeBytes: 128 * MiB,
    make: (image, tree) => run('mkfs.btrfs', '-q', '-f', '-L', 'LABEL', '--rootdir', tree, image),
  },
  NTFS: {
    programs: ['mkntfs', 'ntfscp'],
    sizeBytes: 16 * MiB,
    make(image, tree) {
      run('mkntfs', '-F', '-Q', '-q', '-L', 'LABEL', image);
      for (const name of fs.readdirSync(tree)) run('ntfscp', '-q', '-f', image, path.join(tree, name), `/${name}`);
    },
  },
  FAT: {
    programs: ['mkfs.fat', 'mcopy'],
    sizeBytes: 40 * MiB,
    make(image, tree) {
      run('mkfs.fat', '-F', '32', '-n', 'LABEL', image);
      run('mcopy', '-i', image, ...fs.readdirSync(tree).map((name) => path.join(tree, name)), '::/');
    },
  },
};

/** Without folders: ntfscp makes none. */
function writeTree(folder: string): void {
  const random = new Seeded('registry of file systems');
  fs.mkdirSync(folder);
  for (let index = 0; index < 60; index++) fs.writeFileSync(path.join(folder, `name-${index}.txt`), `file ${index}`);
  fs.writeFileSync(path.join(folder, 'large'), random.bytes(700 * KiB + 11));
  fs.writeFileSync(path.join(folder, 'zeros'), Buffer.alloc(100 * KiB));
  fs.writeFileSync(path.join(folder, 'compressible'), random.compressibleBytes(300 * KiB));
}

function readAll(fileSystem: FilesByPath): void {
  for (const name of fileSystem.list('/').filter((each) => !each.startsWith('$'))) {
    const stat = fileSystem.stat(`/${name}`);
    if (stat?.type === 'file') fileSystem.readFile(`/${name}`, MiB);
  }
}

/** @returns what blkid says of a tag; empty where the file system has none */
function told(image: string, tag: string): string {
  return execFileSync('blkid', ['-p', '-o', 'value', '-s', tag, image]).toString().trim();
}

describe.each(fileSystems)('the file system $name', (reader) => {
  const folder = new TempFolder();
  const tree = folder.file('tree');
  const image = folder.file('volume');
  const maker = makers[reader.name] ?? expect.fail(`nothing here makes ${reader.name}`);
  const missing = missingProgram([...maker.programs, 'blkid']);

  beforeAll(() => {
    writeTree(tree);
    fs.writeFileSync(image, '');
    fs.truncateSync(image, maker.sizeBytes);
    if (missing === undefined) maker.make(image, tree);
    return () => folder.remove();
  });

  it('is in the README', () => {
    const readme = fs.readFileSync(path.join(import.meta.dirname, '../../README.md'), 'utf8');
    expect(readme).toMatch(new RegExp(`^\\| ${reader.name} \\|`, 'm'));
  });

  it('is known by its own entry alone, told as blkid tells it, and read to the last byte', (context) => {
    if (missing !== undefined) context.skip(`${missing} is not installed`);
    const disk = openFileDisk(image);
    onTestFinished(() => disk.close());
    for (const other of fileSystems) if (other !== reader) expect(other.open(disk)).toBeUndefined();
    const fileSystem = reader.open(disk) ?? expect.fail('it is not known');
    expect(fileSystem.label).toBe('LABEL');
    expect(fileSystem.label).toBe(told(image, 'LABEL'));
    expect(fileSystem.uuid).toBe(told(image, 'UUID'));
    expect(fileSystem.kind).toContain(told(image, 'TYPE').replace('vfat', 'fat'));
    expect(differences(tree, new FilesByPath(fileSystem))).toEqual([]);
  });

  it('is refused or read when it is broken', (context) => {
    if (missing !== undefined) context.skip(`${missing} is not installed`);
    const disk = fs.readFileSync(image);
    const read = survivesGuestMutants(`registry, ${reader.name}`, {
      disk,
      use(mutant) {
        const fileSystem = reader.open(mutant);
        if (fileSystem !== undefined) readAll(new FilesByPath(fileSystem));
        return [];
      },
    });
    expect(read).toBeGreaterThan(0);
  });
});
