/** The record of a finalized disk: which name it gets, and that it is a file of its own. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { keepRecord, recordPathOf, separateRecord, separateRecords } from '../../src/replacement/record.ts';
import { TempFolder } from '../temp-folder.ts';
import { pluginText } from './kept-file.ts';

const plugin = pluginText();

function linkCount(file: string): number {
  return fs.statSync(file).nlink;
}

describe('a record', () => {
  it('is a copy with the rights of its plugin file', () => {
    using folder = new TempFolder();
    const file = folder.write('disk.raw', plugin);
    fs.chmodSync(file, 0o640);
    const record = keepRecord(file);
    expect(record).toBe(folder.file('disk.raw.finalized'));
    expect(fs.readFileSync(record, 'utf8')).toBe(plugin);
    expect(fs.statSync(record).mode & 0o777).toBe(0o640);
    expect([linkCount(file), linkCount(record)]).toEqual([1, 1]);
    expect(folder.names()).toEqual(['disk.raw', 'disk.raw.finalized']);
  });

  it('that an interrupted attempt has left is used again, and any other file is left alone', () => {
    using folder = new TempFolder();
    const file = folder.write('disk.raw', plugin);
    folder.write('disk.raw.finalized', 'of an earlier disk');
    fs.mkdirSync(recordPathOf(file, 1));
    const record = keepRecord(file);
    expect(record).toBe(folder.file('disk.raw.2.finalized'));
    const { ino } = fs.statSync(record);
    expect(keepRecord(file)).toBe(record);
    expect(fs.statSync(record).ino).toBe(ino);
    expect(fs.readFileSync(folder.file('disk.raw.finalized'), 'utf8')).toBe('of an earlier disk');
  });

  it('that is a further name of the plugin file becomes a file of its own', () => {
    using folder = new TempFolder();
    const file = folder.write('disk.raw', plugin);
    const record = recordPathOf(file, 0);
    fs.linkSync(file, record);
    expect(keepRecord(file)).toBe(record);
    expect([linkCount(file), linkCount(record)]).toEqual([1, 1]);
    expect(fs.readFileSync(record, 'utf8')).toBe(plugin);
  });

  it('of a folder is separated by its name alone, and only where it is a plugin file', () => {
    using folder = new TempFolder();
    const file = folder.write('disk.raw', plugin);
    const other = folder.write('other', 'no plugin file');
    for (const name of ['a.finalized', 'a.other']) fs.linkSync(file, folder.file(name));
    fs.linkSync(other, folder.file('b.finalized'));
    expect(separateRecords(folder.path)).toEqual([]);
    expect(['disk.raw', 'a.finalized', 'a.other', 'b.finalized'].map((name) => linkCount(folder.file(name)))).toEqual([
      2, 1, 2, 2,
    ]);
    separateRecord(folder.file('is not there.finalized'));
  });
});
