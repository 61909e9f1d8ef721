/** Child processes of a benchmark: run to their end, measured, or kept as servers. None outlives the benchmark. */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** The built command line; run it with this process's Node. */
export const veneerMain = fileURLToPath(new URL('../dist/main.js', import.meta.url));

const execFilePromise = promisify(execFile);
const maxOutputBytes = 64 * 1024 * 1024;
const sampleEveryMs = 10;
const stopsWithinMs = 5000;
/** Of /proc/PID/stat; the same on every Linux that Node runs on. */
const ticksPerSecond = 100;

/** Runs a command and returns its standard output. Rejects with what it wrote to standard error. */
export async function run(command: string, args: readonly string[], signal: AbortSignal): Promise<string> {
  const { stdout } = await execFilePromise(command, args, { signal, maxBuffer: maxOutputBytes, killSignal: 'SIGKILL' });
  return stdout;
}

/** The first line that a command prints of itself, such as its version; undefined when there is no such command. */
export async function firstLine(command: string, args: readonly string[]): Promise<string | undefined> {
  // Some tell their version with a failure, or on standard error.
  const { error, text } = await new Promise<{ error: Error | null; text: string }>((resolve) => {
    execFile(command, args, (failure, stdout, stderr) => {
      resolve({ error: failure, text: stdout + stderr });
    });
  });
  if (error !== null && 'code' in error && error.code === 'ENOENT') return undefined;
  return text.split('\n').find((line) => /\d/.test(line) && !line.startsWith('ERROR'));
}

export interface Measured {
  readonly seconds: number;
  /** Of user and system, all threads; sampled, so up to 10 ms for each processor are missing. */
  readonly cpuSeconds: number;
  /** The most memory that was resident, pages of shared libraries included. */
  readonly peakBytes: number;
}

/** Runs a command of one process to its end, and measures it. Rejects when it fails. */
export async function measure(command: string, args: readonly string[], signal: AbortSignal): Promise<Measured> {
  const startMs = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'], signal, killSignal: 'SIGKILL' });
  let errors = '';
  child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
  let cpuSeconds = 0;
  let peakBytes = 0;
  const timer = setInterval(() => {
    cpuSeconds = cpuSecondsOf(child.pid) ?? cpuSeconds;
    peakBytes = memoryOf(child.pid)?.peakBytes ?? peakBytes;
  }, sampleEveryMs);
  try {
    const status = await exitOf(child);
    const seconds = (performance.now() - startMs) / 1000;
    if (status !== 0) throw new Error(`${[command, ...args].join(' ')} ended with ${String(status)}: ${errors}`);
    return { seconds, cpuSeconds, peakBytes };
  } finally {
    clearInterval(timer);
  }
}

/** Rejects when the process cannot be started or is aborted. */
function exitOf(child: ChildProcess): Promise<number | NodeJS.Signals | null> {
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      resolve(code ?? signal);
    });
  });
}

export interface Server {
  readonly pid: number;
  /** What it wrote so far, both streams. */
  readonly output: () => string;
  /** Whether it ended by itself. */
  hasEnded(): boolean;
  /** SIGTERM, and SIGKILL after 5 s. Resolves when it is gone. */
  stop(): Promise<void>;
}

/** Starts a process that stays. The kernel kills it if this process dies without coming to its own clean-up. */
export function startServer(command: string, args: readonly string[]): Server {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  let ended = false;
  const gone = exitOf(child).then(
    () => (ended = true),
    (error: unknown) => {
      output += String(error);
      ended = true;
    },
  );
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()));
  return {
    pid: child.pid ?? 0,
    output: () => output,
    hasEnded: () => ended,
    async stop() {
      child.kill('SIGTERM');
      const killer = setTimeout(() => child.kill('SIGKILL'), stopsWithinMs);
      await gone;
      clearTimeout(killer);
    },
  };
}

/** Waits until `isSo`. @throws after 10 s, when `hasFailed` says why, or when aborted */
export async function waitUntil(
  isSo: () => boolean,
  hasFailed: () => string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const startMs = performance.now();
  while (!isSo()) {
    const failure = hasFailed() ?? (performance.now() - startMs > 10_000 ? 'not ready after 10 s' : undefined);
    if (failure !== undefined) throw new Error(failure);
    await sleep(20, undefined, { signal });
  }
}

export interface Memory {
  readonly residentBytes: number;
  readonly peakBytes: number;
}

/** Of a process now; undefined when it is gone. */
export function memoryOf(pid: number | undefined): Memory | undefined {
  const status = readProc(pid, 'status');
  const field = (name: string): number | undefined => {
    const found = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status ?? '');
    return found === null ? undefined : Number(found[1]) * 1024;
  };
  const residentBytes = field('VmRSS');
  const peakBytes = field('VmHWM');
  return residentBytes === undefined || peakBytes === undefined ? undefined : { residentBytes, peakBytes };
}

/** Processor time of a process so far, all threads, user and system; undefined when it is gone. */
export function cpuSecondsOf(pid: number | undefined): number | undefined {
  const stat = readProc(pid, 'stat');
  if (stat === undefined) return undefined;
  // The command's name may hold spaces; the third field follows its parenthesis.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** The process whose command line is exactly this, by its arguments; undefined when there is none. */
export function pidOf(commandLine: readonly string[]): number | undefined {
  const wanted = commandLine.join('\0') + '\0';
  const found = fs
    .readdirSync('/proc')
    .find((name) => /^\d+$/.test(name) && readProc(Number(name), 'cmdline') === wanted);
  return found === undefined ? undefined : Number(found);
}

function readProc(pid: number | undefined, name: string): string | undefined {
  if (pid === undefined) return undefined;
  try {
    return fs.readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch {
    return undefined;
  }
}
