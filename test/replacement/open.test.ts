import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { BusyError, FormatError } from '../../src/base/errors.ts';
import { mapHeaderBytes, unitBytes } from '../../src/replacement/layout.ts';
import { hasReplacement } from '../../src/plugin/beside.ts';
import { removeReplacement } from '../../src/replacement/open.ts';
import { thrownBy } from '../backup/image-holds.ts';
import { TempFolder } from '../temp-folder.ts';
import { filesOf, KeptFile, otherBoots, placeOf } from './kept-file.ts';

const baseBytes = 5 * unitBytes + 99;
const written = Buffer.alloc(3000, 7);

/** A replacement that was written, cut and closed. */
function made(folder: TempFolder): ReturnType<typeof placeOf> {
  const place = placeOf(folder.file('disk.vhdx'), baseBytes);
  using file = new KeptFile(place);
  file.replacement.write(written, unitBytes);
  file.replacement.truncate(3 * unitBytes);
  file.replacement.truncate(4 * unitBytes);
  return place;
}

function expectIntact(place: ReturnType<typeof placeOf>): void {
  using file = new KeptFile(place);
  expect(file.sizeBytes).toBe(4 * unitBytes);
  expect(file.read(unitBytes, written.length).equals(written)).toBe(true);
  // What was cut off stays away.
  expect(file.read(3 * unitBytes, unitBytes).equals(Buffer.alloc(unitBytes))).toBe(true);
}

function damage(path: string, ...offsets: number[]): void {
  const bytes = fs.readFileSync(path);
  for (const offset of offsets) bytes[offset] = (bytes[offset] ?? 0) ^ 0x40;
  fs.writeFileSync(path, bytes);
}

/** Everything in the folder, by name. */
function snapshot(folder: TempFolder): Array<[string, string]> {
  return folder.names().map((name) => [name, fs.readFileSync(folder.file(name)).toString('base64')]);
}

describe('a replacement', () => {
  // The first here: what is waited in all is given to a process once.
  it('that somebody is about to let go is waited for', async () => {
    using folder = new TempFolder();
    const place = made(folder);
    const holder = spawn('flock', ['--exclusive', filesOf(place).data, 'sh', '-c', 'echo held; sleep 0.5']);
    const ended = once(holder, 'exit');
    await once(holder.stdout, 'data');
    expectIntact(place);
    await ended;
  });

  it.each([0, 8, 33, 70, 4095])('with byte %i of one header damaged is as it was, and both are sound again', (at) => {
    for (const [first, second] of [
      [at, mapHeaderBytes + at],
      [mapHeaderBytes + at, at],
    ] as const) {
      using folder = new TempFolder();
      const place = made(folder);
      damage(filesOf(place).map, first);
      expectIntact(place);
      damage(filesOf(place).map, second);
      expectIntact(place);
    }
  });

  it('with both headers damaged is refused, and left as it is', () => {
    using folder = new TempFolder();
    const place = made(folder);
    damage(filesOf(place).map, 70, mapHeaderBytes + 70);
    const before = snapshot(folder);
    expect(thrownBy(() => new KeptFile(place))).toBeInstanceOf(FormatError);
    expect(snapshot(folder)).toEqual(before);
  });

  it('of another plugin file, or of another size, is refused, and left as it is', () => {
    using folder = new TempFolder();
    const place = made(folder);
    const before = snapshot(folder);
    for (const other of [
      { ...place, pluginId: otherBoots[0] },
      { ...place, baseBytes: baseBytes + 512 },
    ]) {
      expect(thrownBy(() => new KeptFile(other))).toBeInstanceOf(FormatError);
      expect(thrownBy(() => new KeptFile(other, otherBoots[1]))).toBeInstanceOf(FormatError);
    }
    expect(snapshot(folder)).toEqual(before);
    expectIntact(place);
  });

  it('whose data file is gone or cut short is refused, not taken for empty', () => {
    using folder = new TempFolder();
    const place = made(folder);
    const { data } = filesOf(place);
    fs.truncateSync(data, unitBytes);
    expect(thrownBy(() => new KeptFile(place))).toBeInstanceOf(FormatError);
    fs.rmSync(data);
    expect(thrownBy(() => new KeptFile(place))).toBeInstanceOf(FormatError);
    expect(fs.existsSync(data)).toBe(false);
  });

  it('that is open is neither opened again nor removed', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.vhdx'), baseBytes);
    {
      using file = new KeptFile(place);
      file.replacement.write(written, 0);
      expect(thrownBy(() => new KeptFile(place))).toBeInstanceOf(BusyError);
      expect(thrownBy(() => removeReplacement(place))).toBeInstanceOf(BusyError);
      expect(file.read(0, written.length).equals(written)).toBe(true);
    }
    expect(hasReplacement(place.path)).toBe(true);
    removeReplacement(place);
    expect(folder.names()).toEqual([]);
    removeReplacement(place);
  });

  it('is not written through a planted link', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.vhdx'), baseBytes);
    const precious = folder.write('precious', 'precious');
    fs.symlinkSync(precious, filesOf(place).data);
    expect(() => new KeptFile(place)).toThrow('is a symbolic link, where a file is expected; move it away');
    expect(fs.readFileSync(precious, 'utf8')).toBe('precious');
  });
});
