/** Where our own servers spend their time: a processor profile of each workload, summed by function. */
import fs from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { contenders } from './contenders.ts';
import type { BenchContext } from './context.ts';
import { fio, type Workload } from './fio.ts';
import { dropPages } from './page-cache.ts';
import { markdownTable } from './table.ts';

const functionsShown = 5;

/** What V8 writes for --cpu-prof, as far as it is used. */
const cpuProfile = z.object({
  nodes: z.array(
    z.object({
      id: z.number(),
      callFrame: z.object({ functionName: z.string(), url: z.string(), lineNumber: z.number() }),
    }),
  ),
  samples: z.array(z.number()),
  timeDeltas: z.array(z.number()),
});

/** For the best transport, a table of each direct workload: the functions with the most time of their own. */
export async function profileReads(context: BenchContext, workloads: readonly Workload[]): Promise<string> {
  const parts = [
    '### Where the time goes',
    'Share of the time of all threads, by function; "read" is also where a worker waits for a request.',
  ];
  const names = ['zstd', 'none'].map((codec) => `veneer ${context.transports[0] ?? ''} ${codec}`);
  const ours = (await contenders(context)).filter(({ name }) => names.includes(name));
  for (const contender of ours) {
    const columns: Array<readonly [string, readonly string[]]> = [];
    for (const workload of workloads.filter(({ direct }) => direct)) {
      context.say(`profiling ${contender.name}: ${workload.name}`);
      const folder = path.join(context.folder, 'profiles');
      fs.rmSync(folder, { recursive: true, force: true });
      {
        await using served = await contender.start(['--cpu-prof', `--cpu-prof-dir=${folder}`]);
        await dropPages(served.target.file);
        await fio(served.target, workload, Math.max(3, context.seconds), 1, context.signal);
      }
      columns.push([workload.name, busiest(folder)]);
    }
    const rows = Array.from({ length: functionsShown }, (_, row) => columns.map(([, lines]) => lines[row] ?? ''));
    parts.push(
      contender.name,
      markdownTable(
        columns.map(([name]) => name),
        rows,
      ),
    );
  }
  return parts.join('\n\n');
}

/** All profiles of a folder (one for each thread) together. */
function busiest(folder: string): string[] {
  const times = new Map<string, number>();
  let total = 0;
  for (const name of fs.readdirSync(folder)) {
    const { nodes, samples, timeDeltas } = cpuProfile.parse(
      JSON.parse(fs.readFileSync(path.join(folder, name), 'utf8')),
    );
    const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
    for (const [index, id] of samples.entries()) {
      const what = names.get(id) ?? '?';
      const time = timeDeltas[index] ?? 0;
      if (what === '(idle)' || what === '(root)') continue;
      times.set(what, (times.get(what) ?? 0) + time);
      total += time;
    }
  }
  return [...times]
    .sort((a, b) => b[1] - a[1])
    .slice(0, functionsShown)
    .map(([what, time]) => `${what} ${Math.round((100 * time) / total)} %`);
}

function nameOf({ functionName, url }: { functionName: string; url: string }): string {
  const name = functionName === '' ? 'anonymous' : functionName;
  return url === '' ? name : `${name} (${path.basename(url, '.js')})`;
}
