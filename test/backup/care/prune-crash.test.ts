/** Pruning, killed at its system calls that change something: what is there is whole, and the same command ends it. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { applyPrune, planPrune } from '../../../src/backup/care/prune.ts';
import { Seeded } from '../../seeded.ts';
import { dailyChain, expectAllHold, namesIn, type DailyChain } from './daily-chain.ts';
import { runInjected, strikes, systemCalls, whyNoStrace } from '../strace.ts';

const script = path.join(import.meta.dirname, 'prune-script.ts');
const noStrace = whyNoStrace();
const timeoutMs = 900_000;
/** Two consolidations, into the sixth day's image and into the eighth's. */
const rules = { last: 1, weekly: 2 };
const days = 9;
const afterwards = ['06.spi', '08.spi'];

let made: DailyChain;
let folder: string;
let originals: Map<string, Buffer>;
let watched: string[];

beforeAll(async () => {
  made = await dailyChain(new Seeded('prune crash'), days);
  folder = made.folder.file('images');
  const names = namesIn(made);
  originals = new Map(names.map((name) => [name, fs.readFileSync(path.join(folder, name))]));
  watched = [
    folder,
    ...[...names, ...afterwards.map((name) => `${name}.veneer-part`)].map((name) => path.join(folder, name)),
  ];
});
afterAll(() => made[Symbol.dispose]());

function startAfresh(): void {
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder);
  for (const [name, bytes] of originals) fs.writeFileSync(path.join(folder, name), bytes);
}

const args = (): string[] => [folder, JSON.stringify(rules)];

it.for(['pwrite64', 'fdatasync', 'rename', 'unlink', 'fsync'] as const)(
  'killed at any %s, all that is there holds, and a rerun ends it',
  { timeout: timeoutMs },
  async (syscall, ctx) => {
    if (noStrace !== undefined) ctx.skip(noStrace);
    startAfresh();
    const count = systemCalls([syscall], watched, script, args()).length;
    expect(namesIn(made)).toEqual(afterwards);
    expect(count).toBeGreaterThan(1);
    for (const when of strikes(count)) {
      startAfresh();
      const run = runInjected({ syscall, what: 'signal=SIGKILL', when }, watched, script, args());
      const where = `killed at ${syscall} ${when} of ${count}: ${run.stderr}`;
      expect(run.signal, where).toBe('SIGKILL');
      expectAllHold(made);
      await applyPrune(folder, planPrune(folder, rules), rules);
      expect(namesIn(made), where).toEqual(afterwards);
      expectAllHold(made);
    }
  },
);
