/** Programs that do the same job, measured side by side: in each round each of them once, and what they wrote is removed. */
import fs from 'node:fs';
import type { BenchContext } from './context.ts';
import { measure, type Measured } from './processes.ts';
import { markdownTable, medianOf, ratioOf, ratioText, significant } from './table.ts';

const MiB = 1024 * 1024;

export interface Program {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** What it writes, to be measured and removed. */
  readonly output?: string;
  /** The name of the program that it is compared with. */
  readonly peer?: string;
}

/** @param workBytes what the job handles, for rates */
export async function comparePrograms(
  context: BenchContext,
  programs: readonly Program[],
  workBytes: number,
): Promise<string> {
  const runs = new Map<Program, Array<Measured & { outputBytes: number }>>(programs.map((program) => [program, []]));
  for (let round = 1; round <= context.rounds; round++) {
    for (const [program, samples] of runs) {
      context.say(`round ${round} of ${context.rounds}: ${program.name}`);
      try {
        const measured = await measure(program.command, program.args, context.signal);
        samples.push({ ...measured, outputBytes: program.output === undefined ? 0 : fs.statSync(program.output).size });
      } finally {
        if (program.output !== undefined) fs.rmSync(program.output, { force: true });
      }
    }
  }
  const secondsOf = (wanted: string | undefined): number[] =>
    [...runs].find(([program]) => program.name === wanted)?.[1].map(({ seconds }) => seconds) ?? [];
  const rows = [...runs].map(([program, samples]) => {
    const seconds = medianOf(samples.map((sample) => sample.seconds));
    const outputBytes = medianOf(samples.map((sample) => sample.outputBytes));
    const isCompared = program.peer !== undefined && secondsOf(program.peer).length > 0;
    return [
      program.name,
      significant(seconds),
      significant(workBytes / 1e6 / seconds),
      significant(medianOf(samples.map(({ cpuSeconds }) => cpuSeconds))),
      String(Math.round(Math.max(...samples.map(({ peakBytes }) => peakBytes)) / MiB)),
      ...(programs.some(({ output }) => output !== undefined) ? [String(Math.round(outputBytes / MiB))] : []),
      isCompared ? `${ratioText(ratioOf(secondsOf(program.peer), secondsOf(program.name)))}, ${program.peer}` : '',
    ];
  });
  const header = ['', 'seconds', 'MB/s', 'processor, s', 'peak memory, MiB'];
  if (programs.some(({ output }) => output !== undefined)) header.push('output, MiB');
  return markdownTable([...header, 'times as fast as'], rows);
}
