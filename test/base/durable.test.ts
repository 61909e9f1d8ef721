import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { commitFile, openUnfinished, syncFolder, writeFileDurably } from '../../src/base/durable.ts';
import { UnavailableError, VeneerError } from '../../src/base/errors.ts';
import { fileModes } from '../../src/base/file-modes.ts';
import { lockExclusively } from '../../src/base/file-lock.ts';
import { isSameFile } from '../../src/base/same-file.ts';
import { seededTest } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

describe('a file that is written durably', () => {
  it('appears whole under its name, and no other is left', () => {
    using folder = new TempFolder();
    const contents = seededTest('durable').bytes(200_000);
    writeFileDurably(folder.file('note'), contents, 0o644);
    expect(folder.names()).toEqual(['note']);
    expect(fs.readFileSync(folder.file('note')).equals(contents)).toBe(true);
  });

  it('replaces an older one, and what an interrupted write left', () => {
    using folder = new TempFolder();
    folder.write('note', 'an older and longer text');
    folder.write('note.veneer-part', 'what is left of an interrupted one, which is longer still');
    writeFileDurably(folder.file('note'), Buffer.from('new'), 0o644);
    expect(folder.names()).toEqual(['note']);
    expect(fs.readFileSync(folder.file('note'), 'utf8')).toBe('new');
  });

  it('leaves the older one alone and nothing behind when it fails', () => {
    using folder = new TempFolder();
    fs.mkdirSync(folder.file('note'));
    folder.write('note/inside', 'a folder cannot be replaced by a file');
    expect(() => writeFileDurably(folder.file('note'), Buffer.from('new'), 0o644)).toThrow(UnavailableError);
    expect(folder.names()).toEqual(['note']);
  });

  it('is an error of ours, in one line, where the folder is missing', () => {
    using folder = new TempFolder();
    expect(() => writeFileDurably(folder.file('nowhere/note'), Buffer.from('new'), 0o644)).toThrow(UnavailableError);
    expect(() => syncFolder(folder.file('nowhere'))).toThrow(VeneerError);
  });

  it('is not there before it is committed', () => {
    using folder = new TempFolder();
    const fd = openUnfinished(folder.file('note'), 'empty', 0o644);
    fs.writeSync(fd, 'text');
    expect(folder.names()).toEqual(['note.veneer-part']);
    commitFile(fd, folder.file('note'));
    fs.closeSync(fd);
    expect(folder.names()).toEqual(['note']);
  });

  it('is not written through a link that someone has put there', () => {
    using folder = new TempFolder();
    folder.write('precious', 'not to be lost');
    fs.symlinkSync('precious', folder.file('note.veneer-part'));
    writeFileDurably(folder.file('note'), Buffer.from('new'), fileModes.diskFile);
    expect(fs.readFileSync(folder.file('precious'), 'utf8')).toBe('not to be lost');
    expect(fs.lstatSync(folder.file('note')).isFile()).toBe(true);
    expect(fs.readFileSync(folder.file('note'), 'utf8')).toBe('new');
    expect(folder.names()).toEqual(['note', 'precious']);
  });
});

it('a file has one writer: the second is told, and may write when the first is done', () => {
  using folder = new TempFolder();
  const file = folder.write('file', '');
  const first = fs.openSync(file, 'r+');
  const second = fs.openSync(file, 'r+');
  lockExclusively(first, file);
  expect(() => lockExclusively(second, file)).toThrow(/another process is writing it/);
  fs.closeSync(first);
  lockExclusively(second, file);
  fs.closeSync(second);
});

it('names lead to the same file through links and relative paths, and a missing one is no file', () => {
  using folder = new TempFolder();
  const file = folder.write('file', 'x');
  folder.write('other', 'x');
  fs.symlinkSync('file', folder.file('link'));
  fs.linkSync(file, folder.file('hard'));
  for (const name of ['link', 'hard', `../${path.basename(folder.path)}/file`])
    expect(isSameFile(file, folder.file(name)), name).toBe(true);
  expect(isSameFile(file, folder.file('other'))).toBe(false);
  expect(isSameFile(folder.file('nowhere'), folder.file('nowhere'))).toBe(false);
});

describe('what a file never takes the place of', () => {
  const kinds: readonly (readonly [kind: string, make: (path: string) => void, says: RegExp])[] = [
    ['a folder', (path) => fs.mkdirSync(path), /is a folder/],
    ['a pipe', (path) => void execFileSync('mkfifo', [path]), /is a pipe/],
    ['a link to a file', (path) => linkToNew(path), /is a symbolic link.*name the file that it leads to/],
    ['a link to nothing', (path) => fs.symlinkSync('nowhere', path), /is a symbolic link/],
    ['a link to a device', (path) => fs.symlinkSync('/dev/null', path), /is a symbolic link.*\/dev\/null/],
  ];

  function linkToNew(link: string): void {
    fs.writeFileSync(`${link}.target`, 'of value');
    fs.symlinkSync(`${path.basename(link)}.target`, link);
  }

  it.each(kinds)('is %s', (_kind, make, says) => {
    using folder = new TempFolder();
    make(folder.file('there'));
    const before = folder.names();
    const stat = fs.lstatSync(folder.file('there'));
    expect(() => writeFileDurably(folder.file('there'), Buffer.from('new'), fileModes.diskFile)).toThrow(says);
    expect(folder.names()).toEqual(before);
    expect(fs.lstatSync(folder.file('there')).ino).toBe(stat.ino);
  });

  it('is a device', () => {
    expect(() => openUnfinished('/dev/null', 'empty', fileModes.diskFile)).toThrow(/is a character device/);
    expect(fs.existsSync('/dev/null.veneer-part')).toBe(false);
  });

  it.each(kinds)('is %s that got the name meanwhile', (_kind, make) => {
    using folder = new TempFolder();
    const fd = openUnfinished(folder.file('there'), 'empty', fileModes.diskFile);
    try {
      make(folder.file('there'));
      expect(() => commitFile(fd, folder.file('there'))).toThrow(VeneerError);
    } finally {
      fs.closeSync(fd);
    }
  });
});
