/**
 * bench/MUTANTS.md: a row for each room, and the survivors with a judgement that somebody wrote by hand. A run writes its room's part anew; a
 * survivor stays until its mutant is noticed or its line is gone, and keeps its judgement.
 */
import fs from 'node:fs';
import type { Mutation } from './mutations.ts';

/** One run's mutants of one room or file. */
interface Row {
  readonly target: string;
  /** How many of its test files ran. */
  readonly tests: string;
  readonly sampled: number;
  readonly noticed: number;
  readonly seed: string;
  readonly date: string;
}

interface Survivor {
  readonly target: string;
  readonly id: string;
  readonly place: string;
  readonly change: string;
  /** Of the run that found it. */
  readonly seed: string;
  readonly judgement: string;
}

/** What a run found. */
export interface Finding {
  readonly target: string;
  readonly tests: string;
  readonly seed: string;
  /** False for a run of single mutants, which only changes what was found before. */
  readonly isSample: boolean;
  readonly noticed: readonly Mutation[];
  readonly survived: readonly Mutation[];
  /** Ids of all mutants that the target has now. */
  readonly ids: ReadonlySet<string>;
}

export const notJudged = 'not judged yet';

const head = `# Mutants

What \`npm run mutants -- ROOM\` found: how many small changes of a room's source its tests notice. A row is repeated with
\`npm run mutants -- ROOM --sample N --seed S\`, one mutant with \`--only ID\`. Survivors stay in the list until a test notices them, and
count as noticed from then on; what they are worth is written by hand.

| room | test files | sampled | noticed | survivors | score | seed | date |
|---|---|---|---|---|---|---|---|`;

const survivorHead = `| id | place | change | seed | judgement |
|---|---|---|---|---|`;

/** Writes what a run found into the file, which need not be there. */
export function writeFinding(file: string, finding: Finding): void {
  const old = fs.existsSync(file) ? parse(fs.readFileSync(file, 'utf8')) : { rows: [], survivors: [] };
  fs.writeFileSync(file, encode(merge(old, finding)));
}

interface Results {
  readonly rows: readonly Row[];
  readonly survivors: readonly Survivor[];
}

function merge(old: Results, finding: Finding): Results {
  const { target, tests, seed, isSample, noticed, survived, ids } = finding;
  const tried = new Set([...noticed, ...survived].map(({ id }) => id));
  const judged = new Map(old.survivors.map((survivor) => [survivor.id, survivor]));
  const kept = old.survivors.filter((each) => each.target !== target || (ids.has(each.id) && !tried.has(each.id)));
  const found = survived.map((mutation) => survivorOf(mutation, target, seed, isSample, judged.get(mutation.id)));
  const survivors = [...kept, ...found];
  const others = old.rows.filter((row) => row.target !== target);
  const row = isSample
    ? { target, tests, sampled: tried.size, noticed: noticed.length, seed, date: new Date().toISOString().slice(0, 10) }
    : old.rows.find((each) => each.target === target);
  if (row === undefined) return { rows: others, survivors };
  const left = survivors.filter((each) => each.target === target && each.seed === row.seed).length;
  return { rows: [...others, { ...row, noticed: row.sampled - left }], survivors };
}

function survivorOf(
  { id, file, line, before, after }: Mutation,
  target: string,
  seed: string,
  isSample: boolean,
  old: Survivor | undefined,
): Survivor {
  return {
    target,
    id,
    place: `${file.slice('src/'.length)}:${line}`,
    change: `\`${shortened(before)}\` → \`${shortened(after)}\``,
    seed: isSample ? seed : (old?.seed ?? ''),
    judgement: old?.judgement ?? notJudged,
  };
}

const longestChange = 90;

function shortened(text: string): string {
  const line = text.replaceAll(/\s+/g, ' ').replaceAll('|', '¦');
  return line.length <= longestChange ? line : `${line.slice(0, longestChange - 1)}…`;
}

function encode({ rows, survivors }: Results): string {
  const targets = [...new Set([...rows, ...survivors].map(({ target }) => target))].toSorted();
  const table = rows
    .toSorted((a, b) => (a.target < b.target ? -1 : 1))
    .map(({ target, tests, sampled, noticed, seed, date }) => {
      const score = sampled === 0 ? '' : `${Math.round((noticed / sampled) * 100)} %`;
      return `| ${[target, tests, sampled, noticed, sampled - noticed, score, seed, date].join(' | ')} |`;
    });
  const lists = targets.flatMap((target) => {
    const own = survivors.filter((each) => each.target === target).toSorted((a, b) => (a.place < b.place ? -1 : 1));
    const lines = own.map((each) => `| ${[each.id, each.place, each.change, each.seed, each.judgement].join(' | ')} |`);
    return own.length === 0 ? [] : [`\n## ${target}\n\n${survivorHead}\n${lines.join('\n')}`];
  });
  return `${[head, ...table, ...lists].join('\n')}\n`;
}

function parse(text: string): Results {
  const rows: Row[] = [];
  const survivors: Survivor[] = [];
  let target = '';
  for (const line of text.split('\n')) {
    target = /^## (.+)$/.exec(line)?.[1] ?? target;
    const cells = line.split('|').map((cell) => cell.trim());
    const [, first = '', second = '', third = '', fourth = '', fifth = '', , seventh = '', eighth = ''] = cells;
    if (/^\d+ of \d+$/.test(second)) {
      const [sampled, noticed] = [Number(third), Number(fourth)];
      rows.push({ target: first, tests: second, sampled, noticed, seed: seventh, date: eighth });
    } else if (/^[0-9a-f]{8}$/.test(first)) {
      survivors.push({ target, id: first, place: second, change: third, seed: fourth, judgement: fifth });
    }
  }
  return { rows, survivors };
}
