import { createHash } from 'node:crypto';
import { zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { CapacityError, FormatError } from '../../src/base/errors.ts';
import type { Disk, Extent } from '../../src/disk/disk.ts';
import { zeroDisk } from '../../src/disk/zero.ts';
import {
  allocatedCount,
  allocatedRuns,
  decodeRuns,
  encodeRuns,
  maxAllocatedRuns,
  runAtOrAfter,
  type AllocatedRun,
} from '../../src/native/allocation.ts';

/** A disk with data in these ranges; reading it is a mistake. */
function diskWithData(sizeBytes: number, ranges: ReadonlyArray<readonly [offset: number, length: number]>): Disk {
  return {
    sizeBytes,
    read: () => {
      throw new Error('the disk was read');
    },
    *extents(): Generator<Extent> {
      let at = 0;
      for (const [offset, length] of ranges) {
        if (offset > at) yield { offset: at, length: offset - at, kind: 'zero' };
        yield { offset, length, kind: 'data' };
        at = offset + length;
      }
      if (at < sizeBytes) yield { offset: at, length: sizeBytes - at, kind: 'zero' };
    },
    close: () => {},
  };
}

/** Runs of the units whose number the digits of a digest pick: scattered, the same every time. */
function seededRuns(unitCount: number, seed: string): AllocatedRun[] {
  const runs: AllocatedRun[] = [];
  let rank = 0;
  for (let unit = 0, turn = 0; ; turn++) {
    const digest = createHash('sha256').update(`${seed} ${turn}`).digest();
    const firstUnit = unit + 1 + digest.readUInt8(0);
    const count = Math.min(1 + digest.readUInt8(1), unitCount - firstUnit);
    if (count <= 0) return runs;
    runs.push({ firstUnit, unitCount: count, rank });
    rank += count;
    unit = firstUnit + count;
  }
}

describe('the allocated runs of a disk', () => {
  it('are the units that data touches, joined where they meet', () => {
    const disk = diskWithData(1000, [
      [5, 1],
      [99, 2],
      [250, 1],
      [290, 20],
      [999, 1],
    ]);
    expect(allocatedRuns(disk, 100)).toEqual([
      { firstUnit: 0, unitCount: 4, rank: 0 },
      { firstUnit: 9, unitCount: 1, rank: 4 },
    ]);
    expect(allocatedRuns(disk, 10)).toEqual([
      { firstUnit: 0, unitCount: 1, rank: 0 },
      { firstUnit: 9, unitCount: 2, rank: 1 },
      { firstUnit: 25, unitCount: 1, rank: 3 },
      { firstUnit: 29, unitCount: 2, rank: 4 },
      { firstUnit: 99, unitCount: 1, rank: 6 },
    ]);
  });

  it('are none for a disk of zeros and one for a disk of data', () => {
    expect(allocatedRuns(zeroDisk(1000), 100)).toEqual([]);
    expect(allocatedRuns(diskWithData(950, [[0, 950]]), 100)).toEqual([{ firstUnit: 0, unitCount: 10, rank: 0 }]);
    expect(allocatedCount([])).toBe(0);
  });

  it('are refused when there are too many', () => {
    const ranges = Array.from({ length: maxAllocatedRuns + 1 }, (_, index) => [index * 20, 1] as const);
    expect(() => allocatedRuns(diskWithData(20 * ranges.length, ranges), 10)).toThrow(CapacityError);
  });

  it('are found by unit: the run that holds it, or the next', () => {
    const runs = seededRuns(20_000, 'search');
    for (let unit = 0; unit < 20_000; unit += 7) {
      expect(runAtOrAfter(runs, unit)).toBe(runs.find((run) => run.firstUnit + run.unitCount > unit));
    }
    expect(runAtOrAfter([], 0)).toBeUndefined();
  });
});

describe('an encoded allocation', () => {
  it.each([1, 7, 8, 9, 64, 1000, 100_003])('decodes to the runs that it was made of: %i units', (unitCount) => {
    const runs = seededRuns(unitCount, `encode ${unitCount}`);
    expect(decodeRuns(encodeRuns(runs, unitCount), unitCount)).toEqual(runs);
    const all = [{ firstUnit: 0, unitCount, rank: 0 }];
    expect(decodeRuns(encodeRuns(all, unitCount), unitCount)).toEqual(all);
    expect(decodeRuns(encodeRuns([], unitCount), unitCount)).toEqual([]);
  });

  it('is small for a disk in few runs, at 64 TiB in units of 1 MiB', () => {
    const unitCount = 64 * 1024 * 1024;
    const runs = [{ firstUnit: 5, unitCount: 40_000_000, rank: 0 }];
    const encoded = encodeRuns(runs, unitCount);
    expect(encoded.length).toBeLessThan(4096);
    expect(decodeRuns(encoded, unitCount)).toEqual(runs);
  });

  it('is refused when it would not fit a plugin file', () => {
    expect(() => encodeRuns(seededRuns(20_000_000, 'large'), 20_000_000)).toThrow(CapacityError);
  });

  it('is refused when it is for another number of units', () => {
    const encoded = encodeRuns([{ firstUnit: 15, unitCount: 1, rank: 0 }], 16);
    expect(() => decodeRuns(encoded, 17)).toThrow(FormatError);
    expect(() => decodeRuns(encoded, 8)).toThrow(FormatError);
    expect(() => decodeRuns(encoded, 15)).toThrow('past the end');
  });

  it('is refused when it is no bitmap, or claims to be a vast one', () => {
    expect(() => decodeRuns('', 16)).toThrow(FormatError);
    expect(() => decodeRuns('AAAA', 16)).toThrow(FormatError);
    const bomb = zstdCompressSync(new Uint8Array(32 * 1024 * 1024)).toString('base64');
    expect(() => decodeRuns(bomb, 16)).toThrow(FormatError);
    expect(() => decodeRuns(bomb, 32 * 1024 * 1024 * 8)).toThrow(FormatError);
  });

  it('is refused when it has too many runs', () => {
    const bitmap = zstdCompressSync(new Uint8Array(maxAllocatedRuns).fill(0b01010101)).toString('base64');
    expect(() => decodeRuns(bitmap, maxAllocatedRuns * 8)).toThrow(CapacityError);
  });
});
