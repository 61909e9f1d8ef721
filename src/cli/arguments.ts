/**
 * What is written behind an option, as a value: counts, sizes, times, and options that may be repeated. It is judged before a command begins;
 * what is refused is refused in one line that says what may stand there.
 */
import { Option } from 'commander';
import { UsageError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { formatBytes, parseSize } from '../base/units.ts';

/** Both included. */
export interface Bounds {
  readonly least: number;
  readonly most?: number;
}

/** What a timer can wait for: a signed 32-bit number of milliseconds. */
export const maxSeconds = 2_000_000;

/** A whole number in decimal digits, with no unit. @throws UsageError */
export function parseCount(text: string, option: string, bounds: Bounds): number {
  const count = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(count) && isWithin(count, bounds)) return count;
  throw new UsageError(`${option}: "${text}" is not a number ${rangeText(bounds, String)}`);
}

/** `65536`, `64K`, `1M`: bytes, in powers of 1024. @throws UsageError */
export function parseBytes(text: string, option: string, bounds: Bounds): number {
  const bytes = parseSize(text, option);
  if (isWithin(bytes, bounds)) return bytes;
  throw new UsageError(`${option}: "${text}" is not a size ${rangeText(bounds, formatBytes)}`);
}

/** `30`, `0.5`, `30s`, `500ms`, `2m`. @param bounds in seconds. @returns milliseconds. @throws UsageError */
export function parseTime(text: string, option: string, bounds: Bounds): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min)?$/.exec(text.trim());
  const scale = { ms: 1, s: 1000, m: 60_000, min: 60_000 }[match?.[2] ?? 's'];
  const ms = match === null || scale === undefined ? Number.NaN : Math.round(Number(match[1]) * scale);
  if (isWithin(ms / 1000, bounds)) return ms;
  const range = rangeText(bounds, (seconds) => `${seconds} s`);
  throw new UsageError(`${option}: "${text}" is not a time ${range}; write e.g. 30, 30s or 2m`);
}

/** Of an option that may be repeated. */
export function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

export function countOption(flags: string, description: string, bounds: Bounds): Option {
  return parsedBy(flags, description, (text, option) => parseCount(text, option, bounds));
}

export function bytesOption(flags: string, description: string, bounds: Bounds = { least: 0 }): Option {
  return parsedBy(flags, description, (text, option) => parseBytes(text, option, bounds));
}

/** The command gets milliseconds. @param bounds in seconds */
export function timeOption(flags: string, description: string, bounds: Bounds): Option {
  return parsedBy(flags, description, (text, option) => parseTime(text, option, bounds));
}

/** A number that names an open file. */
export function descriptorOption(flags: string, description?: string): Option {
  return parsedBy(flags, description, parseDescriptor);
}

/** The same, where the option may be repeated. */
export function descriptorsOption(flags: string, description: string): Option {
  return parsedBy(flags, description, (text, option, before: readonly number[] = []) => [
    ...before,
    parseDescriptor(text, option),
  ]);
}

/** The option may be repeated; the command gets absolute paths. */
export function foldersOption(flags: string, description: string): Option {
  return parsedBy(flags, description, (text, _option, before: readonly string[] = []) =>
    collect(absolutePath(text), before),
  ).default([]);
}

function parseDescriptor(text: string, option: string): number {
  return parseCount(text, option, { least: 0 });
}

/** Commander does not tell who parses a value which option it stands behind. */
function parsedBy<T>(
  flags: string,
  description: string | undefined,
  parse: (text: string, option: string, before: T | undefined) => T,
): Option {
  const option = new Option(flags, description);
  return option.argParser((text: string, before: T | undefined) => parse(text, option.long ?? flags, before));
}

function isWithin(value: number, { least, most = Number.POSITIVE_INFINITY }: Bounds): boolean {
  return value >= least && value <= most;
}

function rangeText({ least, most }: Bounds, shown: (value: number) => string): string {
  return most === undefined ? `of ${shown(least)} or more` : `from ${shown(least)} to ${shown(most)}`;
}
