/** Which source is read, by what was measured; which units the fill takes first; how it yields. */
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { Balance } from '../../src/replacement/balance.ts';
import { HotUnits } from '../../src/replacement/hot-units.ts';
import { Politeness, SharedRate } from '../../src/fill/pace.ts';

/** Reads that take what they are told to, and what they took in all. */
function readMany(balance: Balance, count: number, lengthBytes: number, tookMs: { data: number; base: number }) {
  const asked = { data: 0, base: 0 };
  let totalMs = 0;
  for (let number = 0; number < count; number++) {
    const source = balance.choose(lengthBytes);
    asked[source]++;
    totalMs += tookMs[source];
    balance.record(source, lengthBytes, tookMs[source]);
  }
  return { asked, totalMs };
}

describe('the balance between two sources', () => {
  it.each([
    { data: 0.05, base: 5 },
    { data: 5, base: 0.05 },
    { data: 1, base: 1.2 },
  ])('gives reads to the faster one, and costs at most a tenth more than it alone ($data ms, $base ms)', (tookMs) => {
    const balance = new Balance(Balance.allocate());
    const count = 5000;
    const { totalMs } = readMany(balance, count, 4 * KiB, tookMs);
    expect(totalMs).toBeLessThan(count * Math.min(tookMs.data, tookMs.base) * 1.1 + tookMs.data + tookMs.base);
  });

  it('notices when the other one becomes faster', () => {
    const balance = new Balance(Balance.allocate());
    readMany(balance, 2000, 64 * KiB, { data: 1, base: 4 });
    readMany(balance, 2000, 64 * KiB, { data: 1, base: 0.1 });
    const { asked } = readMany(balance, 1000, 64 * KiB, { data: 1, base: 0.1 });
    expect(asked.base).toBeGreaterThan(900);
  });

  it('keeps small and large reads apart', () => {
    const balance = new Balance(Balance.allocate());
    readMany(balance, 100, 4 * KiB, { data: 1, base: 10 });
    readMany(balance, 100, MiB, { data: 10, base: 1 });
    expect(balance.choose(4 * KiB)).toBe('data');
    expect(balance.choose(MiB)).toBe('base');
  });

  it('divides large reads so that both are done at once', () => {
    const balance = new Balance(Balance.allocate());
    expect(balance.shareOfBase(16)).toBe(0);
    readMany(balance, 100, MiB, { data: 1, base: 3 });
    expect(balance.shareOfBase(16)).toBe(4);
  });
});

describe('the units that a guest asks for', () => {
  it('are taken in order, each once', () => {
    const hot = new HotUnits(HotUnits.allocate());
    expect(hot.take()).toBeUndefined();
    for (const unit of [7, 3, 2 ** 31 - 1]) hot.push(unit);
    expect([hot.take(), hot.take(), hot.take(), hot.take()]).toEqual([7, 3, 2 ** 31 - 1, undefined]);
  });

  it('are the latest ones, where more were asked for than are kept', () => {
    const hot = new HotUnits(HotUnits.allocate());
    for (let unit = 0; unit < 10_000; unit++) hot.push(unit);
    const taken: number[] = [];
    for (let unit = hot.take(); unit !== undefined; unit = hot.take()) taken.push(unit);
    expect(taken.at(-1)).toBe(9999);
    expect(taken).toEqual(Array.from({ length: taken.length }, (_, index) => 10_000 - taken.length + index));
  });
});

describe('a polite fill', () => {
  /** Chunks with a guest that reads all the time; its reads take so long while the fill copies, and while it rests. */
  function restsOf(chunks: number, copyingUs: number, restingUs: number): number[] {
    let load = { reads: 0, microseconds: 0 };
    const politeness = new Politeness(() => load);
    return Array.from({ length: chunks }, () => {
      load = { reads: load.reads + 10, microseconds: load.microseconds + 10 * copyingUs };
      const restMs = politeness.afterChunk();
      if (restMs > 0) {
        load = { reads: load.reads + 10, microseconds: load.microseconds + 10 * restingUs };
        politeness.afterRest();
      }
      return restMs;
    });
  }
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

  it('rests ever longer while the guest suffers, and hardly where it does not', () => {
    const suffering = restsOf(100, 300, 100);
    const content = restsOf(100, 105, 100);
    expect(suffering.at(-1)).toBeGreaterThan(50);
    expect(sum(content.slice(50))).toBeLessThan(sum(suffering.slice(50)) / 50);
  });

  it('does not rest while no guest reads', () => {
    const politeness = new Politeness(() => ({ reads: 5, microseconds: 100 }));
    expect(Array.from({ length: 50 }, () => politeness.afterChunk())).toEqual(Array(50).fill(0));
  });

  it('shares a rate with others in equal parts', () => {
    const rate = new SharedRate();
    expect(rate.shouldTakeMs(MiB)).toBe(0);
    rate.bytesPerSecond = MiB;
    rate.join();
    expect(new SharedRate(rate.buffer).shouldTakeMs(MiB)).toBe(1000);
    rate.join();
    expect(rate.shouldTakeMs(MiB)).toBe(2000);
    rate.leave();
    expect(rate.shouldTakeMs(MiB / 2)).toBe(500);
  });
});
