/**
 * How long a test waits for what takes a moment on a machine at rest: longer where the machine is slow or busy, so that a test fails for what
 * it tests and not for what else runs.
 */
import os from 'node:os';
import process from 'node:process';

/** Set by vitest.config.ts for all tests: how many times slower than a machine at rest this one was when they began. */
const probed = Number(process.env['VENEER_SLOWNESS'] ?? '1');
/** What hangs is to end all the same. */
const maxFactor = 20;

/** The time limit for what may take `ms` at rest. */
export function patience(ms: number): number {
  const waiting = (os.loadavg()[0] ?? 0) / os.availableParallelism();
  return Math.ceil(ms * Math.min(maxFactor, Math.max(1, probed, waiting)));
}
