/** One run of tests in the copy, with or without a mutant. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { mutated, type Mutation } from './mutations.ts';
import type { Scratch } from './scratch.ts';
import { lateStatus, planVariable, type TestPlan } from './test-plan.ts';

/** What a test file may take with a mutant: so many times what it took without, and something for the load of the machine. */
const patienceFactor = 3;
const patienceMs = 30_000;

export type Outcome =
  | { readonly kind: 'noticed'; readonly by: string }
  | { readonly kind: 'survived' }
  /** It cannot be built, and says nothing of the tests. */
  | { readonly kind: 'no program'; readonly why: string };

/** Seconds that each test file took without a mutant. */
export type Timings = Readonly<Record<string, number>>;

interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly startTime: number;
    readonly endTime: number;
    readonly message: string;
    readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[];
  }[];
}

/**
 * Runs these test files as they are.
 * @param known timings of earlier runs of the same files with the same sources: they are not run again
 * @throws Error when one does not pass
 */
export async function firstRun(
  scratch: Scratch,
  tests: readonly string[],
  known: Timings,
  signal: AbortSignal,
): Promise<Timings> {
  const wanted = tests.filter((name) => known[name] === undefined);
  const built = await build(scratch, signal);
  if (built !== undefined) throw new Error(`the build fails without a mutant: ${built}`);
  if (wanted.length === 0) return known;
  const plan = wanted.map((name) => ({ path: scratch.file(name) }));
  const { failure, report } = await runTests(scratch, plan, signal);
  if (failure !== undefined) throw new Error(`without a mutant, a test fails: ${failure}`);
  const found = report?.testResults.map((file): [string, number] => [
    path.relative(scratch.path, file.name),
    (file.endTime - file.startTime) / 1000,
  ]);
  return { ...known, ...Object.fromEntries(found ?? []) };
}

/** Runs these test files with the mutant in its place, the quick ones first. The copy is as before then. */
export async function tryMutant(
  scratch: Scratch,
  mutation: Mutation,
  tests: readonly string[],
  timings: Timings,
  signal: AbortSignal,
): Promise<Outcome> {
  const file = scratch.file(mutation.file);
  const text = fs.readFileSync(file, 'utf8');
  fs.writeFileSync(file, mutated(text, mutation));
  try {
    const why = await build(scratch, signal);
    if (why !== undefined) return { kind: 'no program', why };
    const secondsOf = (name: string): number => timings[name] ?? 0;
    const plan = tests
      .toSorted((a, b) => secondsOf(a) - secondsOf(b))
      .map((name) => ({
        path: scratch.file(name),
        limitMs: secondsOf(name) * 1000 * patienceFactor + patienceMs,
      }));
    const { failure } = await runTests(scratch, plan, signal);
    return failure === undefined ? { kind: 'survived' } : { kind: 'noticed', by: failure };
  } finally {
    scratch.clear();
    fs.writeFileSync(file, text);
  }
}

/** Of each test file, a hash of what its outcome without a mutant depends on: the sources, what tests share, and itself. */
export function hashesOf(scratch: Scratch, tests: readonly string[]): ReadonlyMap<string, string> {
  const names = fs.globSync(['src/**/*', 'test/**/*', 'package-lock.json'], { cwd: scratch.path }).toSorted();
  const shared = createHash('sha256');
  for (const name of names) {
    const isFile = !name.endsWith('.test.ts') && fs.statSync(scratch.file(name)).isFile();
    if (isFile) shared.update(`${name}\0`).update(fs.readFileSync(scratch.file(name)));
  }
  return new Map(
    tests.map((name) => [
      name,
      shared
        .copy()
        .update(fs.readFileSync(scratch.file(name)))
        .digest('hex'),
    ]),
  );
}

/** @returns why it failed */
async function build(scratch: Scratch, signal: AbortSignal): Promise<string | undefined> {
  fs.rmSync(scratch.file('dist'), { recursive: true, force: true });
  const { status, output } = await scratch.runNode(['scripts/build.ts'], {}, signal);
  return status === 0 ? undefined : output;
}

async function runTests(
  scratch: Scratch,
  plan: TestPlan,
  signal: AbortSignal,
): Promise<{ failure: string | undefined; report: VitestReport | undefined }> {
  const reportPath = scratch.file('report.json');
  fs.rmSync(reportPath, { force: true });
  const options = ['--config', 'bench/mutants/vitest.config.ts', '--bail', '1', `--outputFile=${reportPath}`];
  const { status, output } = await scratch.runNode(
    ['node_modules/vitest/vitest.mjs', 'run', ...options, ...plan.map((file) => file.path)],
    { [planVariable]: JSON.stringify(plan) },
    signal,
  );
  const report = fs.existsSync(reportPath)
    ? (JSON.parse(fs.readFileSync(reportPath, 'utf8')) as VitestReport)
    : undefined;
  if (status === 0) return { failure: undefined, report };
  const late = status === lateStatus ? /^(\S+): late$/m.exec(output)?.[1] : undefined;
  const failure = late === undefined ? failureOf(report) : `${path.relative(scratch.path, late)} took too long`;
  return { failure: failure?.replaceAll(`${scratch.path}/`, '') ?? `vitest ended with ${String(status)}`, report };
}

function failureOf(report: VitestReport | undefined): string | undefined {
  const file = report?.testResults.find(({ status }) => status === 'failed');
  if (file === undefined) return undefined;
  const test = file.assertionResults.find(({ status }) => status === 'failed');
  return `${file.name}: ${test?.fullName ?? file.message.split('\n')[0] ?? ''}`;
}
