import { expect, it } from 'vitest';
import { coveringSample, spreadSample } from './covering.ts';

it('a covering sample has each kind of each sort, in the order of the cases, and hardly more cases than kinds', () => {
  const formats = ['vhdx', 'qcow2', 'vmdk'];
  const layouts = ['fixed', 'dynamic'];
  const cases = formats.flatMap((format) =>
    layouts.flatMap((layout) => [true, false].map((on) => ({ format, layout, on }))),
  );
  const sample = coveringSample(cases, ({ format, layout, on }) => [format, layout, on]);
  expect(new Set(sample.map(({ format }) => format))).toEqual(new Set(formats));
  expect(new Set(sample.map(({ layout }) => layout))).toEqual(new Set(layouts));
  expect(new Set(sample.map(({ on }) => on))).toEqual(new Set([true, false]));
  expect(sample).toHaveLength(3);
  expect(cases.filter((one) => sample.includes(one))).toEqual(sample);
});

it('what must occur more often than what it goes with is shared out', () => {
  const cases = ['fixed', 'dynamic'].flatMap((layout) => [1, 2, 3, 4].map((size) => ({ layout, size })));
  const sample = coveringSample(cases, ({ layout, size }) => [layout, size]);
  expect(sample.map(({ layout }) => layout)).toEqual(['fixed', 'fixed', 'dynamic', 'dynamic']);
});

it('kinds of one name and of different sorts are not taken for each other', () => {
  const cases = [
    ['raw', 'vhdx'],
    ['vhdx', 'raw'],
    ['vhdx', 'vhdx'],
  ] as const;
  expect(coveringSample(cases, (both) => both)).toEqual([cases[0], cases[1]]);
});

it('a spread sample has the first and the last, and so many of all as it may', () => {
  const cases = Array.from({ length: 10 }, (_, index) => index);
  expect(spreadSample(cases, 4)).toEqual([0, 3, 6, 9]);
  expect(spreadSample(cases, 1)).toEqual([0]);
  expect(spreadSample(cases, 20)).toEqual(cases);
  expect(spreadSample([], 3)).toEqual([]);
});
