/** Structures that point in circles cost their bound; a file's data may be as long as it is. */
import { expect, it } from 'vitest';
import { FormatError, UnsupportedError } from '../../src/base/errors.ts';
import { GiB, MiB } from '../../src/base/units.ts';
import { zeroDisk } from '../../src/disk/zero.ts';
import { VolumeReader } from '../../src/filesystem/volume-reader.ts';

const readBytes = 64 * MiB;

it('structures have a budget for all of them together, and data have none', () => {
  const reader = new VolumeReader(zeroDisk(GiB), 'ext4');
  const most = (4 * GiB) / readBytes;
  for (let count = 0; count <= most; count++) expect(reader.readData(0, readBytes)).toHaveLength(readBytes);
  for (let count = 0; count < most; count++) reader.read(0, readBytes, 'folder');
  expect(() => reader.read(0, 1, 'folder')).toThrow(UnsupportedError);
  expect(reader.readData(GiB - 1, 1)).toHaveLength(1);
});

it('neither leaves the volume, nor is more at once than a structure may have', () => {
  const reader = new VolumeReader(zeroDisk(GiB), 'ext4');
  for (const [offset, length] of [
    [GiB - 1, 2],
    [-1, 1],
    [0, readBytes + 1],
    [Number.NaN, 1],
  ] as const) {
    expect(() => reader.read(offset, length, 'folder')).toThrow(FormatError);
    expect(() => reader.readData(offset, length)).toThrow(FormatError);
  }
});
