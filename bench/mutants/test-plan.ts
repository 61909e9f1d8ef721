/** What the runner tells vitest.config.ts, which another process reads. */

export type TestPlan = readonly {
  /** Absolute. */
  readonly path: string;
  /** Undefined in the first run, which finds out how long it takes. */
  readonly limitMs?: number | undefined;
}[];

/** The environment's variable that holds the plan as JSON. */
export const planVariable = 'VENEER_MUTANTS_PLAN';

/** How vitest ends when a file took longer than its limit. */
export const lateStatus = 99;
