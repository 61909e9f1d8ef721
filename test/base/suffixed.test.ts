import { describe, expect, it } from 'vitest';
import { bytesOfName } from '../../src/base/names.ts';
import { lengthBytes, maxNameBytes, shortened, suffixed } from '../../src/base/suffixed.ts';

describe('a name with a suffix', () => {
  it('is just that where it is short enough', () => {
    expect(suffixed('/a/b.vhdx', '.part')).toBe('/a/b.vhdx.part');
    expect(suffixed(`/a/${'n'.repeat(250)}`, '.part')).toBe(`/a/${'n'.repeat(250)}.part`);
  });

  it('never has more bytes than a name may have, ends with its suffix, and is another for another name', () => {
    const seen = new Set<string>();
    for (let length = 246; length <= 255; length++) {
      for (const name of [
        'n'.repeat(length),
        `${'n'.repeat(length - 1)}m`,
        'é'.repeat(length / 2),
        '🙂'.repeat(length / 4),
      ]) {
        const made = suffixed(name, '.finalized');
        expect(lengthBytes(made)).toBeLessThanOrEqual(maxNameBytes);
        expect(made.endsWith('.finalized')).toBe(true);
        expect(made.isWellFormed()).toBe(true);
        seen.add(made);
      }
    }
    // Of the two-byte and four-byte characters, several lengths give the same name.
    expect(seen.size).toBe(10 * 2 + 5 + 3);
  });

  it('is cut between characters, also where a name is no UTF-8', () => {
    const name = '\udcff'.repeat(255);
    const made = shortened(name, 200);
    expect(lengthBytes(made)).toBeLessThanOrEqual(200);
    expect(bytesOfName(made).subarray(0, 100)).toEqual(Buffer.alloc(100, 0xff));
  });
});
