/** Messages name files as users know them, also where a call began at a descriptor. */
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import * as fs from '../../src/base/fs.ts';
import { openPath } from '../../src/base/open-path.ts';
import { systemError } from '../../src/base/system-error.ts';
import { veneer } from '../cli/veneer.ts';
import { TempFolder } from '../temp-folder.ts';

it('a call that begins at a descriptor fails with the path that it leads to', () => {
  using temporary = new TempFolder();
  const folder = temporary.file('folder\udcff');
  fs.mkdirSync(folder);
  const fd = openPath(folder);
  onTestFinished(() => fs.closeSync(fd));
  const at = `/proc/self/fd/${fd}`;
  expect(() => fs.lstatSync(`${at}/nothing`)).toThrow(`lstat '${folder}/nothing'`);
  expect(() => fs.renameSync(`${at}/nothing`, `${at}/other`)).toThrow(`'${folder}/nothing' -> '${folder}/other'`);
  expect(() => openPath(`${at}/nothing`)).toThrow(`open '${folder}/nothing'`);
  expect(systemError('EIO', 'openat2', `${at}/nothing`).message).toBe(`EIO: openat2 '${folder}/nothing'`);
  fs.renameSync(folder, path.join(path.dirname(folder), 'moved'));
  expect(() => fs.lstatSync(`${at}/nothing`)).toThrow(/lstat '.*\/moved\/nothing'/);
});

it('a command names the file that it was given, and where in the source it failed', async () => {
  using temporary = new TempFolder();
  const file = temporary.file('nothing.vhdx');
  const { status, stderr } = await veneer('--debug', 'fill', 'status', file);
  expect(status).toBe(1);
  expect(stderr.split('\n')[0]).toBe(`veneer: ENOENT: no such file or directory, lstat '${file}'`);
  expect(stderr).toMatch(/\/src\/cli\/fill\.ts:\d+:\d+/);
});
