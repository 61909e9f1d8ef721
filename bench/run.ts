/**
 * npm run bench [-- NAMES...] [--rounds N] [--seconds S] [--size-mib M] [--transport T]... [--profile]
 *
 * Names: reads, writes, fill, create, sources, encrypted, verify, open, boot; without any, all of them. Data is made once, in .cache/bench. Results go to the terminal
 * and into bench/RESULTS.md. Mounts and processes are gone when it ends, also after Ctrl-C and failures.
 */
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { benchBoot } from './boot.ts';
import { transportsOffered } from './contenders.ts';
import type { BenchContext, Benchmark } from './context.ts';
import { benchCreate } from './create.ts';
import { benchCreateSources } from './create-sources.ts';
import { benchEncrypted } from './encrypted.ts';
import { unmountAll } from './mounts.ts';
import { benchFill } from './fill.ts';
import { benchOpen } from './open.ts';
import { benchReads } from './reads.ts';
import { circumstances, writeSection } from './results.ts';
import { benchVerify } from './verify.ts';
import { benchWrites } from './writes.ts';

const benchmarks: Readonly<Record<string, Benchmark>> = {
  reads: benchReads,
  writes: benchWrites,
  fill: benchFill,
  create: benchCreate,
  sources: benchCreateSources,
  encrypted: benchEncrypted,
  verify: benchVerify,
  open: benchOpen,
  boot: benchBoot,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '7' },
    seconds: { type: 'string', default: '1' },
    'size-mib': { type: 'string', default: '1024' },
    transport: { type: 'string', multiple: true },
    profile: { type: 'boolean', default: false },
  },
});
const chosen = positionals.length > 0 ? positionals : Object.keys(benchmarks);
const unknown = chosen.find((name) => !(name in benchmarks));
if (unknown !== undefined) {
  console.error(`bench: ${unknown} is none of ${Object.keys(benchmarks).join(', ')}`);
  process.exit(2);
}

const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    interrupted.abort(new Error(`ended by ${signal}`));
  });
}

const context: BenchContext = {
  folder: fileURLToPath(new URL('../.cache/bench', import.meta.url)),
  sizeMib: positive(values['size-mib'], '--size-mib'),
  rounds: positive(values.rounds, '--rounds'),
  seconds: positive(values.seconds, '--seconds'),
  transports: values.transport ?? transportsOffered(),
  profile: values.profile,
  signal: interrupted.signal,
  say: (text) => process.stderr.write(`bench: ${text}\n`),
};

const command = ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' ');
fs.mkdirSync(context.folder, { recursive: true });
// What a killed run has left.
await unmountAll(context.folder);
try {
  for (const name of chosen) {
    const found = (await benchmarks[name]?.(context)) ?? '';
    const text = `${await circumstances(command)}\n\n${found}`;
    writeSection(name, text);
    console.log(`## ${name}\n\n${text}\n`);
  }
} catch (error) {
  if (!interrupted.signal.aborted) throw error;
  console.error(`bench: ${(interrupted.signal.reason as Error).message}`);
  process.exitCode = 130;
} finally {
  await unmountAll(context.folder);
}

function positive(text: string, what: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  console.error(`bench: ${what}: "${text}" is not a positive number`);
  process.exit(2);
}
