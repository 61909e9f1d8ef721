/** What a crash has left of a `finalize`, and who removes it when. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { lockExclusively } from '../../src/base/file-lock.ts';
import { freeze, writePlain } from '../../src/fill/decrypt.ts';
import { finalizeFiles } from '../../src/fill/finalize.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { removeLeftover, removeLeftovers } from '../../src/replacement/leftovers.ts';
import type { ReplacementPlace } from '../../src/replacement/open.ts';
import { changeState } from '../../src/replacement/states.ts';
import { TempFolder } from '../temp-folder.ts';
import { filesOf, KeptFile, kinds, placeOf, pluginText, type Kind } from './kept-file.ts';

const baseBytes = 2 * unitBytes;

/** As a crash leaves it behind the rename into the plugin file's place. */
function cutShort(folder: TempFolder, kind: Kind): ReplacementPlace {
  const place = placeOf(folder.write('disk.raw', pluginText()), baseBytes, kind);
  using file = new KeptFile(place);
  const { parts } = file.open;
  file.replacement.write(Buffer.alloc(baseBytes, 7), 0);
  file.replacement.sync();
  changeState(parts, file.replacement.map, 'filling');
  changeState(parts, file.replacement.map, 'complete', true);
  if (kind === 'sealed') {
    freeze(parts);
    writePlain(parts, place.path);
  }
  finalizeFiles(place.path, [{ path: place.path, parts }]);
  return place;
}

describe.each(kinds)('what a crash has left of a finalize (%s data file)', (kind) => {
  it('is removed, and the disk file with its record stays', () => {
    using folder = new TempFolder();
    const place = cutShort(folder, kind);
    expect(fs.existsSync(filesOf(place).map)).toBe(true);
    expect(removeLeftovers(folder.path)).toEqual([place.path]);
    expect(folder.names()).toEqual(['disk.raw', 'disk.raw.finalized']);
    expect(fs.readFileSync(place.path)).toEqual(Buffer.alloc(baseBytes, 7));
    expect(removeLeftovers(folder.path)).toEqual([]);
  });

  it('stays as it is while a mount is at it', () => {
    using folder = new TempFolder();
    const place = cutShort(folder, kind);
    const before = folder.names();
    const fd = fs.openSync(kind === 'sealed' ? filesOf(place).data : place.path, 'r');
    try {
      lockExclusively(fd, place.path);
      expect(removeLeftovers(folder.path)).toEqual([]);
      expect(removeLeftover(folder.path, 'disk.raw')).toBe(true);
      expect(folder.names()).toEqual(before);
    } finally {
      fs.closeSync(fd);
    }
    expect(removeLeftover(folder.path, 'disk.raw')).toBe(true);
    expect(folder.names()).toEqual(['disk.raw', 'disk.raw.finalized']);
  });

  it.each([
    ['the record is gone', (place: ReplacementPlace) => fs.rmSync(`${place.path}.finalized`)],
    [
      'the plugin file is there under another name',
      (place: ReplacementPlace) => fs.writeFileSync(`${place.path}.copy`, pluginText()),
    ],
    ['a plugin file has the name of the disk', (place: ReplacementPlace) => fs.writeFileSync(place.path, pluginText())],
    ['nothing has the name of the disk', (place: ReplacementPlace) => fs.rmSync(place.path)],
    [
      'the file that is to take the name is still there',
      (place: ReplacementPlace) => {
        const { data } = filesOf(place);
        if (place.isSealed) fs.writeFileSync(`${data}-plain.veneer-part`, 'not renamed yet');
        else fs.writeFileSync(data, 'not renamed yet');
      },
    ],
  ])('stays as it is where %s', (_what, change) => {
    using folder = new TempFolder();
    const place = cutShort(folder, kind);
    change(place);
    const before = folder.names();
    expect(removeLeftovers(folder.path)).toEqual([]);
    expect(removeLeftover(folder.path, 'disk.raw')).toBe(false);
    expect(folder.names()).toEqual(before);
  });
});

it.each([
  ['a pipe', (data: string) => expect(spawnSync('mkfifo', [data]).status).toBe(0)],
  ['a link', (data: string) => fs.symlinkSync('precious', data)],
])('%s in the place of a sealed data file is neither waited for nor followed, and stays', (_what, plant) => {
  using folder = new TempFolder();
  const place = cutShort(folder, 'sealed');
  folder.write('precious', 'precious');
  fs.rmSync(filesOf(place).data);
  plant(filesOf(place).data);
  const before = folder.names();
  expect(removeLeftovers(folder.path)).toEqual([]);
  expect(folder.names()).toEqual(before);
});

it('a replacement that is not final is no leftover', () => {
  using folder = new TempFolder();
  const place = placeOf(folder.write('disk.raw', Buffer.alloc(512)), baseBytes);
  folder.write('disk.raw.finalized', pluginText());
  new KeptFile(place).close();
  const map = fs.readFileSync(filesOf(place).map);
  fs.rmSync(filesOf(place).data);
  expect(removeLeftovers(folder.path)).toEqual([]);
  expect(fs.readFileSync(filesOf(place).map)).toEqual(map);
});
