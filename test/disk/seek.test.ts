/** Data and holes are found as a model of pages has them, and for what lies between the start and the answer. */
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import type { Extent } from '../../src/disk/disk.ts';
import { mergeExtents } from '../../src/disk/disk.ts';
import { DataCursor, nextDataOffset, seekDataPage, seekHolePage, type Runs } from '../../src/disk/seek.ts';
import { seededTest, soak, type Seeded } from '../seeded.ts';

const pageBytes = 4096;

describe('data and holes', () => {
  it('are those of a model, in whole pages', () => {
    const random = seededTest('pages of data and holes');
    for (let count = 0; count < (soak ? 2000 : 60); count++) {
      const { runs, list, sizeBytes } = randomRuns(random);
      const dataPages = new Set<number>();
      for (const { offset, length, kind } of list) {
        const end = offset + length;
        if (kind === 'data')
          for (let page = Math.floor(offset / pageBytes); page * pageBytes < end; page++) dataPages.add(page);
      }
      const next = (offset: number, wanted: boolean): number | undefined => {
        for (let page = Math.floor(offset / pageBytes); page * pageBytes < sizeBytes; page++)
          if (dataPages.has(page) === wanted) return Math.max(offset, page * pageBytes);
        return undefined;
      };
      for (let look = 0; look < 60; look++) {
        const offset = random.below(sizeBytes);
        expect(seekDataPage(runs, offset), `data from ${offset} of ${sizeBytes}`).toBe(next(offset, true));
        expect(seekHolePage(runs, offset), `hole from ${offset} of ${sizeBytes}`).toBe(
          next(offset, false) ?? sizeBytes,
        );
      }
    }
  });

  it('are the same to a cursor, whichever way it goes', () => {
    const random = seededTest('cursor');
    for (let count = 0; count < 20; count++) {
      const { runs, list, sizeBytes } = randomRuns(random);
      const cursor = new DataCursor(runs);
      for (let at = 0, look = 0; look < 200; look++) {
        at = random.oneIn(10) ? random.below(sizeBytes) : Math.min(at + random.below(20_000), sizeBytes);
        const found = list.find(({ offset, length, kind }) => kind === 'data' && offset + length > at);
        const next = found === undefined ? sizeBytes : Math.max(at, found.offset);
        expect(cursor.next(at)).toBe(next);
        expect(nextDataOffset(runs, at)).toBe(next);
      }
    }
  });

  it('cost a cursor that goes through a disk of one run a look at each of its pieces', () => {
    const { runs, looked } = counted(1024 * MiB, 64 * KiB, () => 'data');
    const cursor = new DataCursor(runs);
    for (let at = 0; at < runs.sizeBytes; at += 64 * KiB) expect(cursor.next(at)).toBe(at);
    expect(looked()).toBeLessThan(3 * (runs.sizeBytes / (64 * KiB)));
  });

  it.each(['data', 'zero'] as const)('cost no more for what lies behind them, where all the rest is %s', (rest) => {
    const { runs, looked } = counted(2 ** 42, 64 * KiB, (piece) =>
      piece % 512 < 4 ? 'data' : piece > 99_999 ? rest : 'zero',
    );
    for (let at = 0; at < 99_000 * 64 * KiB;) {
      const data = seekDataPage(runs, at) ?? expect.fail('there is data');
      at = seekHolePage(runs, data);
      expect(at - data).toBe(256 * KiB);
    }
    expect(looked()).toBeLessThan(5 * 99_000);
  });
});

/** Runs of which some are only a few bytes long, and the list that they come from. */
function randomRuns(random: Seeded): { runs: Runs; list: readonly Extent[]; sizeBytes: number } {
  const sizeBytes = random.between(1, random.oneIn(2) ? 24 * MiB : 300 * KiB);
  const lengths = sizeBytes > MiB ? [1, 4097, 500_000, 5 * MiB] : [1, 511, 512, 4095, 4096, 4097, 20_000];
  const list: Extent[] = [];
  for (let at = 0; at < sizeBytes;) {
    const length = Math.min(random.pick(lengths), sizeBytes - at);
    list.push({ offset: at, length, kind: random.oneIn(2) ? 'data' : 'zero' });
    at += length;
  }
  function* pieces(from: number, end: number): Generator<Extent> {
    for (const { offset, length, kind } of list) {
      const [start, to] = [Math.max(offset, from), Math.min(offset + length, end)];
      if (start < to) yield { offset: start, length: to - start, kind };
    }
  }
  const runs = {
    sizeBytes,
    extents: (offset: number, length: number) => mergeExtents(pieces(offset, offset + length)),
  };
  return { runs, list, sizeBytes };
}

/** Runs that are merged of pieces, and how many pieces were looked at. */
function counted(
  sizeBytes: number,
  pieceBytes: number,
  kindOf: (piece: number) => Extent['kind'],
): { runs: Runs; looked: () => number } {
  let looked = 0;
  function* pieces(offset: number, end: number): Generator<Extent> {
    for (let at = offset; at < end;) {
      const piece = Math.floor(at / pieceBytes);
      const to = Math.min(end, (piece + 1) * pieceBytes);
      looked++;
      yield { offset: at, length: to - at, kind: kindOf(piece) };
      at = to;
    }
  }
  const runs = {
    sizeBytes,
    extents: (offset: number, length: number) => mergeExtents(pieces(offset, offset + length)),
  };
  return { runs, looked: () => looked };
}
