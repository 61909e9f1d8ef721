/** How long a native file may become. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { TooLargeError } from '../../src/base/errors.ts';
import { maxFileBytes, unitBytes } from '../../src/replacement/layout.ts';
import { changeState } from '../../src/replacement/states.ts';
import { thrownBy } from '../backup/image-holds.ts';
import { TempFolder } from '../temp-folder.ts';
import { filesOf, KeptFile, placeOf } from './kept-file.ts';

const baseBytes = unitBytes + 10;

it('a file grows as far as its map has units, and no byte farther', () => {
  using folder = new TempFolder();
  const place = placeOf(folder.file('disk.raw'), baseBytes);
  using file = new KeptFile(place);
  const mostBytes = file.replacement.map.unitCount * unitBytes;
  const growths = [
    (bytes: number) => file.replacement.write(Buffer.alloc(10, 7), bytes - 10),
    (bytes: number) => file.replacement.truncate(bytes),
    (bytes: number) => file.replacement.growTo(bytes),
  ];
  for (const grow of growths) {
    expect(thrownBy(() => grow(mostBytes + 1))).toBeInstanceOf(TooLargeError);
    expect([file.sizeBytes, fs.statSync(filesOf(place).data).size]).toEqual([baseBytes, baseBytes]);
  }
  for (const grow of growths) {
    grow(mostBytes);
    expect(file.sizeBytes).toBe(mostBytes);
    file.replacement.truncate(baseBytes);
  }
});

it('a file that serves alone is not asked for its map, but no file is longer than the limit', () => {
  using folder = new TempFolder();
  using file = new KeptFile(placeOf(folder.file('disk.raw'), baseBytes));
  changeState(file.open.parts, file.replacement.map, 'filling');
  changeState(file.open.parts, file.replacement.map, 'complete', true);
  const ofMap = file.replacement.map.unitCount * unitBytes;
  file.replacement.write(Buffer.alloc(10, 7), ofMap);
  expect(file.sizeBytes).toBe(ofMap + 10);
  expect(thrownBy(() => file.replacement.truncate(maxFileBytes + 1))).toBeInstanceOf(TooLargeError);
  expect(thrownBy(() => file.replacement.write(Buffer.alloc(2), maxFileBytes - 1))).toBeInstanceOf(TooLargeError);
  expect(file.sizeBytes).toBe(ofMap + 10);
});
