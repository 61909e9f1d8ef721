/** The log of a mount is bounded: one line of each kind a minute, with a count of the others, and so many bytes in all. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { LogLimit } from '../../src/mount/log-limit.ts';
import { MountLog } from '../../src/mount/log.ts';
import { seededTest } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

const minute = 60;

describe('of each kind of line', () => {
  it('one a minute is admitted, whichever thread it comes from, and the others are counted', () => {
    const limit = new LogLimit();
    const another = new LogLimit(limit.buffer);
    expect(limit.admits('read', 'read 1', 1000)).toBe(true);
    expect(another.admits('read', 'read 2', 1000)).toBe(false);
    expect(another.admits('write', 'write 1', 1000)).toBe(true);
    for (let count = 0; count < 10; count++) expect(limit.admits('read', 'read 3', 1030)).toBe(false);
    expect([...another.leftOut(1059)]).toEqual([]);
    expect([...another.leftOut(1060)]).toEqual([{ text: 'read 1', count: 11 }]);
    // That was the line of the next minute.
    expect(limit.admits('read', 'read 4', 1061)).toBe(false);
    expect([...limit.leftOut(1062, true)]).toEqual([{ text: 'read 1', count: 1 }]);
    expect(limit.admits('read', 'read 5', 1060 + minute)).toBe(true);
  });

  it('no line is lost from the count, however many kinds there are, and a minute has so many lines at most', () => {
    const random = seededTest('log limit');
    const limit = new LogLimit();
    let [admitted, given, told, now] = [0, 0, 0, 1000];
    for (let round = 0; round < 30; round++) {
      let inMinute = 0;
      for (let count = 0; count < 2000; count++) {
        given++;
        if (limit.admits(`kind ${random.below(5000)}`, 'text', now)) inMinute++;
      }
      expect(inMinute).toBeLessThanOrEqual(257);
      admitted += inMinute;
      now += minute;
      for (const { count } of limit.leftOut(now)) told += count;
      now += minute;
    }
    for (const { count } of limit.leftOut(now, true)) told += count;
    expect(admitted + told).toBe(given);
  });
});

describe('the log', () => {
  it('takes a million lines of a kind in a few hundred bytes, and says how many were left out', () => {
    using folder = new TempFolder();
    const fd = fs.openSync(folder.file('log'), 'a');
    const log = new MountLog(fd, '/mount', new LogLimit());
    for (let count = 0; count < 200_000; count++)
      log.log('error', `vm.raw: read of 4096 bytes at ${count * 4096} failed: checksum is 0x${count.toString(16)}`, {
        file: 'vm.raw',
        offset: count,
      });
    log.tellLeftOut(true);
    fs.closeSync(fd);
    const lines = fs.readFileSync(folder.file('log'), 'utf8').trim().split('\n');
    expect(lines).toHaveLength(2);
    expect(JSON.parse(lines[1] ?? '')).toMatchObject({
      leftOut: 199_999,
      msg: expect.stringContaining('199999 more') as string,
    });
  });

  it('begins anew at its bound, and says so; names in it are text', () => {
    using folder = new TempFolder();
    const fd = fs.openSync(folder.file('log'), 'a');
    fs.writeSync(fd, 'x'.repeat(MiB + 1));
    const log = new MountLog(fd, '/mount', new LogLimit());
    log.log('warn', 'a\x1b[2J\u{9b}\nname', { file: 'a\x7f\u202E' });
    fs.closeSync(fd);
    const text = fs.readFileSync(folder.file('log'), 'utf8');
    expect(text.length).toBeLessThan(1000);
    expect(text).toMatch(/^.*the log had 1048577 bytes, as many as it may; what stood here is gone.*\n.*a\\\\x1b\[2J/);
    expect(text).not.toMatch(/[^\P{C}\n]/u);
    expect(JSON.parse(text.trim().split('\n')[1] ?? '')).toMatchObject({ file: 'a\x7f\u202E' });
  });
});
