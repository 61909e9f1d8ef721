/** Wrong clocks: the order of a chain decides what is newest, and the rules' periods stay those of the clocks that were right. */
import { describe, expect, it } from 'vitest';
import { chainTimes } from '../../../src/backup/care/chain-times.ts';
import type { FolderImage } from '../../../src/backup/read/folder-images.ts';
import type { ImageDescription } from '../../../src/backup/format/image-description.ts';
import { keptByRules, type RetentionRules } from '../../../src/backup/care/retention.ts';
import { seededTest, soak, type Seeded } from '../../seeded.ts';

const dayMs = 24 * 60 * 60 * 1000;
const start = Date.UTC(2026, 0, 5, 12);

/** An image of a chain as prune sees it; nothing else of it matters here. */
function imageOf(number: number, parent: number | undefined, saysMs: number, sequence = number): FolderImage {
  const imageId = String(number);
  const createdAt = new Date(saysMs);
  const description = {
    imageId,
    sequence,
    createdAt,
    parent: parent === undefined ? undefined : { imageId: String(parent), name: '', commitHash: '' },
  } as unknown as ImageDescription;
  return { path: `${number}.spi`, description, sources: [{ imageId, sequence, createdAt }] };
}

function lineOf(days: readonly number[]): FolderImage[] {
  return days.map((day, number) => imageOf(number, number === 0 ? undefined : number - 1, start + day * dayMs));
}

/** Days that count, and which of them are not what the image says. */
function counted(images: readonly FolderImage[]): { days: number[]; wrong: number[] } {
  const times = chainTimes(images);
  const of = (image: FolderImage) => times.get(image.description.imageId);
  return {
    days: images.map((image) => ((of(image)?.atMs ?? Number.NaN) - start) / dayMs),
    wrong: images.flatMap((image, number) => (of(image)?.isBelieved === true ? [] : [number])),
  };
}

/** As prune asks the rules. */
function kept(images: readonly FolderImage[], rules: RetentionRules): string[] {
  const times = chainTimes(images);
  const points = [...images]
    .sort((a, b) => b.description.sequence - a.description.sequence)
    .map((image) => ({ image, createdAt: new Date(times.get(image.description.imageId)?.atMs ?? 0) }));
  return [...keptByRules(points, rules).keys()].map(({ image }) => image.description.imageId).sort();
}

describe('the times of a chain', () => {
  it.each([
    ['are those of its images', [0, 1, 2, 3], [0, 1, 2, 3], []],
    ['may be equal', [0, 0, 1, 1], [0, 0, 1, 1], []],
    ['without one in the future', [0, 1, 9000, 3, 4], [0, 1, 1, 3, 4], [2]],
    ['without one in the past', [0, 1, -9000, 3, 4], [0, 1, 1, 3, 4], [2]],
    ['without the newest in the past', [0, 1, 2, 3, -9000], [0, 1, 2, 3, 3], [4]],
    ['without the oldest in the future', [9000, 1, 2, 3], [1, 1, 2, 3], [0]],
    [
      'without a clock that was dead for a while',
      [0, 1, -9000, -8999, -8998, 5, 6, 7],
      [0, 1, 1, 1, 1, 5, 6, 7],
      [2, 3, 4],
    ],
    ['as they are where none is possible', [-9000, -8999, -8998], [-9000, -8999, -8998], []],
    ['of two that contradict each other, as the later says', [5, 1], [1, 1], [0]],
  ] as const)('%s', (_what, says, days, wrong) => {
    expect(counted(lineOf(says))).toEqual({ days, wrong });
  });

  it('of branches are decided on each line, and once for what they share', () => {
    const at = (day: number): number => start + day * dayMs;
    const images = [
      imageOf(0, undefined, at(0), 0),
      imageOf(1, 0, at(1), 1),
      imageOf(2, 1, at(9000), 2),
      imageOf(3, 2, at(3), 3),
      imageOf(4, 3, at(4), 4),
      imageOf(5, 2, at(5), 3),
      imageOf(6, 5, at(-1), 4),
    ];
    expect(counted(images)).toEqual({ days: [0, 1, 1, 3, 4, 5, 5], wrong: [2, 6] });
  });

  it('do not change when points have been consolidated into others', () => {
    const random = seededTest('consolidated times');
    for (let round = 0; round < 200; round++) {
      const images = lineOf(wrongDays(random, 12).days);
      const before = chainTimes(images);
      const after: FolderImage[] = [];
      for (let at = images.length - 1; at >= 0;) {
        const run = images.slice(Math.max(0, at - random.below(4)), at + 1).reverse();
        const [newest] = run;
        const oldest = run.at(-1);
        if (newest === undefined || oldest === undefined) break;
        const { parent } = oldest.description;
        after.push({
          ...newest,
          description: { ...newest.description, parent },
          sources: run.flatMap(({ sources }) => sources),
        });
        at -= run.length;
      }
      expect(chainTimes(after)).toEqual(before);
    }
  });
});

/** True days, of which fewer than half are replaced by others. */
function wrongDays(random: Seeded, count: number): { true: number[]; days: number[]; wrong: Set<number> } {
  let day = 0;
  const right = Array.from({ length: count }, () => (day += random.below(3) / 2));
  const wrong = new Set<number>();
  for (let left = random.below(Math.ceil(count / 3)); left > 0; left--) wrong.add(random.below(count));
  const days = right.map((each, number) => (wrong.has(number) ? random.below(10_000) - 2000 : each));
  return { true: right, days, wrong };
}

/** The most points of a line whose times do not go back, by trying all that end in each point. */
function mostRising(days: readonly number[]): number {
  const best = days.map(() => 1);
  for (const [end, day] of days.entries())
    for (let before = 0; before < end; before++)
      if ((days[before] ?? 0) <= day) best[end] = Math.max(best[end] ?? 1, (best[before] ?? 0) + 1);
  return Math.max(...best);
}

describe('pruning with wrong clocks, against a model', () => {
  it('keeps the end of the chain, and one of each day that a right clock has seen', () => {
    const random = seededTest('wrong clocks');
    for (let round = 0; round < (soak ? 20_000 : 400); round++) {
      const count = 2 + random.below(40);
      const { days } = wrongDays(random, count);
      const images = lineOf(days);
      const { days: counts, wrong } = counted(images);
      // As many as can be are believed, times never go back, and what is believed is what the image says.
      expect(images.length - wrong.filter((number) => counts[number] !== days[number]).length).toBeGreaterThanOrEqual(
        mostRising(days),
      );
      for (let at = 1; at < count; at++) expect(counts[at] ?? 0).toBeGreaterThanOrEqual(counts[at - 1] ?? 0);
      const last = 1 + random.below(5);
      const end = images.slice(-last).map(({ description }) => description.imageId);
      expect(kept(images, { last })).toEqual(end.sort());
      const periods = { daily: dayMs, weekly: 7 * dayMs } as const;
      for (const [rule, lengthMs] of Object.entries(periods)) {
        const keep = 1 + random.below(8);
        // A week begins on Monday; the chain begins on one, at noon.
        const periodOf = (day: number): number => Math.floor((day * dayMs + dayMs / 2) / lengthMs);
        const expected = new Map<number, string>();
        for (let at = count - 1; at >= 0 && expected.size <= keep; at--) {
          const period = periodOf(counts[at] ?? 0);
          if (!expected.has(period) && expected.size < keep) expected.set(period, String(at));
        }
        expect(kept(images, { [rule]: keep }), rule).toEqual([...expected.values()].sort());
      }
    }
  });

  it('keeps the same when it is applied to what it kept and consolidated', () => {
    const random = seededTest('wrong clocks again');
    for (let round = 0; round < (soak ? 5000 : 200); round++) {
      const images = lineOf(wrongDays(random, 3 + random.below(25)).days);
      const rules = { last: random.below(3), daily: 1 + random.below(5), weekly: random.below(4) };
      const first = kept(images, rules);
      const after: FolderImage[] = [];
      let run: FolderImage[] = [];
      for (const image of images) {
        run.unshift(image);
        const stays = first.includes(image.description.imageId);
        // An interrupted work has left some that go.
        if (!stays && !random.oneIn(4)) continue;
        const parent = run.at(-1)?.description.parent;
        after.push({
          ...image,
          description: { ...image.description, parent },
          sources: run.flatMap(({ sources }) => sources),
        });
        run = [];
      }
      expect(kept(after, rules)).toEqual(first);
    }
  });
});
