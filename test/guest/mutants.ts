/**
 * Planners against broken guests: seeded changes to a good disk, there where the planner looks. Each mutant is refused, or gets a plan that
 * holds for that very disk; nothing is read outside the disk, nothing takes for ever, and memory stays within a bound.
 */
import { expect } from 'vitest';
import { VeneerError } from '../../src/base/errors.ts';
import { GiB, KiB } from '../../src/base/units.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { checkPatches, type Patch } from '../../src/filesystem/edit/patch.ts';
import { processorMs, seededTest, soak, type Seeded } from '../seeded.ts';

export interface GuestSubject {
  /** A good disk; changed while it is tried, and as it was afterwards. */
  readonly disk: Buffer;
  /** What is done with it: patches, of the whole disk, or none. */
  readonly use: (disk: Disk) => readonly Patch[];
  /** Which structures are changed, by where they begin; all that are looked at otherwise. */
  readonly changes?: (offset: number) => boolean;
  /** Changes a structure that binary changes only break, most of the time; in place. */
  readonly change?: (structure: Buffer, random: Seeded) => void;
  /**
   * Makes a structure's own checksum right again after a change, so that the reader looks behind it.
   * @param structure the bytes as the reader reads them at once; changed in place
   */
  readonly reseal?: (structure: Buffer) => void;
}

export const guestMutantCount = soak ? 2000 : 80;
/** Far above what a mutant takes: an endless loop ends the test run otherwise. Of the processor, so that a busy machine does not count. */
const slowMs = 20_000;
const maxMemoryBytes = 1.5 * GiB;
/** Larger reads are files' contents. */
const maxStructureBytes = 64 * KiB;
const refusals: readonly string[] = ['FORMAT', 'INTEGRITY', 'UNSUPPORTED', 'USAGE'];

interface Range {
  readonly offset: number;
  readonly length: number;
}

/** Tries `guestMutantCount` mutants of the subject. Returns how many of them got a plan. */
export function survivesGuestMutants(title: string, subject: GuestSubject): number {
  const random = seededTest(title);
  const seen = new Map<string, Range>();
  subject.use(watched(subject.disk, ({ offset, length }) => seen.set(`${offset}+${length}`, { offset, length })));
  const all = [...seen.values()].filter(({ length }) => length <= maxStructureBytes);
  expect(all.length, 'structures that the planner looks at').toBeGreaterThan(5);
  const structures = all.filter(({ offset }) => subject.changes?.(offset) ?? true);
  let planned = 0;
  for (let count = 0; count < guestMutantCount; count++) {
    const kept: { at: number; bytes: Buffer }[] = [];
    const what = `mutant ${count}`;
    try {
      for (let changes = random.between(1, 3); changes > 0; changes--) kept.push(mutate(subject, structures, random));
      const startedMs = processorMs();
      if (tryMutant(subject, what)) planned++;
      expect(processorMs() - startedMs, `processor time of ${what}`).toBeLessThan(slowMs);
      expect(process.memoryUsage().rss, `memory after ${what}`).toBeLessThan(maxMemoryBytes);
    } finally {
      for (const { at, bytes } of kept.reverse()) bytes.copy(subject.disk, at);
    }
  }
  return planned;
}

/** Changes one structure; returns what was there. */
function mutate(
  { disk, change, reseal }: GuestSubject,
  structures: readonly Range[],
  random: Seeded,
): { at: number; bytes: Buffer } {
  const { offset, length } = random.pick(structures);
  const structure = disk.subarray(offset, offset + length);
  const bytes = Buffer.from(structure);
  if (change !== undefined && !random.oneIn(5)) {
    change(structure, random);
    return { at: offset, bytes };
  }
  const at = random.below(length);
  const interesting = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    disk.length,
    Math.floor(disk.length / 4096),
  ];
  const kind = random.below(5);
  const aligned = Math.min(at - (at % 4), Math.max(0, length - 4));
  if (kind === 0 || length < 8) structure[at] = (structure[at] ?? 0) ^ (2 ** random.below(8));
  else if (kind === 1) structure[at] = random.below(256);
  else if (kind === 2) random.bytes(Math.min(8, length - at)).copy(structure, at);
  else if (kind === 3) {
    const value = random.pick(interesting) % 2 ** 32;
    if (random.oneIn(2)) structure.writeUInt32LE(value, aligned);
    else structure.writeUInt32BE(value, aligned);
  } else {
    // What another structure has: circles, overlaps, the wrong kind of node.
    const from = random.pick(structures);
    const source = Buffer.from(disk.subarray(from.offset, from.offset + from.length));
    if (random.oneIn(2)) source.copy(structure, 0, 0, length);
    else source.copy(structure, aligned, 0, 16);
  }
  if (reseal !== undefined && !random.oneIn(5)) reseal(structure);
  return { at: offset, bytes };
}

/** Whether the mutant got a plan. */
function tryMutant({ disk, use }: GuestSubject, what: string): boolean {
  const mutant = watched(disk, () => undefined);
  let patches: readonly Patch[];
  try {
    patches = use(mutant);
  } catch (error) {
    if (error instanceof VeneerError && refusals.includes(error.code)) return false;
    throw new Error(`${what} broke the planner`, { cause: error });
  }
  // Inside the disk, none over another, and made of what is there: anything else is the planner's fault.
  checkPatches(patches, mutant);
  return true;
}

/** A disk over the bytes that tells of each read, and lets none be outside. */
function watched(bytes: Buffer, tell: (range: Range) => void): Disk {
  const check = (offset: number, length: number): void => {
    if (Number.isSafeInteger(offset) && offset >= 0 && offset + length <= bytes.length) return;
    throw new Error(`read outside the disk: ${length} bytes at ${offset} of ${bytes.length}`);
  };
  return {
    sizeBytes: bytes.length,
    read(target, offset) {
      check(offset, target.length);
      tell({ offset, length: target.length });
      target.set(bytes.subarray(offset, offset + target.length));
    },
    *extents(offset, length) {
      check(offset, length);
      if (length > 0) yield { offset, length, kind: 'data' };
    },
    close() {},
  };
}
