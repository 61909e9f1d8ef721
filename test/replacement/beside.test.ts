/** Whose writes lie beside a native file. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FormatError, UnavailableError } from '../../src/base/errors.ts';
import {
  isKept,
  isOwnKept,
  mayBeMap,
  peekHeader,
  replacementStat,
  requireNotRenamed,
} from '../../src/replacement/beside.ts';
import { mapHeaderBytes, unitBytes } from '../../src/replacement/layout.ts';
import { changeState } from '../../src/replacement/states.ts';
import { thrownBy } from '../backup/image-holds.ts';
import { TempFolder } from '../temp-folder.ts';
import { filesOf, KeptFile, kinds, otherBoots, placeOf } from './kept-file.ts';

const baseBytes = 2 * unitBytes;

type Place = ReturnType<typeof placeOf>;

function make(place: Place): Place {
  new KeptFile(place).close();
  return place;
}

function makeFinal(place: Place): Place {
  using file = new KeptFile(place);
  for (const state of ['filling', 'complete', 'final'] as const)
    changeState(file.open.parts, file.replacement.map, state);
  return place;
}

describe('writes under a name that nothing has', () => {
  it('are those of a plugin file that was renamed, and stop it until they have its name', () => {
    using folder = new TempFolder();
    make(placeOf(folder.file('old.raw'), baseBytes));
    const renamed = placeOf(folder.write('new.raw', 'a plugin file'), baseBytes);
    expect(() => requireNotRenamed(renamed)).toThrow(/renamed.*old\.raw\.replacement and old\.raw\.replacement-map/);
    expect(thrownBy(() => requireNotRenamed(renamed))).toBeInstanceOf(UnavailableError);
    requireNotRenamed({ ...renamed, pluginId: otherBoots[0] });
    folder.write('old.raw', 'another plugin file');
    requireNotRenamed(renamed);
  });

  it('are nobody’s where they were to be thrown away, or have become a disk file', () => {
    using folder = new TempFolder();
    make(placeOf(folder.file('new.raw.discard'), baseBytes));
    makeFinal(placeOf(folder.file('old.raw'), baseBytes));
    requireNotRenamed(placeOf(folder.write('new.raw', 'a plugin file'), baseBytes));
  });
});

describe('a map beside a native file', () => {
  it('is its own by id and size', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    expect([isKept(place), isOwnKept(place)]).toEqual([false, false]);
    make(place);
    expect([isKept(place), isOwnKept(place)]).toEqual([true, true]);
    for (const other of [
      { ...place, pluginId: otherBoots[0] },
      { ...place, baseBytes: baseBytes + 1 },
    ]) {
      expect(thrownBy(() => isKept(other))).toBeInstanceOf(FormatError);
      expect(isOwnKept(other)).toBe(false);
    }
  });

  it('that another plugin file’s finalize has left is nobody’s, once its data has gone to be the disk', () => {
    using folder = new TempFolder();
    const place = makeFinal(placeOf(folder.file('disk.raw'), baseBytes));
    const other = { ...place, pluginId: otherBoots[0] };
    expect(thrownBy(() => isKept(other))).toBeInstanceOf(FormatError);
    fs.rmSync(filesOf(place).data);
    expect(isKept(other)).toBe(false);
    expect(isKept(place)).toBe(true);
  });

  it('that is not final is in the way of another plugin file, with its data or without', () => {
    using folder = new TempFolder();
    const place = make(placeOf(folder.file('disk.raw'), baseBytes));
    fs.rmSync(filesOf(place).data);
    expect(thrownBy(() => isKept({ ...place, pluginId: otherBoots[0] }))).toBeInstanceOf(FormatError);
  });

  it('is known by either of its headers, and no other file is taken for one', () => {
    using folder = new TempFolder();
    const { map } = filesOf(make(placeOf(folder.file('disk.raw'), baseBytes)));
    expect(mayBeMap(map)).toBe(true);
    const bytes = fs.readFileSync(map);
    for (const at of [0, mapHeaderBytes]) {
      expect(mayBeMap(folder.write('half', Buffer.from(bytes).fill(0, at, at + 8)))).toBe(true);
    }
    expect(mayBeMap(folder.write('none', Buffer.from(bytes).fill(0, 0, 2 * mapHeaderBytes)))).toBe(false);
    fs.symlinkSync(map, folder.file('link'));
    expect(mayBeMap(folder.file('link'))).toBe(false);
    // What cannot be looked at may be one.
    expect(mayBeMap(folder.file('not there'))).toBe(true);
  });

  it('is looked at without opening it, and says nothing where it is damaged', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    expect(peekHeader(place.path)).toBeUndefined();
    make(place);
    expect(peekHeader(place.path)?.pluginId).toBe(place.pluginId);
    const { map } = filesOf(place);
    fs.writeFileSync(
      map,
      fs
        .readFileSync(map)
        .fill(0xff, 100, 110)
        .fill(0xff, mapHeaderBytes + 100, mapHeaderBytes + 110),
    );
    expect(peekHeader(place.path)).toBeUndefined();
  });

  it.each(kinds)('says how long the file is (%s)', (kind) => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes, kind);
    expect(replacementStat(place)).toBeUndefined();
    {
      using file = new KeptFile(place);
      file.replacement.truncate(baseBytes - 1000);
    }
    expect(replacementStat(place)?.sizeBytes).toBe(baseBytes - 1000);
    expect(replacementStat({ ...place, pluginId: otherBoots[0] })).toBeUndefined();
  });
});
