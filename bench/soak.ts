/**
 * `npm run soak [-- FILTER...]`: the tests in their full counts (kills, mutants, model steps), and their result in bench/SOAK.md.
 *
 * With filters (parts of test file names) only those files run, and only their rows are written anew.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly startTime: number;
    readonly endTime: number;
    readonly assertionResults: readonly { readonly status: 'passed' | 'failed' | 'pending' | 'skipped' | 'todo' }[];
  }[];
}

const root = path.join(import.meta.dirname, '..');
const resultFile = path.join(import.meta.dirname, 'SOAK.md');
const seed = process.env['VENEER_SEED'] ?? randomBytes(8).toString('hex');
const filters = process.argv.slice(2);
const rowPattern = /^\| (\S+) \|/;

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'veneer-soak-'));
try {
  const report = path.join(folder, 'report.json');
  const { status } = spawnSync(
    'vitest',
    ['run', '--reporter=default', '--reporter=json', `--outputFile=${report}`, ...filters],
    {
      cwd: root,
      stdio: 'inherit',
      env: { ...process.env, VENEER_SOAK: 'full', VENEER_SEED: seed },
    },
  );
  if (fs.existsSync(report)) writeResult(JSON.parse(fs.readFileSync(report, 'utf8')) as VitestReport);
  process.exitCode = status ?? 1;
} finally {
  fs.rmSync(folder, { recursive: true, force: true });
}

function writeResult(report: VitestReport): void {
  const rows = new Map(filters.length === 0 ? [] : oldRows());
  const date = new Date().toISOString().slice(0, 10);
  for (const file of report.testResults) {
    const name = path.relative(root, file.name);
    const count = (...statuses: readonly string[]): number =>
      file.assertionResults.filter((result) => statuses.includes(result.status)).length;
    const cells = [name, count('passed'), count('failed'), count('skipped', 'pending', 'todo')];
    rows.set(name, `| ${[...cells, Math.round((file.endTime - file.startTime) / 1000), seed, date].join(' | ')} |`);
  }
  const head = [
    '# Soak',
    '',
    'The tests in their full counts, as `npm run soak` ran them last; a row is repeated with `VENEER_SEED=SEED npm run soak -- FILE`.',
    '',
    '| file | passed | failed | skipped | seconds | seed | date |',
    '|---|---|---|---|---|---|---|',
  ];
  fs.writeFileSync(resultFile, `${[...head, ...[...rows].sort().map(([, row]) => row)].join('\n')}\n`);
}

function oldRows(): [string, string][] {
  if (!fs.existsSync(resultFile)) return [];
  return fs
    .readFileSync(resultFile, 'utf8')
    .split('\n')
    .flatMap((row) => {
      const name = rowPattern.exec(row)?.[1];
      return name === undefined || !name.includes('/') ? [] : [[name, row] as [string, string]];
    });
}
