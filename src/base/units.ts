/** Sizes in bytes, and how they are written for people and read from them; and times of files. */
import { UsageError } from './errors.ts';

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

export const nsPerSecond = 1_000_000_000n;

const suffixes: ReadonlyArray<readonly [string, number]> = [
  ['TiB', TiB],
  ['GiB', GiB],
  ['MiB', MiB],
  ['KiB', KiB],
];

/** `1536` -> `1.5 KiB`; exact bytes below 1 KiB. */
export function formatBytes(bytes: number): string {
  for (const [index, [name, size]] of suffixes.entries()) {
    if (bytes < size) continue;
    const value = bytes / size;
    const larger = suffixes[index - 1];
    if (larger !== undefined && Math.round(value) === 1024) return `1 ${larger[0]}`;
    return `${trimZeros(value.toFixed(value >= 100 ? 0 : 2))} ${name}`;
  }
  return `${bytes} B`;
}

/** Seconds as `42 s`, `3 min 05 s`, `2 h 07 min`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} min`;
}

/**
 * Reads `65536`, `64k`, `64K`, `64KiB`, `1M`, `2g` as bytes (powers of 1024).
 * @throws UsageError when it is not a size or not a whole number of bytes.
 */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  const scale = { '': 1, k: KiB, m: MiB, g: GiB, t: TiB }[(match?.[2] ?? '').toLowerCase()];
  const bytes = match === null || scale === undefined ? Number.NaN : Number(match[1]) * scale;
  if (!Number.isSafeInteger(bytes))
    throw new UsageError(`${what}: "${text}" is not a size; write e.g. 64K, 1M or 65536`);
  return bytes;
}

function trimZeros(text: string): string {
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}
