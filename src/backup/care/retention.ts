/**
 * Which restore points of a chain stay: a pure function of their times and of the rules. Days, weeks (ISO 8601) and months are those of UTC.
 *
 * What is not kept is no longer there to be counted, so applying the rules again to what is left keeps the same: an interrupted work goes on
 * where it was.
 */
import { UsageError } from '../../base/errors.ts';

export interface RetentionRules {
  /** The newest so many. */
  readonly last?: number;
  /** The newest of each of the last so many days, weeks, months that have any. */
  readonly daily?: number;
  readonly weekly?: number;
  readonly monthly?: number;
}

const dayMs = 24 * 60 * 60 * 1000;

/**
 * The restore points that stay, each with the first rule that keeps it. Of equal times, the first given is the newest.
 * @throws UsageError when no rule is given: nothing would stay
 */
export function keptByRules<T extends { readonly createdAt: Date }>(
  points: readonly T[],
  rules: RetentionRules,
): Map<T, string> {
  const entries = [
    ['last', rules.last, (_: Date, index: number) => String(index)],
    ['daily', rules.daily, (time: Date) => time.toISOString().slice(0, 10)],
    ['weekly', rules.weekly, (time: Date) => String(weekOf(time))],
    ['monthly', rules.monthly, (time: Date) => time.toISOString().slice(0, 7)],
  ] as const;
  if (entries.every(([, count]) => count === undefined || count === 0))
    throw new UsageError('say what is to stay: --keep-last, --keep-daily, --keep-weekly, --keep-monthly');
  const newestFirst = [...points].sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime());
  const kept = new Map<T, string>();
  for (const [rule, count, periodOf] of entries) {
    const seen = new Set<string>();
    for (const [index, point] of newestFirst.entries()) {
      if (seen.size >= (count ?? 0)) break;
      const period = periodOf(point.createdAt, index);
      if (seen.has(period)) continue;
      seen.add(period);
      if (!kept.has(point)) kept.set(point, rule);
    }
  }
  return kept;
}

/** Number of the week since 1970, from Monday. The 1st of January 1970 was a Thursday. */
function weekOf(time: Date): number {
  return Math.floor((time.getTime() / dayMs + 3) / 7);
}
