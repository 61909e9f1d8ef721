import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { mountPoints } from '../../src/base/mount-points.ts';
import { sourceNameOf } from '../../src/base/source-name.ts';
import { TempFolder } from '../temp-folder.ts';

/** A file system of its own that every Linux has. */
const foreign = ['/proc', '/sys', '/dev'].find((point) => mountPoints().includes(point)) ?? '/proc';

it('is the folder that the file lies in, where that is on the same file system', () => {
  using folder = new TempFolder();
  fs.mkdirSync(folder.file('a'));
  expect(sourceNameOf(folder.file('a/vm.spf'), folder.path)).toBe(folder.file('a'));
  expect(sourceNameOf(folder.file('nowhere/vm.spf'), folder.path)).toBe(folder.file('nowhere'));
});

it('is the mount point of another file system, however deep the file lies in it', () => {
  using folder = new TempFolder();
  expect(sourceNameOf(`${foreign}/one/two/vm.spf`, folder.path)).toBe(foreign);
});

it('follows links to where they lead, and ends at another file system without looking into it', () => {
  using folder = new TempFolder();
  fs.mkdirSync(folder.file('real'));
  fs.symlinkSync('real', folder.file('link'));
  fs.symlinkSync(`${foreign}/self/vm.spf`, folder.file('vm.spf'));
  fs.symlinkSync(path.relative(folder.path, foreign), folder.file('relative'));
  expect(sourceNameOf(folder.file('link/vm.spf'), folder.path)).toBe(fs.realpathSync(folder.file('real')));
  expect(sourceNameOf(folder.file('vm.spf'), folder.path)).toBe(foreign);
  expect(sourceNameOf(folder.file('relative/a/b'), folder.path)).toBe(foreign);
});

it('comes to an end where links lead in a circle', () => {
  using folder = new TempFolder();
  fs.symlinkSync('circle', folder.file('circle'));
  expect(sourceNameOf(folder.file('circle/vm.spf'), folder.path)).toBe(folder.file('circle'));
});
