/** Which of many like cases `npm test` has. A soak has all of them: `npm run soak -- FILE`. */
import { soak } from './seeded.ts';

/**
 * Few cases, in their order, among which everything that `kindsOf` names of any case (its format, its layout, its transport) occurs, each
 * about as often as others of its sort. In a soak: all.
 */
export function covering<T>(cases: readonly T[], kindsOf: (one: T) => readonly (string | number | boolean)[]): T[] {
  return soak ? [...cases] : coveringSample(cases, kindsOf);
}

/** So many of the cases, evenly spread from the first to the last. In a soak: all. */
export function spread<T>(cases: readonly T[], count: number): T[] {
  return soak ? [...cases] : spreadSample(cases, count);
}

export function coveringSample<T>(
  cases: readonly T[],
  kindsOf: (one: T) => readonly (string | number | boolean)[],
): T[] {
  const kindsAt = cases.map((one) => kindsOf(one).map((kind, place) => `${place} ${kind}`));
  const uses = new Map(kindsAt.flat().map((kind) => [kind, 0]));
  const usesOf = (kind: string): number => uses.get(kind) ?? 0;
  const taken = new Set<number>();
  while ([...uses.values()].includes(0)) {
    const gains = kindsAt.map((kinds) => {
      const gained = kinds.filter((kind) => usesOf(kind) === 0).length;
      // Of those that gain as much, one of what is rare so far.
      return gained - kinds.reduce((sum, kind) => sum + usesOf(kind), 0) / 1e6;
    });
    const best = gains.indexOf(Math.max(...gains));
    for (const kind of kindsAt[best] ?? []) uses.set(kind, usesOf(kind) + 1);
    taken.add(best);
  }
  return cases.filter((_, index) => taken.has(index));
}

export function spreadSample<T>(cases: readonly T[], count: number): T[] {
  if (count >= cases.length) return [...cases];
  const step = (cases.length - 1) / Math.max(1, count - 1);
  const taken = new Set(Array.from({ length: count }, (_, index) => Math.round(index * step)));
  return cases.filter((_, index) => taken.has(index));
}
