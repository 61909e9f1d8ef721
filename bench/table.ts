/** Numbers of several rounds as medians with their spread, and tables in Markdown. */

/** Lower quartile, median and upper quartile, interpolated. */
export interface Spread {
  readonly low: number;
  readonly median: number;
  readonly high: number;
}

/** @param values at least one */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => {
    const index = share * (sorted.length - 1);
    const below = sorted[Math.floor(index)] ?? Number.NaN;
    const above = sorted[Math.ceil(index)] ?? Number.NaN;
    return below + (above - below) * (index - Math.floor(index));
  };
  return { low: at(0.25), median: at(0.5), high: at(0.75) };
}

export function medianOf(values: readonly number[]): number {
  return spreadOf(values).median;
}

/** Round by round, so that what slowed the machine in one round slowed both. */
export function ratioOf(values: readonly number[], divisors: readonly number[]): Spread {
  return spreadOf(values.map((value, round) => value / (divisors[round] ?? Number.NaN)));
}

/** `2.05 (1.98 to 2.11)`: the median and the quartiles. */
export function ratioText({ low, median, high }: Spread): string {
  return `${significant(median)} (${significant(low)} to ${significant(high)})`;
}

/** Three significant digits, with no exponent. */
export function significant(value: number): string {
  if (!Number.isFinite(value)) return '?';
  const digits = value === 0 ? 0 : Math.floor(Math.log10(Math.abs(value)));
  return value.toFixed(Math.min(3, Math.max(0, 2 - digits)));
}

/** The first column to the left, all others to the right. */
export function markdownTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, column) =>
    Math.max(3, name.length, ...rows.map((row) => (row[column] ?? '').length)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, column) => (column === 0 ? (cells[column] ?? '').padEnd(width) : (cells[column] ?? '').padStart(width))).join(' | ')} |`;
  const rule = widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  return [line(header), `| ${rule.join(' | ')} |`, ...rows.map(line)].join('\n');
}
