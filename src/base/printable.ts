/**
 * Other people's text (file names, what a guest or a file says of itself) as plain text in one line: what would move the cursor, colour or
 * clear the screen, turn the direction of writing, or not be seen at all, is written out. A byte of a name that is no UTF-8 is `\xNN`, as is
 * a control character of ASCII; any other is `\u{...}`.
 */
import { byteOfEscape } from './names.ts';

/** Controls, formats (bidirectional overrides among them), surrogates, separators of lines and paragraphs. */
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
const short: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

export function printable(text: string): string {
  return text.replaceAll(unprintable, (character) => {
    const code = character.codePointAt(0) ?? 0;
    const byte = code < 0x80 ? code : byteOfEscape(code);
    if (byte === undefined) return `\\u{${code.toString(16)}}`;
    return short[character] ?? `\\x${byte.toString(16).padStart(2, '0')}`;
  });
}

/** JSON that says the same and can be printed: its line breaks stay, which are between its tokens. */
export function printableJson(json: string): string {
  return json.replaceAll(unprintable, (character) => {
    if (character === '\n') return character;
    return Array.from({ length: character.length }, (_, index) => character.charCodeAt(index))
      .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
      .join('');
  });
}
