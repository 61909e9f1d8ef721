/**
 * Names with a suffix. A name may have 255 bytes: one that is too long for its suffix is cut, and a hash of the whole takes the place of what
 * was cut off, so that every file can have others beside it, and no two share one.
 */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { bytesOfName, nameOfBytes } from './names.ts';

export const maxNameBytes = 255;
const hashCharacters = 16;

/** `filePath` with `suffix` at its end, its name cut where it must be. */
export function suffixed(filePath: string, suffix: string): string {
  const name = path.basename(filePath);
  if (lengthBytes(name) + suffix.length <= maxNameBytes) return filePath + suffix;
  return path.join(path.dirname(filePath), shortened(name, maxNameBytes - suffix.length) + suffix);
}

/** The name itself where it is short enough; else its beginning, and a hash of all of it. */
export function shortened(name: string, maxBytes: number): string {
  const bytes = bytesOfName(name);
  if (bytes.length <= maxBytes) return name;
  let end = maxBytes - hashCharacters - 1;
  // Not within a character.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, hashCharacters);
  return `${nameOfBytes(bytes.subarray(0, end))}~${hash}`;
}

export function lengthBytes(name: string): number {
  return bytesOfName(name).length;
}
