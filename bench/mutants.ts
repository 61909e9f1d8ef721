/**
 * `npm run mutants -- ROOM [--sample N] [--seed S] [--minutes M] [--related N] [--within S] [--tests PART] [--only ID]... [--list]`: changes one operator, constant
 * or call of a room at a time and runs the room's tests, which are to notice it. ROOM lies below `src/`; one of its files will do.
 *
 * `--minutes`: no mutant begins after them. `--related`: how many tests of other rooms run too. `--within`: only
 * the quickest test files, which together take so many seconds. `--tests`: only test files whose names have this
 * in them; it counts only what they notice. `--list` prints the mutants in the seed's order and runs nothing. It works in a copy of the checkout; results go into bench/MUTANTS.md.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { writeFinding, type Finding } from './mutants/result-file.ts';
import type { Mutation } from './mutants/mutations.ts';
import { testsOf } from './mutants/room-tests.ts';
import { allMutations, shuffled, sourceFiles } from './mutants/sample.ts';
import { Scratch } from './mutants/scratch.ts';
import { firstRun, hashesOf, tryMutant, type Timings } from './mutants/trial.ts';

const root = path.join(import.meta.dirname, '..');
const resultFile = path.join(import.meta.dirname, 'MUTANTS.md');
const timingsFile = path.join(root, '.cache/mutants-timings.json');

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    sample: { type: 'string', default: '20' },
    seed: { type: 'string', default: randomBytes(4).toString('hex') },
    minutes: { type: 'string', default: '0' },
    related: { type: 'string', default: '4' },
    within: { type: 'string', default: '0' },
    tests: { type: 'string', default: '' },
    only: { type: 'string', multiple: true },
    list: { type: 'boolean', default: false },
  },
});
const [target] = positionals;
if (target === undefined || positionals.length > 1) refuse('name one room, or one file of a room: replacement');
const { seed, only } = values;
const sampleCount = wholeNumber('sample');
const minutes = wholeNumber('minutes');
const within = wholeNumber('within');

const files = sourceFiles(root, target);
const mutations = allMutations(root, files);
const chosen = only === undefined ? shuffled(mutations, seed).slice(0, sampleCount) : mutations.filter(isNamed);
if (values.list) for (const mutation of shuffled(mutations, seed)) say(shown(mutation));
else await runAll(target).catch(tellAndFail);

async function runAll(room: string): Promise<void> {
  const interrupted = abortedBySignals();
  using scratch = new Scratch(root);
  const all = testsOf(root, room, files, wholeNumber('related')).filter((name) => name.includes(values.tests));
  const timings = await timedFirstRun(scratch, quickest(all, earlierSeconds()), interrupted);
  const tests = quickest(Object.keys(timings), timings);
  say(`seed ${seed}: ${chosen.length} of ${mutations.length} mutants, ${tests.length} of ${all.length} test files`);
  const noticed: Mutation[] = [];
  const survived: Mutation[] = [];
  const endMs = minutes === 0 ? Infinity : performance.now() + minutes * 60_000;
  for (const [index, mutation] of chosen.entries()) {
    if (performance.now() > endMs) break;
    const startMs = performance.now();
    const outcome = await tryMutant(scratch, mutation, tests, timings, interrupted);
    const seconds = Math.round((performance.now() - startMs) / 1000);
    const told = outcome.kind === 'noticed' ? `noticed by ${outcome.by}` : outcome.kind;
    say(`${index + 1}/${chosen.length} ${shown(mutation)}\n    ${told} (${seconds} s)`);
    if (outcome.kind !== 'no program') (outcome.kind === 'noticed' ? noticed : survived).push(mutation);
    // At once: a long run that is ended early has its result.
    writeFinding(resultFile, findingOf(room, `${tests.length} of ${all.length}`, noticed, survived));
  }
  say(`seed ${seed}: ${noticed.length} of ${noticed.length + survived.length} noticed`);
}

/** With some of the tests only, what survives says nothing. */
function findingOf(room: string, tests: string, noticed: readonly Mutation[], survived: readonly Mutation[]): Finding {
  const ids = new Set(mutations.map(({ id }) => id));
  const isWhole = values.tests === '';
  const isSample = isWhole && only === undefined;
  return { target: room, tests, seed, isSample, noticed, survived: isWhole ? survived : [], ids };
}

/** As many of the test files, the quick ones first, as fit into the time for one mutant. */
function quickest(tests: readonly string[], seconds: Timings): string[] {
  let left = within === 0 ? Infinity : within;
  return tests
    .toSorted((a, b) => (seconds[a] ?? 0) - (seconds[b] ?? 0))
    .filter((name) => (left -= seconds[name] ?? 0) >= 0);
}

/** Test files that passed with the very same sources are not run again: how long they took is remembered. */
async function timedFirstRun(scratch: Scratch, tests: readonly string[], signal: AbortSignal): Promise<Timings> {
  const hashes = hashesOf(scratch, tests);
  const found = remembered();
  const known = tests.filter((name) => found[name]?.hash === hashes.get(name));
  const earlier = Object.fromEntries(known.map((name) => [name, found[name]?.seconds ?? 0]));
  const timings = await firstRun(scratch, tests, earlier, signal);
  scratch.clear();
  for (const [name, seconds] of Object.entries(timings)) found[name] = { hash: hashes.get(name) ?? '', seconds };
  fs.mkdirSync(path.dirname(timingsFile), { recursive: true });
  fs.writeFileSync(timingsFile, JSON.stringify(found));
  return timings;
}

type Remembered = Record<string, { readonly hash: string; readonly seconds: number }>;

function remembered(): Remembered {
  return fs.existsSync(timingsFile) ? (JSON.parse(fs.readFileSync(timingsFile, 'utf8')) as Remembered) : {};
}

/** Whatever has changed since. */
function earlierSeconds(): Timings {
  return Object.fromEntries(Object.entries(remembered()).map(([name, { seconds }]) => [name, seconds]));
}

function abortedBySignals(): AbortSignal {
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => interrupted.abort(new Error(`ended by ${signal}`)));
  return interrupted.signal;
}

/** Everything has been cleared away by then. */
function tellAndFail(error: unknown): void {
  const reason = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  process.stderr.write(`mutants: ${reason instanceof Error ? reason.message : String(reason)}\n`);
  process.exitCode = 1;
}

function isNamed({ id }: Mutation): boolean {
  return only?.includes(id) === true;
}

function shown({ id, file, line, before, after }: Mutation): string {
  const flat = (text: string): string => text.replaceAll(/\s+/g, ' ');
  return `${id} ${file}:${line}: ${flat(before)} → ${flat(after)}`;
}

function wholeNumber(name: 'sample' | 'minutes' | 'related' | 'within'): number {
  if (!/^\d+$/.test(values[name])) refuse(`--${name} is no whole number: ${values[name]}`);
  return Number(values[name]);
}

function refuse(why: string): never {
  process.stderr.write(`mutants: ${why}\n`);
  process.exit(2);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
