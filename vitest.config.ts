import { spawnSync } from 'node:child_process';
import path from 'node:path';
import process from 'node:process';
import { configDefaults, defineConfig } from 'vitest/config';
import { slowTests } from './test/slow-tests.ts';

/** A start of Node on two cores at rest, in milliseconds. */
const startAtRestMs = 60;
const probes = 5;
const maxSlowness = 20;

/** How many times slower than at rest the machine is now: time-outs grow with it (test/patience.ts). */
function slowness(): number {
  const startMs = performance.now();
  for (let probe = 0; probe < probes; probe++) spawnSync(process.execPath, ['-e', '0']);
  const factor = (performance.now() - startMs) / probes / startAtRestMs;
  return Math.min(maxSlowness, Math.max(1, factor));
}

process.env['VENEER_SLOWNESS'] ??= slowness().toFixed(2);
// Scripts that tests run in processes of their own start in half the time when what they import was compiled once.
process.env['NODE_COMPILE_CACHE'] ??= path.join(import.meta.dirname, '.cache/compiled');
const timeoutMs = 120_000 * Number(process.env['VENEER_SLOWNESS']);

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: [...configDefaults.exclude, ...(process.env['VENEER_FAST'] === undefined ? [] : slowTests)],
    // Real mounts, real guests and foreign judges: slow machines need time; what hangs still ends.
    testTimeout: timeoutMs,
    hookTimeout: timeoutMs,
    pool: 'forks',
    maxWorkers: 2,
    reporters: ['default'],
  },
});
