/** Runs the tool as a user does: the built one, in a process of its own. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { expect } from 'vitest';
import { patience } from '../patience.ts';

export const veneerPath = path.join(import.meta.dirname, '../../bin/veneer.mjs');
const endsWithinMs = 60_000;

export interface Ran {
  /** Undefined when a signal ended it. */
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs any program to its end. Never throws for what the program does. */
export async function run(program: string, args: readonly string[], cwd?: string): Promise<Ran> {
  return await new Promise((resolve) => {
    const options = {
      encoding: 'utf8',
      timeout: patience(endsWithinMs),
      killSignal: 'SIGKILL',
      maxBuffer: 2 ** 26,
      cwd,
    } as const;
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) resolve({ status: 0, stdout, stderr });
      else if (typeof error.code === 'number') resolve({ status: error.code, stdout, stderr });
      else resolve({ status: undefined, stdout, stderr: `${stderr}${error.message}` });
    });
  });
}

export async function veneer(...args: string[]): Promise<Ran> {
  return await run(process.execPath, [veneerPath, ...args]);
}

/** Runs a program that must succeed; returns what it printed. */
export async function runOk(program: string, args: readonly string[], cwd?: string): Promise<string> {
  const ran = await run(program, args, cwd);
  expect(ran.status, `${program} ${args.join(' ')}\n${ran.stdout}${ran.stderr}`).toBe(0);
  return ran.stdout;
}

/** Runs the tool, which must succeed; returns what it printed. */
export async function veneerOk(...args: string[]): Promise<string> {
  return await runOk(process.execPath, [veneerPath, ...args]);
}

/** Runs the tool, which must refuse: with status 1, nothing on standard output, and one line that says why. Returns that line. */
export async function veneerRefuses(...args: string[]): Promise<string> {
  const ran = await veneer(...args);
  const said = `veneer ${args.join(' ')}\n${ran.stdout}${ran.stderr}`;
  expect(ran.status, said).toBe(1);
  expect(ran.stdout, said).toBe('');
  expect(ran.stderr, said).toMatch(/^veneer: [^\n]+\n$/);
  return ran.stderr.trimEnd();
}
