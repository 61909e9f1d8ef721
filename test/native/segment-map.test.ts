import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { memoryDisk } from '../../src/disk/memory.ts';
import { patchedDisk } from '../../src/disk/patched.ts';
import { zeroDisk } from '../../src/disk/zero.ts';
import { SegmentMap, type Segment } from '../../src/native/segment-map.ts';

const disk = memoryDisk(Uint8Array.from({ length: 1000 }, (_, index) => index % 251));
const noDisk = (): Disk => {
  throw new Error('the disk was asked');
};

/** Counts from the start of the segment, so that a wrong offset shows. */
const counting = (lengthBytes: number): Segment => ({
  kind: 'computed',
  lengthBytes,
  fill: (target, offset) => {
    for (let index = 0; index < target.length; index++) target[index] = (offset + index) % 256;
  },
});

const map = new SegmentMap([
  { kind: 'bytes', bytes: Uint8Array.of(1, 2, 3, 4, 5) },
  { kind: 'zeros', lengthBytes: 7 },
  { kind: 'zeros', lengthBytes: 0 },
  counting(300),
  { kind: 'disk', lengthBytes: 400, diskOffset: 500 },
  { kind: 'bytes', bytes: new Uint8Array(0) },
  { kind: 'disk', lengthBytes: 100, diskOffset: 0 },
  { kind: 'zeros', lengthBytes: 3 },
]);

function whole(): Uint8Array {
  const expected = new Uint8Array(815);
  expected.set([1, 2, 3, 4, 5]);
  for (let index = 0; index < 300; index++) expected[12 + index] = index % 256;
  for (let index = 0; index < 400; index++) expected[312 + index] = (500 + index) % 251;
  for (let index = 0; index < 100; index++) expected[712 + index] = index % 251;
  return expected;
}

describe('a segment map', () => {
  it('is as long as its segments together', () => {
    expect(map.sizeBytes).toBe(815);
    expect(new SegmentMap([]).sizeBytes).toBe(0);
  });

  it('reads every range as the materialized file does', () => {
    const expected = whole();
    for (let offset = 0; offset <= 815; offset += 3) {
      for (const length of [0, 1, 2, 5, 8, 13, 100, 310, 815]) {
        if (offset + length > 815) continue;
        const target = new Uint8Array(length).fill(0xee);
        map.read(target, offset, () => disk);
        expect(target).toEqual(expected.slice(offset, offset + length));
      }
    }
  });

  it('refuses a range that is not inside the file', () => {
    for (const [offset, length] of [
      [815, 1],
      [-1, 1],
      [0, 816],
      [0.5, 1],
      [Number.NaN, 1],
    ] as const) {
      expect(() => map.read(new Uint8Array(length), offset, () => disk)).toThrow(UsageError);
    }
    expect(() => new SegmentMap([]).read(new Uint8Array(1), 0, noDisk)).toThrow(UsageError);
    new SegmentMap([]).read(new Uint8Array(0), 0, noDisk);
  });

  it('asks for the disk only where the disk is', () => {
    map.read(new Uint8Array(312), 0, noDisk);
    map.read(new Uint8Array(3), 812, noDisk);
    expect(() => map.read(new Uint8Array(1), 312, noDisk)).toThrow('the disk was asked');
    expect([...map.extents(0, 312, noDisk)]).toEqual([
      { offset: 0, length: 5, kind: 'data' },
      { offset: 5, length: 7, kind: 'zero' },
      { offset: 12, length: 300, kind: 'data' },
    ]);
    expect(map.needsDisk(0, 312)).toBe(false);
    expect(map.needsDisk(0, 313)).toBe(true);
    expect(map.needsDisk(812, 3)).toBe(false);
  });

  it('gives the extents of the disk at their places in the file', () => {
    const sparse = patchedDisk(zeroDisk(1000), [{ offset: 600, bytes: new Uint8Array(50) }]);
    expect([...map.extents(300, 515, () => sparse)]).toEqual([
      { offset: 300, length: 12, kind: 'data' },
      { offset: 312, length: 100, kind: 'zero' },
      { offset: 412, length: 50, kind: 'data' },
      { offset: 462, length: 353, kind: 'zero' },
    ]);
    expect([...map.extents(420, 10, () => sparse)]).toEqual([{ offset: 420, length: 10, kind: 'data' }]);
  });

  it('lists where the disk lies in the file', () => {
    expect([...map.diskRanges()]).toEqual([
      { fileOffset: 312, diskOffset: 500, lengthBytes: 400 },
      { fileOffset: 712, diskOffset: 0, lengthBytes: 100 },
    ]);
  });

  it('passes on what the disk throws', () => {
    const failing: Disk = {
      ...disk,
      read: () => {
        throw new Error('bad sector');
      },
    };
    expect(() => map.read(new Uint8Array(10), 310, () => failing)).toThrow('bad sector');
  });
});
