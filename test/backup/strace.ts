/** Runs a script under strace, which kills it, or lies to it, at the N-th system call of a kind. */
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { soak } from '../seeded.ts';

export interface Injection {
  readonly syscall: string;
  /** `signal=SIGKILL`, `error=ENOSPC`, `retval=512`, `delay_enter=…` */
  readonly what: string;
  /** From 1. */
  readonly when: number;
}

const followAll = ['-f', '-qq'];
/** The kernel stops the threads at the traced calls only, which is three times as fast. A signal cannot be injected so. */
const stopAtTracedOnly = '--seccomp-bpf';

/** `when` counts per thread: the pool has one, and what the script does at once is done by its main thread. */
const environment = { ...process.env, UV_THREADPOOL_SIZE: '1', NODE_OPTIONS: '' };

/**
 * @param paths only system calls on these count
 */
export function runInjected(
  injection: Injection,
  paths: readonly string[],
  script: string,
  args: readonly string[],
): SpawnSyncReturns<string> {
  return spawnSync('strace', [...straceArguments(injection, paths), process.execPath, script, ...args], {
    encoding: 'utf8',
    env: environment,
    timeout: 60_000,
  });
}

export function straceArguments({ syscall, what, when }: Injection, paths: readonly string[]): string[] {
  const filters = paths.flatMap((path) => ['-P', path]);
  const inject = `inject=${syscall}:${what}:when=${when}`;
  const stops = what.includes('signal=') ? [] : [stopAtTracedOnly];
  return [...followAll, ...stops, '-o', '/dev/null', ...filters, '-e', `trace=${syscall}`, '-e', inject];
}

/** The names of the system calls that the script makes on the paths, in order, when nothing is injected. */
export function systemCalls(
  traced: readonly string[],
  paths: readonly string[],
  script: string,
  args: readonly string[],
): string[] {
  const filters = paths.flatMap((path) => ['-P', path]);
  const run = spawnSync(
    'strace',
    [...followAll, stopAtTracedOnly, ...filters, '-e', `trace=${traced.join(',')}`, process.execPath, script, ...args],
    { encoding: 'utf8', env: environment, timeout: 60_000 },
  );
  if (run.status !== 0) throw new Error(`the script failed by itself: ${run.stderr}`);
  return [...run.stderr.matchAll(/^(?:\[pid +\d+\] )?(\w+)\(/gm)].map((match) => match[1] ?? '');
}

/** Of `count` calls, those at which to strike: all in a soak; else the first, the last two, and one between, or every fourth where `between`. */
export function strikes(count: number, between = false): number[] {
  const all = Array.from({ length: count }, (_, index) => index + 1);
  const isBetween = (when: number): boolean => (between ? when % 4 === 0 : when === Math.ceil(count / 2));
  return soak ? all : all.filter((when) => when === 1 || when > count - 2 || isBetween(when));
}

/** Why nothing can be injected here; undefined where it can. */
export function whyNoStrace(): string | undefined {
  const run = spawnSync('strace', ['-qq', '-o', '/dev/null', '-e', 'inject=getppid:retval=1', 'true'], {
    encoding: 'utf8',
  });
  if (run.error !== undefined) return `strace cannot be run: ${run.error.message}`;
  return run.status === 0 ? undefined : `strace may not trace here: ${run.stderr.trim()}`;
}
