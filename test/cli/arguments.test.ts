/** What is written behind options: refused in one line that says what may stand there, before anything is begun. */
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import { parseBytes, parseCount, parseTime } from '../../src/cli/arguments.ts';
import { TempFolder } from '../temp-folder.ts';
import { veneerRefuses } from './veneer.ts';

describe('a count', () => {
  it.each([
    ['1', 1],
    ['64', 64],
    [' 7 ', 7],
    ['007', 7],
  ])('%j is read', (text, count) => {
    expect(parseCount(text, '--n', { least: 1, most: 64 })).toBe(count);
  });

  it.each(['0', '65', '-1', '+1', '1.5', '1.0', '2K', '0x10', '1e1', '', ' ', 'two', '٣', '9'.repeat(20)])(
    '%j is refused',
    (text) => {
      const parse = (): number => parseCount(text, '--n', { least: 1, most: 64 });
      expect(parse).toThrow(UsageError);
      expect(parse).toThrow(`--n: "${text}" is not a number from 1 to 64`);
    },
  );

  it('that is too large to be exact is refused, though nothing bounds it', () => {
    expect(() => parseCount('9007199254740993', '--n', { least: 0 })).toThrow('is not a number of 0 or more');
  });
});

describe('a time', () => {
  it.each([
    ['30', 30_000],
    ['0', 0],
    ['0.5', 500],
    ['500ms', 500],
    ['2m', 120_000],
    ['2 min', 120_000],
    ['100s', 100_000],
  ])('%j is read', (text, ms) => {
    expect(parseTime(text, '--t', { least: 0, most: 120 })).toBe(ms);
  });

  it.each(['121', '3m', '-1', '2K', '1M', '', 's', '1e1', 'soon', '1h30'])('%j is refused', (text) => {
    const parse = (): number => parseTime(text, '--t', { least: 0, most: 120 });
    expect(parse).toThrow(UsageError);
    expect(parse).toThrow(`--t: "${text}" is not a time from 0 s to 120 s; write e.g. 30, 30s or 2m`);
  });
});

describe('a size', () => {
  it.each([
    ['65536', 64 * KiB],
    ['64k', 64 * KiB],
    ['1.5M', 1.5 * MiB],
  ])('%j is read', (text, bytes) => {
    expect(parseBytes(text, '--s', { least: 0, most: 2 * MiB })).toBe(bytes);
  });

  it('out of its bounds is refused', () => {
    expect(() => parseBytes('3M', '--s', { least: 0, most: 2 * MiB })).toThrow('"3M" is not a size from 0 B to 2 MiB');
    expect(() => parseBytes('2', '--s', { least: MiB })).toThrow('"2" is not a size of 1 MiB or more');
    expect(() => parseBytes('much', '--s', { least: MiB })).toThrow('"much" is not a size');
  });
});

const refusals: ReadonlyArray<readonly [args: readonly string[], says: RegExp]> = [
  [['image', 'create', '--threads', '2K', 'IN', 'OUT'], /--threads: "2K" is not a number from 1 to 256$/],
  [['image', 'create', '--threads', '0', 'IN', 'OUT'], /--threads: "0" is not a number from 1 to 256$/],
  [['image', 'consolidate', '--from', '1K', 'IN', 'OUT'], /--from: "1K" is not a number of 0 or more$/],
  [['chain', 'prune', '--keep-last', '1.5', 'IN'], /--keep-last: "1\.5" is not a number of 0 or more$/],
  [['key', 'remove', '--slot', '8', 'IN'], /--slot: "8" is not a number from 0 to 7$/],
  [['image', 'verify', '--key-fd', 'three', 'IN'], /--key-fd: "three" is not a number of 0 or more$/],
  [['mount', '--idle', '2K', 'IN', 'OUT'], /--idle: "2K" is not a time from 0 s to 2000000 s; write e\.g\. 30/],
  [['mount', '--source-timeout', '0.4', 'IN', 'OUT'], /--source-timeout: "0\.4" is not a time from 0\.5 s to /],
  [['mount', '--workers', '65', 'IN', 'OUT'], /--workers: "65" is not a number from 1 to 64$/],
  [['mount', '--fill-rate', 'fast', 'IN', 'OUT'], /--fill-rate: "fast" is not a size/],
  [['boot', '--memory', '2', 'IN'], /--memory: "2" is not a size of 1 MiB or more$/],
  [['boot', '--stop-within', '2d', 'IN'], /--stop-within: "2d" is not a time from 0 s to 86400 s/],
];

it.each(refusals)('veneer %j is refused', async (args, says) => {
  using folder = new TempFolder();
  const given = args.map((one) => (one === 'IN' || one === 'OUT' ? folder.file(one) : one));
  expect(await veneerRefuses(...given)).toMatch(says);
  expect(folder.names()).toEqual([]);
});
