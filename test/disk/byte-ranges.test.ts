import { expect, it } from 'vitest';
import { mergeRanges } from '../../src/disk/byte-ranges.ts';
import { seededTest } from '../seeded.ts';

it('merged ranges cover the same bytes, in order and apart, whatever they were', () => {
  const random = seededTest('merge');
  for (let round = 0; round < 200; round++) {
    const ranges = Array.from({ length: random.below(12) }, () => ({
      offset: random.below(60),
      length: random.below(12),
    }));
    const covered = (list: readonly { offset: number; length: number }[]): boolean[] =>
      Array.from({ length: 80 }, (_, at) => list.some(({ offset, length }) => at >= offset && at < offset + length));
    const merged = mergeRanges(ranges);
    expect(covered(merged)).toEqual(covered(ranges));
    for (const [index, range] of merged.slice(1).entries()) {
      const before = merged[index] ?? { offset: 0, length: 0 };
      expect(range.offset).toBeGreaterThan(before.offset + before.length);
    }
  }
});
