/**
 * Reads through the mount, against peers that serve the same bytes. All servers run at once; in each round every workload visits them
 * in turn, each for a short time, and ratios are taken round by round.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { contenders, type Contender, type Served } from './contenders.ts';
import type { BenchContext } from './context.ts';
import { fio, type FioResult, type FioTarget, type Workload } from './fio.ts';
import { dropPages, warmPages } from './page-cache.ts';
import { patiently } from './patience.ts';
import { cpuSecondsOf, memoryOf } from './processes.ts';
import { profileReads } from './profile.ts';
import { markdownTable, medianOf, ratioOf, ratioText, significant } from './table.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

/** At most 8 callers: libfuse 2 gets slow for ever after more. */
export const workloads: readonly Workload[] = [
  { name: '64 KiB random x4', pattern: 'randread', blockBytes: 64 * KiB, jobs: 4, direct: true },
  { name: '4 KiB random x4', pattern: 'randread', blockBytes: 4 * KiB, jobs: 4, direct: true },
  { name: '4 KiB random, one at a time', pattern: 'randread', blockBytes: 4 * KiB, jobs: 1, direct: true },
  { name: '1 MiB in sequence, direct', pattern: 'read', blockBytes: MiB, jobs: 1, direct: true },
  { name: '1 MiB in sequence, buffered', pattern: 'read', blockBytes: MiB, jobs: 1, direct: false },
];

interface Running {
  readonly contender: Contender;
  readonly served: Served;
  /** By workload, one for each round. */
  readonly results: Map<string, Sample[]>;
  peakBytes: number;
}

interface Sample extends FioResult {
  /** Processor time of the server for one read, in microseconds. */
  readonly cpuUs: number;
}

export async function benchReads(context: BenchContext): Promise<string> {
  await using servers = new AsyncDisposableStack();
  const running: Running[] = [];
  for (const contender of await contenders(context)) {
    context.say(`starting ${contender.name}`);
    running.push({ contender, served: servers.use(await contender.start()), results: new Map(), peakBytes: 0 });
  }
  let found: string;
  try {
    const sha256 = await verifySame(context, running);
    await measureAll(context, running);
    found = report(running, sha256);
  } catch (error) {
    for (const { contender, served } of running) context.say(`${contender.name} wrote: ${served.output()}`);
    throw error;
  }
  await servers.disposeAsync();
  return context.profile ? `${found}\n\n${await profileReads(context, workloads)}` : found;
}

async function measureAll(context: BenchContext, running: readonly Running[]): Promise<void> {
  // The first round fills caches and wakes compilers; it does not count.
  for (let round = 0; round <= context.rounds; round++) {
    for (const { served } of running) warmPages(served.backing);
    for (const workload of workloads) {
      context.say(`reads: round ${round} of ${context.rounds}: ${workload.name}`);
      for (const one of rotated(running, round)) await measureOne(context, one, workload, round);
    }
  }
}

async function measureOne(context: BenchContext, one: Running, workload: Workload, round: number): Promise<void> {
  const { target, pid } = one.served;
  const drop = (): Promise<void> => patiently(dropPages(target.file), one.contender.name, context.signal);
  await drop();
  const before = cpuSecondsOf(pid) ?? Number.NaN;
  const result = await fio(target, workload, context.seconds, round + 1, context.signal);
  const cpuUs = (((cpuSecondsOf(pid) ?? Number.NaN) - before) * 1e6) / result.reads;
  await drop();
  one.peakBytes = memoryOf(pid)?.peakBytes ?? one.peakBytes;
  const samples = one.results.get(workload.name) ?? [];
  one.results.set(workload.name, samples);
  if (round > 0) samples.push({ ...result, cpuUs });
}

/** Not always in the same order: whoever follows a heavy one is not always the same. */
function rotated<T>(items: readonly T[], by: number): T[] {
  const start = by % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}

/** @throws when one serves other bytes than another */
async function verifySame({ say, signal }: BenchContext, running: readonly Running[]): Promise<string> {
  let expected: string | undefined;
  for (const { contender, served } of running) {
    say(`checking what ${contender.name} serves`);
    const sha256 = await patiently(sha256Of(served.target), contender.name, signal);
    expected ??= sha256;
    if (sha256 !== expected) throw new Error(`${contender.name} serves other bytes: ${sha256}, not ${expected}`);
  }
  return expected ?? '';
}

async function sha256Of({ file, offsetBytes, sizeBytes }: FioTarget): Promise<string> {
  const hash = createHash('sha256');
  const stream = fs.createReadStream(file, {
    start: offsetBytes,
    end: offsetBytes + sizeBytes - 1,
    highWaterMark: MiB,
  });
  for await (const chunk of stream) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

function report(running: readonly Running[], sha256: string): string {
  const parts = [`Every server gave the same bytes before it was measured (SHA-256 ${sha256.slice(0, 16)}...).`];
  for (const stores of ['compressed', 'uncompressed'] as const) {
    const group = running.filter((one) => one.contender.stores === stores);
    parts.push(
      `### ${stores === 'compressed' ? 'Compressed images' : 'Uncompressed images'}`,
      'Ratios: how many times as fast as the peer; median of the rounds (quartiles).',
      ratioTable(group),
      'Medians: reads a second for random reads, MB/s for sequential ones; in parentheses the processor time that the server took for each read.',
      resultTable(group),
      memoryTable(group),
    );
  }
  return parts.join('\n\n');
}

function speedOf(workload: Workload): (sample: Sample) => number {
  return workload.pattern === 'read' ? ({ bytesPerSecond }) => bytesPerSecond / 1e6 : (sample) => sample.readsPerSecond;
}

function samplesOf(one: Running, workload: Workload): readonly Sample[] {
  return one.results.get(workload.name) ?? [];
}

function ratioTable(group: readonly Running[]): string {
  const peers = group.filter((one) => !one.contender.isOurs);
  const pairs = group
    .filter((one) => one.contender.isOurs)
    .flatMap((ours) => peers.map((peer) => [ours, peer] as const));
  const rows = pairs.map(([ours, peer]) => [
    `${ours.contender.name} : ${peer.contender.name}`,
    ...workloads.map((workload) => {
      const speed = speedOf(workload);
      return ratioText(ratioOf(samplesOf(ours, workload).map(speed), samplesOf(peer, workload).map(speed)));
    }),
  ]);
  return markdownTable(['', ...workloads.map(({ name }) => name)], rows);
}

function resultTable(group: readonly Running[]): string {
  const rows = group.map((one) => [
    one.contender.name,
    ...workloads.map((workload) => {
      const samples = samplesOf(one, workload);
      const speed = medianOf(samples.map(speedOf(workload)));
      return `${Math.round(speed)} (${significant(medianOf(samples.map(({ cpuUs }) => cpuUs)))} us)`;
    }),
  ]);
  return markdownTable(['', ...workloads.map(({ name }) => name)], rows);
}

function memoryTable(group: readonly Running[]): string {
  const mib = (bytes: number | undefined): string => (bytes === undefined ? '?' : String(Math.round(bytes / MiB)));
  return markdownTable(
    ['', 'peak memory, MiB', 'at the end, MiB', 'what it serves'],
    group.map((one) => [
      one.contender.name,
      mib(one.peakBytes),
      mib(memoryOf(one.served.pid)?.residentBytes),
      one.contender.settings,
    ]),
  );
}
