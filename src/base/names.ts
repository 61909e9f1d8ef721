/**
 * File names are bytes. In this program they are strings: bytes that are no UTF-8 stand as lone surrogates (byte 0x80 is U+DC80, as PEP 383
 * has it), so that every name goes through unchanged, and two names that differ by such a byte stay two.
 */
const escapeBase = 0xdc00;
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The string of a name or path. `bytesOfName` gives the bytes back. */
export function nameOfBytes(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes);
  } catch {
    return decodeEscaping(bytes);
  }
}

export function bytesOfName(name: string): Buffer {
  if (name.isWellFormed()) return Buffer.from(name);
  const parts: Buffer[] = [];
  // A pair of surrogates is one character here, and a lone one another.
  for (const character of name) {
    const byte = byteOfEscape(character.codePointAt(0) ?? 0);
    parts.push(byte === undefined ? Buffer.from(character) : Buffer.of(byte));
  }
  return Buffer.concat(parts);
}

/** The byte that a lone surrogate stands for; undefined for every other character. */
export function byteOfEscape(code: number): number | undefined {
  return code >= escapeBase + 0x80 && code <= escapeBase + 0xff ? code - escapeBase : undefined;
}

/** Whether a text that comes from elsewhere (JSON) can be a name or path: it has no zero byte, and each lone surrogate stands for a byte. */
export function mayBeName(text: string): boolean {
  return !text.includes('\0') && (text.isWellFormed() || nameOfBytes(bytesOfName(text)) === text);
}

/** A path as Node's calls take it: only one that is no UTF-8 needs its bytes. */
export function nativePath(path: string): string | Buffer {
  return path.isWellFormed() ? path : bytesOfName(path);
}

/** What Node puts for bytes that are no UTF-8. */
const replacementCharacter = '\uFFFD';

/** The name in `bytes` from `start` to `end`; the same as `nameOfBytes`, and quicker for short ones. */
export function nameWithin(bytes: Buffer, start: number, end: number): string {
  const text = bytes.toString('utf8', start, end);
  return text.includes(replacementCharacter) ? nameOfBytes(bytes.subarray(start, end)) : text;
}

/** For calls that take a path as bytes that end in a zero byte. */
export function zeroTerminated(path: string): Buffer {
  const bytes = bytesOfName(path);
  const ended = Buffer.alloc(bytes.length + 1);
  bytes.copy(ended);
  return ended;
}

function decodeEscaping(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const length = sequenceLength(bytes, at);
    text +=
      length === 0
        ? String.fromCharCode(escapeBase + (bytes[at] ?? 0))
        : strict.decode(bytes.subarray(at, at + length));
    at += Math.max(1, length);
  }
  return text;
}

/** Bytes of the UTF-8 character at `at`; 0 where there is none. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at] ?? 0;
  const length = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 0;
  if (length === 0 || at + length > bytes.length) return 0;
  try {
    strict.decode(bytes.subarray(at, at + length));
    return length;
  } catch {
    return 0;
  }
}
