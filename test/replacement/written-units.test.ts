/** What a look at a map from outside takes for written: too much at times, never too little. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { unitBytes } from '../../src/replacement/layout.ts';
import { allowDirectWrites, changeState } from '../../src/replacement/states.ts';
import { readWrittenUnits } from '../../src/replacement/written-units.ts';
import { TempFolder } from '../temp-folder.ts';
import { filesOf, KeptFile, otherBoots, placeOf } from './kept-file.ts';

const baseBytes = 6 * unitBytes + 1000;
const unitCount = 7;

type Place = ReturnType<typeof placeOf>;

/** Unit 2 is written, unit 4 is copied by the fill. */
function writtenAndCopied(folder: TempFolder): Place {
  const place = placeOf(folder.file('disk.raw'), baseBytes);
  using file = new KeptFile(place);
  file.replacement.write(Buffer.alloc(100, 7), 2 * unitBytes + 50);
  changeState(file.open.parts, file.replacement.map, 'filling');
  file.filler.copy(4, 5);
  file.replacement.sync();
  return place;
}

/** Units that count as written. */
function writtenOf(place: Place): number[] | undefined {
  const isWritten = readWrittenUnits(place);
  return (
    isWritten && Array.from({ length: unitCount }, (_, unit) => unit).filter((unit) => isWritten(unit * unitBytes, 1))
  );
}

const all = [0, 1, 2, 3, 4, 5, 6];

it('without a map nothing is written', () => {
  using folder = new TempFolder();
  expect(writtenOf(placeOf(folder.file('disk.raw'), baseBytes))).toBeUndefined();
});

it('units that the guest wrote are, and those that the fill copied are not', () => {
  using folder = new TempFolder();
  const place = writtenAndCopied(folder);
  expect(writtenOf(place)).toEqual([2]);
  const isWritten = readWrittenUnits(place);
  expect(isWritten?.(unitBytes, unitBytes)).toBe(false);
  expect(isWritten?.(unitBytes, unitBytes + 1)).toBe(true);
  expect(isWritten?.(3 * unitBytes - 1, 1)).toBe(true);
  expect(isWritten?.(3 * unitBytes, 3 * unitBytes)).toBe(false);
});

it('also while it is open, without disturbing it', () => {
  using folder = new TempFolder();
  const place = writtenAndCopied(folder);
  using file = new KeptFile(place);
  file.replacement.write(Buffer.alloc(1), 5 * unitBytes);
  expect(writtenOf(place)).toEqual([2, 5]);
  file.replacement.write(Buffer.alloc(1), 0);
  expect(writtenOf(place)).toEqual([0, 2, 5]);
});

it('what was cut off, and what has grown, counts as written', () => {
  using folder = new TempFolder();
  const place = placeOf(folder.file('disk.raw'), baseBytes);
  using file = new KeptFile(place);
  const whole = readWrittenUnits(place);
  expect([whole?.(0, baseBytes), whole?.(0, baseBytes + 1), whole?.(baseBytes + 1, 0)]).toEqual([false, true, false]);
  file.replacement.truncate(5 * unitBytes - 3);
  file.replacement.truncate(baseBytes);
  expect(writtenOf(place)).toEqual([5, 6]);
  const isWritten = readWrittenUnits(place);
  expect(isWritten?.(4 * unitBytes, unitBytes - 3)).toBe(false);
  expect(isWritten?.(4 * unitBytes, unitBytes - 2)).toBe(true);
});

it('after a power loss copied units count, before and after the next open', () => {
  using folder = new TempFolder();
  const place = writtenAndCopied(folder);
  new KeptFile(place, otherBoots[0]).close();
  expect(writtenOf(place)).toEqual([2, 4]);
  new KeptFile(place).close();
  expect(writtenOf(place)).toEqual([2, 4]);
});

it('everything counts where a guest may write past the map, and where the map is another disk’s', () => {
  using folder = new TempFolder();
  const place = writtenAndCopied(folder);
  expect(writtenOf({ ...place, pluginId: otherBoots[0] })).toEqual(all);
  expect(writtenOf({ ...place, baseBytes: baseBytes - 1 })).toEqual(all);
  {
    using file = new KeptFile(place);
    allowDirectWrites(file.open.parts, file.replacement.map);
    expect(writtenOf(place)).toEqual(all);
  }
  expect(writtenOf(place)).toEqual(all);
});

it('everything counts where the map is damaged, or no file', () => {
  using folder = new TempFolder();
  const place = writtenAndCopied(folder);
  const { map } = filesOf(place);
  fs.writeFileSync(map, fs.readFileSync(map).fill(0xff, 0, 8192));
  expect(writtenOf(place)).toEqual(all);
  fs.rmSync(map);
  fs.mkdirSync(map);
  expect(writtenOf(place)).toEqual(all);
});
