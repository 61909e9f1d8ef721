/** What lies in a folder of images under the registry's name may be anybody's: nothing is written to what is not the folder's own. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { tryLock } from '../../src/base/file-lock.ts';
import { MiB } from '../../src/base/units.ts';
import { numberedGuid } from '../backup/crafted-image.ts';
import { registeredPointers, registerPointers } from '../../src/plugin/pointer-registry.ts';
import { TempFolder } from '../temp-folder.ts';

const imageId = numberedGuid(1);
const someone = 61_001;
let folder: TempFolder;
let plugin: string;
let registry: string;

beforeEach(() => {
  folder = new TempFolder();
  const made = folder;
  onTestFinished(() => made.remove());
  for (const name of ['vms', 'images']) fs.mkdirSync(folder.file(name));
  plugin = folder.write('vms/vm.raw', 'a plugin file');
  registry = folder.file('images/.veneer-pointers');
});

const tell = (waits = true): string[] =>
  registerPointers(plugin, [{ kind: 'chain', path: '../images/vm.spf', id: imageId }], waits);
const known = (): string[] => registeredPointers(folder.file('images'), () => true).map((line) => line.plugin);

it('a line is written once, also behind one that a crash cut off', () => {
  fs.writeFileSync(registry, '{"plugin":"/x');
  expect(tell()).toEqual([]);
  const text = fs.readFileSync(registry, 'utf8');
  expect(tell()).toEqual([]);
  expect(fs.readFileSync(registry, 'utf8')).toBe(text);
  expect(known()).toEqual([plugin]);
});

describe('nothing is written to', () => {
  it.each([
    ['a link', (precious: string) => fs.symlinkSync(precious, registry)],
    ['a further name of another file', (precious: string) => fs.linkSync(precious, registry)],
    ['a pipe', () => execFileSync('mkfifo', [registry])],
    ['a folder', () => fs.mkdirSync(registry)],
  ])('%s', (_what, plant) => {
    const precious = folder.write('precious', 'not to be changed');
    plant(precious);
    expect(tell()).toEqual([folder.file('images')]);
    expect(fs.readFileSync(precious, 'utf8')).toBe('not to be changed');
  });

  it.skipIf(process.getuid?.() !== 0)('a file of somebody who does not own the folder; of who does, it is', () => {
    fs.writeFileSync(registry, '');
    fs.chownSync(registry, someone, someone);
    expect(tell()).toEqual([folder.file('images')]);
    expect(fs.readFileSync(registry, 'utf8')).toBe('');
    fs.chownSync(folder.file('images'), someone, someone);
    expect(tell()).toEqual([]);
    expect(known()).toEqual([plugin]);
  });

  it('one that is full; and reading one that is too large is an error, not the same as knowing of nobody', () => {
    fs.writeFileSync(registry, '');
    fs.truncateSync(registry, 16 * MiB);
    expect(tell()).toEqual([folder.file('images')]);
    fs.truncateSync(registry, 16 * MiB + 1);
    expect(known).toThrow(/has more than 16 MiB of lines.*take out those that nobody needs/);
  });
});

it('a lock that somebody keeps is not waited for where a guest waits', () => {
  fs.writeFileSync(registry, '');
  const fd = fs.openSync(registry, 'r');
  try {
    tryLock(fd, 'exclusive');
    const startedMs = performance.now();
    expect(tell(false)).toEqual([folder.file('images')]);
    expect(performance.now() - startedMs).toBeLessThan(1000);
  } finally {
    fs.closeSync(fd);
  }
  expect(tell(false)).toEqual([]);
});
