/** Runs fio on one file, read-only, and reads its JSON. */
import { z } from 'zod';
import { patiently } from './patience.ts';
import { run } from './processes.ts';

export interface Workload {
  readonly name: string;
  readonly pattern: 'read' | 'randread';
  readonly blockBytes: number;
  /** Threads, each with one read under way. */
  readonly jobs: number;
  /**
   * Direct: every read reaches the server; it goes on for the time given. Buffered: through the kernel's page cache with its
   * read-ahead; the cache is dropped first and everything is read once.
   */
  readonly direct: boolean;
}

export interface FioResult {
  readonly readsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly reads: number;
  readonly medianUs: number;
}

const output = z.object({
  jobs: z.tuple([
    z.object({
      error: z.literal(0),
      read: z.object({
        iops: z.number(),
        bw_bytes: z.number(),
        total_ios: z.number(),
        clat_ns: z.object({ percentile: z.object({ '50.000000': z.number() }) }),
      }),
    }),
  ]),
});

export interface FioTarget {
  readonly file: string;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
}

/**
 * Runs one workload. Jobs wait for each read (psync): no libfuse 2 server sees more callers than jobs.
 * @param seed the same seed reads the same places
 */
export async function fio(
  target: FioTarget,
  workload: Workload,
  seconds: number,
  seed: number,
  signal: AbortSignal,
): Promise<FioResult> {
  const args = [
    '--name=bench',
    `--filename=${target.file.replaceAll(':', '\\:')}`,
    '--readonly',
    `--offset=${target.offsetBytes}`,
    `--size=${target.sizeBytes}`,
    `--rw=${workload.pattern}`,
    `--bs=${workload.blockBytes}`,
    `--numjobs=${workload.jobs}`,
    `--direct=${workload.direct ? 1 : 0}`,
    ...(workload.direct ? ['--time_based', `--runtime=${Math.round(seconds * 1000)}ms`] : []),
    '--ioengine=psync',
    '--thread',
    '--group_reporting',
    '--norandommap',
    `--randseed=${seed}`,
    '--output-format=json',
  ];
  const text = await patiently(run('fio', args, signal), `fio, ${workload.name}`, signal);
  // Notes may stand in front.
  const [{ read }] = output.parse(JSON.parse(text.slice(text.indexOf('{')))).jobs;
  return {
    readsPerSecond: read.iops,
    bytesPerSecond: read.bw_bytes,
    reads: read.total_ios,
    medianUs: read.clat_ns.percentile['50.000000'] / 1000,
  };
}
