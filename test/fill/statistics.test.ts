/** Counters of files: a model of opens, closes and renames over several threads, and what more files than there are counters become. */
import { describe, expect, it } from 'vitest';
import { Statistics } from '../../src/fill/statistics.ts';
import { seededTest, soak } from '../seeded.ts';

const lanes = 4;

function threads(): Statistics[] {
  const buffer = Statistics.allocate(lanes);
  return Array.from({ length: lanes }, (_, lane) => new Statistics(buffer, lane));
}

describe('statistics', () => {
  it('are those of a model, whichever thread opens, and whichever closes', () => {
    const random = seededTest('opens and closes');
    const all = threads();
    const expected = new Map<string, { opens: number; openNow: number }>();
    const open: Array<{ name: string; slot: number }> = [];
    for (let step = 0; step < (soak ? 200_000 : 5000); step++) {
      if (open.length === 0 || random.oneIn(2)) {
        const name = `disk ${random.below(900)}.vhdx${'x'.repeat(random.oneIn(9) ? 600 : 0)}`;
        const counters = random.pick(all).counters(name);
        counters.add('opens', 1);
        counters.add('openNow', 1);
        const model = expected.get(name) ?? { opens: 0, openNow: 0 };
        expected.set(name, { opens: model.opens + 1, openNow: model.openNow + 1 });
        open.push({ name, slot: counters.slot });
      } else {
        // Whatever it is called by now: the handle knows where it counts.
        const [closed] = open.splice(random.below(open.length), 1);
        if (closed === undefined) continue;
        random.pick(all).at(closed.slot).add('openNow', -1);
        const model = expected.get(closed.name) ?? expect.fail('was opened');
        expected.set(closed.name, { ...model, openNow: model.openNow - 1 });
      }
    }
    for (const thread of all) {
      expect(thread.snapshot()).toHaveLength(expected.size);
      for (const [name, model] of expected)
        expect({ opens: thread.counters(name).get('opens'), openNow: thread.counters(name).get('openNow') }).toEqual(
          model,
        );
    }
  });

  it('of more files than are counted apart are together, under a name of their own, and never below zero', () => {
    const [first, second] = threads();
    if (first === undefined || second === undefined) expect.fail('no threads');
    const slots = Array.from({ length: 6000 }, (_, file) => {
      const counters = (file % 2 === 0 ? first : second).counters(`disk ${file}`);
      counters.add('openNow', 1);
      return counters.slot;
    });
    const snapshot = second.snapshot();
    expect(snapshot).toHaveLength(4096);
    expect(snapshot.slice(0, -1).every((file) => file.openNow === 1)).toBe(true);
    expect(snapshot.at(-1)).toMatchObject({ name: '(further files)', openNow: 6000 - 4095 });
    for (const slot of slots) first.at(slot).add('openNow', -1);
    expect(second.snapshot().every((file) => file.openNow === 0)).toBe(true);
    second.at(0).add('openNow', -1);
    expect(first.snapshot()[0]?.openNow).toBe(0);
  });

  it('leave room for what is opened, where many files are only looked at', () => {
    const [statistics] = threads();
    if (statistics === undefined) expect.fail('no threads');
    for (let file = 0; file < 10_000; file++) statistics.noted(`looked at ${file}`)?.set('sizeBytes', file);
    statistics.counters('opened').add('opens', 1);
    expect(statistics.snapshot().at(-1)).toMatchObject({ name: 'opened', opens: 1 });
    expect(statistics.snapshot()).toHaveLength(2049);
  });
});
