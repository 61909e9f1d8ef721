/** Folders with all that makes file systems difficult, and volumes that foreign tools fill with them. */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { expect } from 'vitest';
import { closing } from '../../src/base/ownership.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { FilesByPath } from '../../src/filesystem/by-path.ts';
import type { EditableFileSystem } from '../../src/filesystem/edit/editable.ts';
import type { Patch } from '../../src/filesystem/edit/patch.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

/** Links that end in a file: their path, their target. */
export const links: readonly (readonly [string, string])[] = [
  ['etc/relative', 'fstab'],
  ['etc/absolute', '/etc/fstab'],
  ['etc/upwards', '../../../etc/fstab'],
  [`etc/${'long-'.repeat(16)}name`, `../etc/${'./'.repeat(60)}fstab`],
  ['lib', 'usr/lib'],
];
const lookedUpThroughLinks = ['/etc/relative', '/etc/absolute', '/etc/upwards', `/etc/${'long-'.repeat(16)}name`];

/** Writes the tree. `manyNames`: of the largest folder. */
export function writeTree(folder: string, seed: string, manyNames = 2000): void {
  const random = new Seeded(seed);
  const write = (name: string, contents: Uint8Array | string): void => {
    fs.mkdirSync(path.join(folder, path.dirname(name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), contents);
  };
  write('etc/os-release', 'PRETTY_NAME="Test GNU/Linux 1 (tree)"\nID=test\nVERSION_ID="1"\n');
  write('etc/fstab', `/dev/sda1 / ext4 defaults 0 1\n${'# a comment that fills the file\n'.repeat(200)}`);
  write('empty', '');
  write('tiny', 'a few bytes');
  write('inline', random.bytes(100));
  write('usr/lib/compressible', random.compressibleBytes(700 * KiB));
  write('usr/lib/zeros', Buffer.alloc(300 * KiB));
  write('usr/lib/large', random.bytes(3 * MiB + 77));
  write('names/äöü-ÿ-漢字', 'name');
  for (let index = 0; index < manyNames; index++) write(`many/name-${index}-${'x'.repeat(index % 40)}`, '');
  fs.mkdirSync(path.join(folder, 'a/b/c/d/e/f/g'), { recursive: true });
  write('a/b/c/d/e/f/g/deep', 'deep');
  for (const [name, target] of links) fs.symlinkSync(target, path.join(folder, name));
  fs.symlinkSync('circle', path.join(folder, 'circle'));
  fs.symlinkSync('nowhere', path.join(folder, 'dangling'));
  writePieces(path.join(folder, 'pieces'), random);
}

/** Every other 4 KiB is a hole: more pieces than an inode or one block of extents holds. */
function writePieces(file: string, random: Seeded): void {
  const fd = fs.openSync(file, 'w');
  try {
    for (let index = 0; index < 800; index++) fs.writeSync(fd, random.bytes(4 * KiB), 0, 4 * KiB, index * 8 * KiB);
    fs.ftruncateSync(fd, 801 * 8 * KiB);
  } finally {
    fs.closeSync(fd);
  }
}

/** What differs between the folder and the file system (its own files apart), at most a few lines: nothing, when all is well. */
export function differences(folder: string, fileSystem: FilesByPath, at = '/'): string[] {
  const found: string[] = [];
  const here = path.join(folder, at);
  const names = fs.readdirSync(here).sort();
  const listed = fileSystem.list(at).filter((name) => name !== 'lost+found' && !/^\$[A-Z]/.test(name));
  if (listed.join('/') !== names.join('/')) found.push(`${at}: ${listed.length} names where ${names.length} belong`);
  for (const name of names) {
    const entry = path.join(at, name);
    const stat = fs.lstatSync(path.join(folder, entry));
    if (stat.isDirectory()) found.push(...differences(folder, fileSystem, entry));
    if (!stat.isFile()) continue;
    const contents = fs.readFileSync(path.join(folder, entry));
    if (fileSystem.stat(entry)?.sizeBytes !== contents.length) found.push(`${entry}: its size`);
    else if (!contents.equals(fileSystem.readFile(entry, contents.length))) found.push(`${entry}: its bytes`);
    if (found.length > 10) break;
  }
  return found;
}

/** Writes what the patches say into a raw file. */
export function applyTo(image: string, patches: readonly Patch[]): void {
  const fd = fs.openSync(image, 'r+');
  try {
    for (const { offsetBytes, after } of patches) fs.writeSync(fd, after, 0, after.length, offsetBytes);
  } finally {
    fs.closeSync(fd);
  }
}

/** Anew in each run: the kernel mounts no two of one UUID at once. */
export const uuid = randomUUID();
export const label = 'a label';

/** Reads a volume that was made with the label and the UUID here, and filled with the tree. @param lost what `differences` finds all the same */
export function expectTree(tree: string, kind: string, fileSystem: FilesByPath, lost: readonly string[] = []): void {
  expect(fileSystem).toMatchObject({ kind, label, uuid, warnings: [] });
  expect(differences(tree, fileSystem)).toEqual(lost);
  const fstab = fs.readFileSync(`${tree}/etc/fstab`);
  for (const link of lookedUpThroughLinks) expect(Buffer.from(fileSystem.readFile(link, MiB))).toEqual(fstab);
  expect(fileSystem.stat('/lib/large')?.type).toBe('file');
  for (const nothing of ['/circle', '/dangling', '/empty/under', '/missing'])
    expect(fileSystem.stat(nothing)).toBeUndefined();
}

/** Opens what is in an image, which must be one of these. */
export function withFileSystem<T>(
  open: (volume: Disk) => EditableFileSystem | undefined,
  image: string,
  use: (fileSystem: FilesByPath) => T,
): T {
  using disk = closing(openFileDisk(image));
  const fileSystem = open(disk.value);
  if (fileSystem === undefined) throw new Error(`${image} holds no such file system`);
  return use(new FilesByPath(fileSystem));
}

/** Why nothing can be mounted here; undefined where it can. */
export function whyNoMounts(): string | undefined {
  using folder = new TempFolder();
  const image = folder.file('probe');
  try {
    fs.writeFileSync(image, '');
    fs.truncateSync(image, 2 * MiB);
    run('mke2fs', '-q', '-F', image);
    withMounted(image, [], () => undefined);
    return undefined;
  } catch (error) {
    return `a file system in a file cannot be mounted: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Has the kernel write to a file system (of ours, made a moment ago) and unmounts it, whatever happens. */
export function withMounted(image: string, options: readonly string[], use: (mountpoint: string) => void): void {
  using folder = new TempFolder();
  const mountpoint = folder.file('mnt');
  fs.mkdirSync(mountpoint);
  run('mount', '-o', ['loop', ...options].join(','), image, mountpoint);
  try {
    use(mountpoint);
  } finally {
    run('umount', mountpoint);
  }
}

export function copyTree(from: string, to: string): void {
  run('cp', '--archive', '--sparse=auto', `${from}/.`, to);
}

/** Runs a program that must succeed; returns what it printed. */
export function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
  });
}

/** What mkfs.xfs calls a prototype: the tree as text. */
export function prototypeOf(from: string): string {
  const lines = (at: string): string[] =>
    fs.readdirSync(at, { withFileTypes: true }).flatMap((entry) => {
      const place = `${at}/${entry.name}`;
      if (entry.isDirectory()) return [`${entry.name} d--755 0 0`, ...lines(place), '$'];
      if (entry.isSymbolicLink()) return [`${entry.name} l--777 0 0 ${fs.readlinkSync(place)}`];
      return [`${entry.name} ---644 0 0 ${place}`];
    });
  return ['none', '0 0', 'd--755 0 0', ...lines(from), '$', ''].join('\n');
}
