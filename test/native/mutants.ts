/**
 * Readers against broken files: seeded changes to a good one. A mutant is refused, or it is read; the reader never reads outside the
 * file, never hangs, and fails in no other way.
 */
import { expect } from 'vitest';
import { VeneerError } from '../../src/base/errors.ts';
import { KiB } from '../../src/base/units.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { seededTest, soak, type Seeded } from '../seeded.ts';

export interface Subject {
  /** A good file. */
  readonly file: Buffer;
  /** Where its structures lie, [start, end): four mutants in five change one of them. */
  readonly structures: ReadonlyArray<readonly [number, number]>;
  readonly open: (file: Disk) => Disk;
  /** Makes the checksums right again, so that the reader looks behind them. */
  readonly reseal?: (file: Buffer) => void;
}

export const mutantCount = soak ? 2000 : 100;
/** Far above what a mutant takes: an endless loop ends the test run otherwise. */
const slowMs = 5000;
const maxExtents = 20_000;
/** What a file from elsewhere may be refused with. */
const refusals: readonly string[] = ['FORMAT', 'INTEGRITY', 'UNSUPPORTED'];

/** Tries `mutantCount` mutants of the subject. */
export function survivesMutants(title: string, subject: Subject): void {
  const random = seededTest(title);
  let read = 0;
  for (let count = 0; count < mutantCount; count++) {
    const mutant = mutate(subject, random);
    const startedMs = performance.now();
    if (tryMutant(mutant, subject, random, `mutant ${count}`)) read++;
    expect(performance.now() - startedMs, `time of mutant ${count}`).toBeLessThan(slowMs);
  }
  // Not all are refused, or what is behind the first check would never be reached.
  expect(read).toBeGreaterThan(0);
}

function mutate({ file, structures, reseal }: Subject, random: Seeded): Buffer {
  const mutant = Buffer.from(file);
  for (let changes = random.between(1, 3); changes > 0; changes--) {
    const [start, end] = random.oneIn(5) ? [0, file.length] : random.pick(structures);
    const at = random.between(start, end - 1);
    const interesting = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, file.length, file.length / 512];
    const kind = random.below(5);
    if (kind === 0) mutant[at] = (mutant[at] ?? 0) ^ (2 ** random.below(8));
    else if (kind === 1) mutant[at] = random.below(256);
    else if (kind === 2 && at + 8 <= end) random.bytes(8).copy(mutant, at);
    else if (kind === 3 && at + 4 <= file.length) {
      const aligned = at - (at % 4);
      const value = Math.floor(random.pick(interesting)) % 2 ** 32;
      if (random.oneIn(2)) mutant.writeUInt32LE(value, aligned);
      else mutant.writeUInt32BE(value, aligned);
    } else {
      // An entry that another place has already: overlaps and loops.
      const from = random.between(start, end - 1);
      mutant.copy(mutant, at - (at % 4), from - (from % 4), Math.min(from - (from % 4) + 8, file.length));
    }
  }
  if (reseal !== undefined && !random.oneIn(4)) reseal(mutant);
  return random.oneIn(10) ? mutant.subarray(0, random.below(mutant.length)) : mutant;
}

/** Whether the mutant could be opened. */
function tryMutant(mutant: Buffer, { open }: Subject, random: Seeded, what: string): boolean {
  const outside: string[] = [];
  const file = guardedDisk(mutant, outside);
  let disk: Disk | undefined;
  try {
    disk = open(file);
    readSome(disk, random);
  } catch (error) {
    const refused = error instanceof VeneerError && refusals.includes(error.code);
    if (!refused) throw new Error(`${what} broke the reader`, { cause: error });
  }
  expect(outside, `reads of ${what} outside the file`).toEqual([]);
  return disk !== undefined;
}

/** Extents and pieces of the disk; each may be refused without the others being. */
function readSome(disk: Disk, random: Seeded): void {
  let count = 0;
  const places = [0, Math.max(0, disk.sizeBytes - 1)];
  tryTo(() => {
    for (const extent of disk.extents(0, disk.sizeBytes)) {
      if (count % 10 === 0 && places.length < 12) places.push(extent.offset);
      if (++count >= maxExtents) break;
    }
  });
  for (let more = 0; more < 6 && disk.sizeBytes > 0; more++) places.push(random.below(disk.sizeBytes));
  for (const offset of places) {
    const target = new Uint8Array(Math.min(70 * KiB, disk.sizeBytes - offset));
    tryTo(() => disk.read(target, offset));
  }
}

function tryTo(step: () => void): void {
  try {
    step();
  } catch (error) {
    if (!(error instanceof VeneerError) || !refusals.includes(error.code)) throw error;
  }
}

/** A disk over the mutant that keeps account of every read outside of it. */
function guardedDisk(bytes: Buffer, outside: string[]): Disk {
  const check = (offset: number, length: number): void => {
    if (Number.isSafeInteger(offset) && offset >= 0 && offset + length <= bytes.length) return;
    outside.push(`${length} bytes at ${offset} of ${bytes.length}`);
    throw new Error(`read outside the file: ${outside.at(-1)}`);
  };
  return {
    sizeBytes: bytes.length,
    read(target, offset) {
      check(offset, target.length);
      target.set(bytes.subarray(offset, offset + target.length));
    },
    *extents(offset, length) {
      check(offset, length);
      if (length > 0) yield { offset, length, kind: 'data' };
    },
    close() {},
  };
}
