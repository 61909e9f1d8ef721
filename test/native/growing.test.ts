/** Runs of allocated units in larger units, and tables that are made in pieces. */
import { describe, expect, it } from 'vitest';
import type { AllocatedRun } from '../../src/native/allocation.ts';
import { computedTable } from '../../src/native/computed-table.ts';
import { coarserRuns, visitAllocated } from '../../src/native/growing.ts';
import { seededTest } from '../seeded.ts';

function runsOf(units: readonly number[]): AllocatedRun[] {
  const runs: { firstUnit: number; unitCount: number; rank: number }[] = [];
  for (const [rank, unit] of units.entries()) {
    const last = runs.at(-1);
    if (last !== undefined && last.firstUnit + last.unitCount === unit) last.unitCount++;
    else runs.push({ firstUnit: unit, unitCount: 1, rank });
  }
  return runs;
}

function unitsOf(runs: readonly AllocatedRun[], first = 0, count = 1_000_000): Array<[number, number]> {
  const units: Array<[number, number]> = [];
  visitAllocated(runs, first, count, (unit, rank) => units.push([unit, rank]));
  return units;
}

describe('runs', () => {
  it('of larger units hold every unit, once', () => {
    const random = seededTest('coarser runs');
    for (let count = 0; count < 200; count++) {
      const units = [...new Set(Array.from({ length: 60 }, () => random.below(300)))].sort((a, b) => a - b);
      const factor = random.between(1, 20);
      const expected = [...new Set(units.map((unit) => Math.floor(unit / factor)))];
      expect(unitsOf(coarserRuns(runsOf(units), factor))).toEqual(expected.map((unit, rank) => [unit, rank]));
    }
  });

  it('are visited in any range, each unit with its place in the file', () => {
    const units = [0, 1, 2, 7, 8, 40];
    const places = units.map((unit, rank) => [unit, rank]);
    for (let first = 0; first < 45; first++) {
      for (let count = 0; count < 45; count++) {
        const expected = places.filter(([unit = 0]) => unit >= first && unit < first + count);
        expect(unitsOf(runsOf(units), first, count)).toEqual(expected);
      }
    }
  });
});

it('a table is the same in whatever pieces it is read', () => {
  const table = computedTable(80, 8, (view, first, count) => {
    for (let index = 0; index < count; index++)
      view.setBigUint64(index * 8, 0x0102_0304_0506_0700n + BigInt(first + index));
  });
  if (table.kind !== 'computed') expect.fail('is not computed');
  const whole = Buffer.alloc(80);
  table.fill(whole, 0);
  for (let offset = 0; offset < 80; offset++) {
    for (let length = 0; offset + length <= 80; length++) {
      const piece = Buffer.alloc(length, 0xa5);
      table.fill(piece, offset);
      expect(piece.equals(whole.subarray(offset, offset + length))).toBe(true);
    }
  }
});
