/** Pruning: what stays reads as before, what goes is consolidated or removed, and an interrupted work is ended by the same command. */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { applyPrune, planPrune, type PruneOptions } from '../../../src/backup/care/prune.ts';
import { keptByRules } from '../../../src/backup/care/retention.ts';
import { seededTest } from '../../seeded.ts';
import { chainStart, dailyChain, dayMs, expectAllHold, namesIn, owner, type DailyChain } from './daily-chain.ts';
import { ringOf } from '../keys.ts';

async function prune(made: DailyChain, options: PruneOptions): Promise<void> {
  const folder = made.folder.file('images');
  await applyPrune(folder, planPrune(folder, options), options);
}

describe('rules of retention', () => {
  const points = (...days: number[]): { createdAt: Date }[] =>
    days.map((day) => ({ createdAt: new Date(chainStart + day * dayMs) }));
  const kept = (all: { createdAt: Date }[], rules: PruneOptions): number[] =>
    [...keptByRules(all, rules).keys()].map((point) => all.indexOf(point)).sort((a, b) => a - b);

  it('keep the newest of each period, days without any not counted', () => {
    const all = points(0, 0.1, 1, 1.2, 5, 9, 9.3);
    expect(kept(all, { daily: 3 })).toEqual([3, 4, 6]);
    expect(kept(all, { last: 2 })).toEqual([5, 6]);
  });

  it('have weeks begin on Monday and months on their first day, in UTC', () => {
    // The 5th of January 2026 is a Monday.
    const all = points(6, 7, 26, 27, 56);
    expect(kept(all, { weekly: 10 })).toEqual([0, 1, 3, 4]);
    expect(kept(all, { monthly: 2 })).toEqual([3, 4]);
  });

  it('are needed', () => {
    expect(() => keptByRules(points(1), {})).toThrow(/--keep-last/);
  });

  it('keep the same when they are applied to what they kept', () => {
    const random = seededTest('retention');
    for (let round = 0; round < 200; round++) {
      const all = points(...Array.from({ length: 30 }, () => random.below(2000) / 10));
      const rules = {
        last: random.below(4),
        daily: random.below(6),
        weekly: random.below(5),
        monthly: 1 + random.below(4),
      };
      const first = [...keptByRules(all, rules).keys()];
      // Whatever of the rest is still there.
      const left = all.filter((point) => first.includes(point) || random.oneIn(3));
      expect(new Set(keptByRules(left, rules).keys())).toEqual(new Set(first));
    }
  });
});

describe('a pruned chain', () => {
  it('has the restore points that the rules keep, and the oldest of them is a synthetic full', async () => {
    using made = await dailyChain(seededTest('prune'), 12);
    await prune(made, { last: 2, weekly: 2 });
    expect(namesIn(made)).toEqual(['06.spi', '10.spi', '11.spi']);
    expectAllHold(made);
    expect(planPrune(made.folder.file('images'), { last: 2, weekly: 2 })[0]).toMatchObject({
      steps: [],
      depthAfter: 3,
    });
  });

  it('keeps what a plugin file points to, and what two branches share', async () => {
    using made = await dailyChain(seededTest('prune pins'), 8);
    const folder = made.folder.file('images');
    const branch = path.join(folder, 'branch.spi');
    await createImage(made.folder.file('source.raw'), branch, {
      parent: path.join(folder, '03.spi'),
      keys: ringOf(owner),
    });
    made.models.set('branch.spi', made.models.get('07.spi') ?? fail());
    const pinned = planPrune(folder, { last: 8 })[0]?.kept.find(({ image }) => image.path.endsWith('01.spi'));
    const options: PruneOptions = {
      last: 2,
      whyNeeded: (imageId) => (imageId === pinned?.image.description.imageId ? 'vm.vhdx points to it' : undefined),
    };
    const [plan] = planPrune(folder, options);
    expect(plan?.kept.map(({ image, reason }) => `${path.basename(image.path)} ${reason}`)).toEqual([
      '07.spi last',
      'branch.spi last',
      '03.spi several images are made on it',
      '01.spi vm.vhdx points to it',
    ]);
    await prune(made, options);
    expect(namesIn(made)).toEqual(['01.spi', '03.spi', '07.spi', 'branch.spi']);
    expectAllHold(made);
  });

  it('is no deeper than its bound, though all restore points stay', async () => {
    using made = await dailyChain(seededTest('prune depth'), 7);
    const before = namesIn(made);
    const options = { last: 7, maxDepth: 3 };
    expect(planPrune(made.folder.file('images'), options)[0]).toMatchObject({ depthBefore: 7, depthAfter: 3 });
    await prune(made, options);
    expect(namesIn(made)).toEqual(before);
    for (const name of before) {
      using disk = closing(openChainDisk(path.join(made.folder.file('images'), name)));
      expect(disk.value.images.length).toBeLessThanOrEqual(3);
    }
    expectAllHold(made);
    expect(planPrune(made.folder.file('images'), options)[0]?.steps).toEqual([]);
  });

  it('that was interrupted between any two removals is ended by the same command', async () => {
    using made = await dailyChain(seededTest('prune resumed'), 9);
    const folder = made.folder.file('images');
    const rules = { last: 1, weekly: 2 };
    const remove = fs.rmSync.bind(fs);
    const removed = vi.spyOn(fs, 'rmSync');
    let left = 0;
    try {
      removed.mockImplementation((file, options) => {
        if (String(file).endsWith('.veneer-part') || left-- > 0) remove(file, options);
        else throw new Error('killed');
      });
      syncBuiltinESMExports();
      let runs = 0;
      let failure: unknown = 'not run';
      for (; failure !== undefined && runs < 20; runs++) {
        left = 2;
        failure = await prune(made, rules).then(
          () => undefined,
          (error: unknown) => error,
        );
        expectAllHold(made);
      }
      expect(failure).toBeUndefined();
      expect(runs).toBeGreaterThan(2);
    } finally {
      removed.mockRestore();
      syncBuiltinESMExports();
    }
    expect(fs.readdirSync(folder).sort()).toEqual(['06.spi', '08.spi']);
  });

  it('that someone reads stays as it is', async () => {
    using made = await dailyChain(seededTest('prune in use'), 4);
    const before = namesIn(made);
    {
      using disk = closing(openChainDisk(path.join(made.folder.file('images'), '01.spi')));
      await expect(prune(made, { last: 1 })).rejects.toThrow(/01\.spi: is in use/);
      expect(disk.value.images).toHaveLength(2);
    }
    expect(namesIn(made)).toEqual(before);
    await prune(made, { last: 1 });
    expect(namesIn(made)).toEqual(['03.spi']);
    expectAllHold(made);
  });
});

function fail(): never {
  throw new Error('no such image');
}
