/**
 * The one suite that every Disk passes: what is read equals the model at every alignment and across every boundary, extents tell the
 * truth, and what lies outside is refused.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import type { Disk, Extent } from '../../src/disk/disk.ts';
import { nextDataOffset, seekDataPage, seekHolePage } from '../../src/disk/seek.ts';
import { seededTest } from '../seeded.ts';
import { expectReadsAs, expectSameBytes, type ModelDisk } from './model-disk.ts';

export interface Specimen {
  readonly disk: Disk;
  readonly model: ModelDisk;
  /** Disk bytes where something below begins or ends: blocks, leaves, parts, patches, segments. */
  readonly boundaries: readonly number[];
  /** Removes what the specimen stands on, after the disk was closed. */
  readonly remove?: () => void;
}

/** Up to here a disk is compared whole; above, at its boundaries and at seeded places. */
const wholeBytes = 128 * MiB;
const guardBytes = 64;
const guard = 0x5c;
const lengths = [1, 2, 3, 7, 511, 512, 513, 4095, 4096, 4097, 16 * KiB, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1];

export function conformsToDisk(title: string, make: () => Specimen | Promise<Specimen>): void {
  describe(title, () => {
    let specimen: Specimen | undefined;
    const made = (): Specimen => specimen ?? expect.fail('the disk was not made');

    beforeAll(async () => {
      specimen = await make();
    }, 60_000);
    afterAll(() => {
      specimen?.disk.close();
      specimen?.remove?.();
    });

    it('has the size of its model', () => {
      expect(made().disk.sizeBytes).toBe(made().model.sizeBytes);
    });

    it('reads as its model from end to end', () => {
      const { disk, model } = made();
      if (disk.sizeBytes <= wholeBytes) expectReadsAs(disk, model);
    });

    it('reads the same at every alignment around every boundary', () => {
      const { disk, model, boundaries } = made();
      const random = seededTest(`${title}: alignments`);
      const all = [0, disk.sizeBytes, ...boundaries];
      for (const boundary of all) {
        for (const before of [0, 1, 2, 3, 4, 5, 6, 7, 511, 512, 513, 4095, 4096, 4097]) {
          for (const length of [random.pick(lengths), random.pick(lengths), 2 * before + 1])
            expectRead(disk, model, boundary - before, length);
        }
      }
    });

    it('reads the same across boundaries that lie far apart', () => {
      const { disk, model, boundaries } = made();
      const random = seededTest(`${title}: far apart`);
      for (let count = 0; count < 20; count++) {
        const from = random.pick([0, ...boundaries]) + random.between(-3, 3);
        expectRead(disk, model, from, random.between(1, 3 * MiB));
      }
    });

    it('reads the same at random places', () => {
      const { disk, model } = made();
      const random = seededTest(`${title}: places`);
      for (let count = 0; count < 200; count++)
        expectRead(disk, model, random.below(disk.sizeBytes), random.pick(lengths) + random.below(16));
    });

    it('reads nothing where nothing is asked for', () => {
      const { disk } = made();
      for (const offset of [0, Math.floor(disk.sizeBytes / 2), disk.sizeBytes]) {
        expect(() => disk.read(new Uint8Array(0), offset)).not.toThrow();
        expect([...disk.extents(offset, 0)]).toEqual([]);
      }
    });

    it('has extents that cover the disk in order, merged, and are zero only where it reads as zeros', () => {
      const { disk, model } = made();
      expectExtents(disk, model, 0, disk.sizeBytes);
    });

    it('has the same extents for every part of the disk', () => {
      const { disk, model, boundaries } = made();
      const random = seededTest(`${title}: extents`);
      for (const boundary of [0, disk.sizeBytes, ...boundaries]) {
        for (const before of [0, 1, 512, 5000]) {
          const offset = Math.max(0, boundary - before);
          const length = Math.min(random.pick(lengths) + before, disk.sizeBytes - offset);
          expectExtents(disk, model, offset, length);
        }
      }
      for (let count = 0; count < 50; count++) {
        const offset = random.below(disk.sizeBytes);
        expectExtents(disk, model, offset, Math.min(disk.sizeBytes - offset, random.between(0, 2 * MiB)));
      }
    });

    it('finds the next data from anywhere, and skips only zeros', () => {
      const { disk, model } = made();
      const random = seededTest(`${title}: next data`);
      for (let count = 0; count < 20; count++) {
        const from = random.below(disk.sizeBytes);
        const next = nextDataOffset(disk, from);
        expect(next).toBeGreaterThanOrEqual(from);
        expect(next).toBeLessThanOrEqual(disk.sizeBytes);
        expectZeros(model, from, Math.min(next - from, 4 * MiB));
      }
    });

    it('tells data and holes in whole pages, and only zeros are holes', () => {
      const { disk, model, boundaries } = made();
      const random = seededTest(`${title}: pages`);
      const offsets = [0, ...boundaries, ...Array.from({ length: 20 }, () => random.below(disk.sizeBytes))];
      for (const offset of offsets.filter((at) => at < disk.sizeBytes)) {
        const data = seekDataPage(disk, offset) ?? disk.sizeBytes;
        const hole = seekHolePage(disk, offset);
        for (const found of [data, hole])
          if (found !== offset && found !== disk.sizeBytes) expect(found % 4096, `an answer from ${offset}`).toBe(0);
        expect([data, hole], `what ${offset} is`).toContain(offset);
        expectZeros(model, offset, Math.min(data - offset, 4 * MiB));
      }
    });

    it('may be left in the middle of its extents', () => {
      const { disk } = made();
      for (const extent of disk.extents(0, disk.sizeBytes)) {
        expect(extent.offset).toBe(0);
        break;
      }
      expect([...disk.extents(0, 1)]).toHaveLength(1);
    });

    it('refuses what lies outside and leaves the target as it was', () => {
      const { disk } = made();
      const outside: Array<[number, number]> = [
        [-1, 1],
        [-1, 2],
        [disk.sizeBytes, 1],
        [disk.sizeBytes - 1, 2],
        [disk.sizeBytes + 1, 0],
        [2 ** 53, 1],
        [Number.MAX_SAFE_INTEGER, 1],
        [0.5, 1],
        [Number.NaN, 1],
        [Number.POSITIVE_INFINITY, 1],
      ];
      for (const [offset, length] of outside) {
        const target = new Uint8Array(length).fill(guard);
        expect(() => disk.read(target, offset), `read of ${length} bytes at ${offset}`).toThrow(UsageError);
        expect(target.every((byte) => byte === guard)).toBe(true);
        expect(() => [...disk.extents(offset, length)], `extents of ${length} at ${offset}`).toThrow(UsageError);
      }
      for (const length of [-1, 0.5, Number.NaN, disk.sizeBytes + 1])
        expect(() => [...disk.extents(0, length)], `extents of ${length}`).toThrow(UsageError);
    });

    // The last: it closes the disk.
    it('closes twice as well as once', () => {
      const { disk } = made();
      disk.close();
      expect(() => disk.close()).not.toThrow();
    });
  });
}

/** Reads into the middle of a larger buffer: what is around it must stay as it is. Clipped to the disk. */
function expectRead(disk: Disk, model: ModelDisk, offset: number, length: number): void {
  const from = Math.max(0, Math.min(offset, disk.sizeBytes));
  const to = Math.max(from, Math.min(offset + length, disk.sizeBytes));
  const shift = guardBytes - (from % 8);
  const buffer = Buffer.alloc(to - from + 2 * guardBytes, guard);
  disk.read(buffer.subarray(shift, shift + to - from), from);
  const expected = Buffer.alloc(buffer.length, guard);
  model.read(from, to - from).copy(expected, shift);
  expectSameBytes(buffer, expected, `${to - from} bytes from disk byte ${from}, ${shift} bytes of buffer before them`);
}

function expectExtents(disk: Disk, model: ModelDisk, offset: number, length: number): void {
  let last: Extent | undefined;
  let at = offset;
  for (const extent of disk.extents(offset, length)) {
    expect(extent.offset, `offset of an extent of [${offset}, ${offset + length})`).toBe(at);
    expect(extent.length).toBeGreaterThan(0);
    expect(extent.kind, `two extents of one kind meet at ${extent.offset}`).not.toBe(last?.kind);
    if (extent.kind === 'zero') expectZeros(model, extent.offset, extent.length);
    at = extent.offset + extent.length;
    last = extent;
  }
  expect(at, `end of the extents of [${offset}, ${offset + length})`).toBe(offset + length);
}

/** The model is zero there: all of it, or both ends where it is long. */
function expectZeros(model: ModelDisk, offset: number, length: number): void {
  const pieces: Array<readonly [number, number]> =
    length <= wholeBytes
      ? [[offset, length]]
      : [
          [offset, 4 * MiB],
          [offset + length - 4 * MiB, 4 * MiB],
        ];
  for (const [start, total] of pieces) {
    for (let at = start; at < start + total; at += MiB) {
      const bytes = model.read(at, Math.min(MiB, start + total - at));
      if (!bytes.equals(zeros.subarray(0, bytes.length))) {
        expect.fail(`bytes ${at} to ${at + bytes.length} are said to be zero and hold data`);
      }
    }
  }
}

const zeros = Buffer.alloc(MiB);
