/** Table pages: read once while they fit the budget, again when they do not; never from outside the file. */
import { expect, it } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { memoryDisk } from '../../src/disk/memory.ts';
import { TableCache } from '../../src/native/table-cache.ts';

const file = Buffer.alloc(4 * MiB + 100);
for (let at = 0; at + 4 <= file.length; at += 4) file.writeUInt32BE(at, at);

/** A cache, and how many pages it has read. */
function counted(budgetBytes: number): { tables: TableCache; reads: () => number } {
  let reads = 0;
  const disk: Disk = {
    ...memoryDisk(file),
    read(target, offset) {
      reads++;
      memoryDisk(file).read(target, offset);
    },
  };
  return { tables: new TableCache(disk, 'table', budgetBytes), reads: () => reads };
}

it('entries are what the file holds, in either order and up to its last byte', () => {
  const { tables } = counted(MiB);
  expect(tables.u32be(MiB)).toBe(MiB);
  expect(tables.u32le(MiB)).toBe(0x1000);
  expect(tables.u64be(8)).toBe(0x8_0000_000cn);
  expect(tables.u8(4 * MiB + 99)).toBe(96);
});

it('a page that fits the budget is read once', () => {
  const { tables, reads } = counted(MiB);
  for (let round = 0; round < 3; round++) {
    for (let page = 0; page < 10; page++) tables.u32be(page * 64 * KiB);
  }
  expect(reads()).toBe(10);
});

it('more pages than the budget allows are not kept', () => {
  const { tables, reads } = counted(256 * KiB);
  for (let round = 0; round < 3; round++) {
    for (let page = 0; page < 64; page++) tables.u32be(page * 64 * KiB);
  }
  expect(reads()).toBe(3 * 64);
});

it('entries that go up by a step are counted up to the end of the page', () => {
  const { tables } = counted(MiB);
  expect(tables.countSteps(0, 1_000_000, 4, false)).toBe(16 * KiB);
  expect(tables.countSteps(64 * KiB - 8, 1_000_000, 4, false)).toBe(2);
  expect(tables.countSteps(0, 5, 4, false)).toBe(5);
  expect(tables.countSteps(0, 5, 0, false)).toBe(1);
  expect(tables.countSteps64(0, 5, 8)).toBe(1);
});

it('entries outside the file break the format', () => {
  const { tables } = counted(MiB);
  for (const offset of [-4, file.length - 2, file.length, 2 ** 53, Number.NaN]) {
    expect(() => tables.u32le(offset)).toThrow(FormatError);
  }
});
