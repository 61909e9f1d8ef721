import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.ts';
import { formatBytes, formatSeconds, GiB, KiB, MiB, parseSize, TiB } from '../../src/base/units.ts';

describe('sizes are written for people', () => {
  it.each([
    [0, '0 B'],
    [1, '1 B'],
    [1023, '1023 B'],
    [KiB, '1 KiB'],
    [1536, '1.5 KiB'],
    [64 * KiB, '64 KiB'],
    [100 * KiB, '100 KiB'],
    [MiB - 1, '1 MiB'],
    [MiB, '1 MiB'],
    [1.25 * MiB, '1.25 MiB'],
    [10 * MiB, '10 MiB'],
    [200 * MiB, '200 MiB'],
    [GiB - 1, '1 GiB'],
    [97 * GiB, '97 GiB'],
    [TiB - 1, '1 TiB'],
    [64 * TiB, '64 TiB'],
    [5000 * TiB, '5000 TiB'],
  ])('%i as %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

describe('seconds are written for people', () => {
  it.each([
    [0, '0 s'],
    [-3, '0 s'],
    [0.4, '0 s'],
    [59.4, '59 s'],
    [59.6, '1 min 00 s'],
    [185, '3 min 05 s'],
    [3599.9, '1 h 00 min'],
    [7620, '2 h 07 min'],
  ])('%d as %s', (seconds, text) => {
    expect(formatSeconds(seconds)).toBe(text);
  });
});

describe('sizes are read', () => {
  it.each([
    ['0', 0],
    ['65536', 65536],
    ['64k', 64 * KiB],
    ['64K', 64 * KiB],
    ['64KB', 64 * KiB],
    ['64KiB', 64 * KiB],
    ['64 kib', 64 * KiB],
    [' 1M ', MiB],
    ['1.5m', 1.5 * MiB],
    ['2g', 2 * GiB],
    ['64T', 64 * TiB],
    ['512b', 512],
  ])('%j as %i bytes', (text, bytes) => {
    expect(parseSize(text, '--size')).toBe(bytes);
  });

  it.each([
    '',
    ' ',
    'k',
    '-1',
    '+1',
    '1e3',
    '0x10',
    '1,5k',
    '1.k',
    '.5k',
    '1 2',
    '64kk',
    '1p',
    '1.3',
    '0.3k',
    '9007199254740993',
    '9e99t',
    'NaN',
    'Infinity',
    '1\n'.repeat(2),
  ])('not %j', (text) => {
    expect(() => parseSize(text, '--size')).toThrow(UsageError);
    expect(() => parseSize(text, '--size')).toThrow(/^--size: /);
  });

  it('as they were written, where that is exact', () => {
    for (const bytes of [1, 1023, KiB, 1.5 * KiB, 64 * KiB, MiB, 5 * GiB, 64 * TiB])
      expect(parseSize(formatBytes(bytes), '--size')).toBe(bytes);
  });
});
