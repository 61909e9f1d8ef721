/** The text in which LVM2 describes a volume group: `name = value`, `name { ... }`, comments from `#` to the end of the line. */
import { FormatError } from '../../base/errors.ts';

export type LvmValue = string | number | readonly (string | number)[] | LvmSection;
export interface LvmSection {
  readonly [name: string]: LvmValue;
}

const maxDepth = 16;
const maxTokens = 500_000;
const token = /\s+|#[^\n]*|"((?:[^"\\]|\\.)*)"|([{}[\],=])|([^\s{}[\],="#]+)/gy;

/** @throws FormatError */
export function parseLvmText(source: string): LvmSection {
  const tokens = tokensOf(source);
  let at = 0;

  function section(depth: number): LvmSection {
    if (depth > maxDepth) throw broken('is nested too deep');
    // No prototype: the text may name anything.
    const found = Object.create(null) as Record<string, LvmValue>;
    for (let name = tokens[at]; name !== undefined && name.text !== '}'; name = tokens[at]) {
      const sign = tokens[at + 1]?.text;
      at += 2;
      if (sign === '{') found[name.text] = section(depth + 1);
      else if (sign === '=') found[name.text] = value();
      else throw broken(`"${name.text.slice(0, 40)}" has no value`);
    }
    if ((tokens[at] === undefined) !== (depth === 0)) throw broken('its braces do not match');
    at++;
    return found;
  }

  function value(): LvmValue {
    if (tokens[at]?.text !== '[' || tokens[at]?.quoted === true) return scalar();
    const items: (string | number)[] = [];
    at++;
    while (tokens[at] !== undefined && tokens[at]?.text !== ']') {
      items.push(scalar());
      if (tokens[at]?.text === ',') at++;
    }
    at++;
    return items;
  }

  function scalar(): string | number {
    const found = tokens[at++];
    if (found === undefined) throw broken('ends within a value');
    return found.quoted || !/^-?\d+(\.\d+)?$/.test(found.text) ? found.text : Number(found.text);
  }

  return section(0);
}

function tokensOf(source: string): { text: string; quoted: boolean }[] {
  const found: { text: string; quoted: boolean }[] = [];
  token.lastIndex = 0;
  while (token.lastIndex < source.length) {
    const match = token.exec(source);
    if (match === null || found.length > maxTokens) throw broken('cannot be parsed');
    const [, quoted, sign, word] = match;
    const text = quoted ?? sign ?? word;
    if (text !== undefined) found.push({ text, quoted: quoted !== undefined });
  }
  return found;
}

function broken(detail: string): FormatError {
  return new FormatError('LVM metadata', 'text', 0, detail);
}
