import { expect, it } from 'vitest';
import { nameOfBytes } from '../../src/base/names.ts';
import { printable, printableJson } from '../../src/base/printable.ts';
import { seededTest } from '../seeded.ts';

/** Every character that may come: controls, directions, surrogates, separators, and what is none of these. */
const odd = ['\0', '\x07', '\x1b', '\x7f', '\x85', '\x9b', '\u061c', '\u200e', '\u202e', '\u2028', '\u2066', '\ufeff'];

it('what moves a cursor, turns the direction or cannot be seen is written out', () => {
  expect(printable('a\nb\rc\td\x1b[2J\x07\x7f')).toBe('a\\nb\\rc\\td\\x1b[2J\\x07\\x7f');
  expect(printable('\x9b31m \u202Egpj.exe \u2066 \u2028 \u{E0041}')).toBe(
    '\\u{9b}31m \\u{202e}gpj.exe \\u{2066} \\u{2028} \\u{e0041}',
  );
  expect(printable(nameOfBytes(Buffer.from('caf\xe9', 'latin1')))).toBe('caf\\xe9');
  expect(printable('\ud800')).toBe('\\u{d800}');
});

it('all other text stays as it is', () => {
  for (const text of ['plain', 'größe 10 %', 'C:\\Windows', '日本語', 'שלום', '\u{1F600}', 'e\u0301', '\uFFFD'])
    expect(printable(text)).toBe(text);
});

it('whatever the bytes of a name are, its text is one line, has nothing unprintable, and does not change again', () => {
  const random = seededTest('printable');
  for (let round = 0; round < 2000; round++) {
    const bytes = Buffer.concat(
      Array.from({ length: random.below(20) }, () =>
        random.oneIn(3) ? Buffer.from(random.pick(odd)) : random.bytes(random.below(4)),
      ),
    );
    const shown = printable(nameOfBytes(bytes));
    expect(shown).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u);
    expect(shown.isWellFormed()).toBe(true);
    expect(printable(shown)).toBe(shown);
  }
});

it('JSON says the same when it is made printable', () => {
  const value = { [`a${odd.join('')}`]: ['\udc80', '\u{E0041}', 'größe\n'] };
  const json = printableJson(JSON.stringify(value, null, 2));
  expect(json.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u);
  expect(JSON.parse(json)).toEqual(value);
});
