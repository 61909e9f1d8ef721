/** How tests run against a mutant: in the order that they are given in, each file within its time. */
import process from 'node:process';
import { defineConfig, mergeConfig } from 'vitest/config';
import type { Reporter, TestModule, TestSequencer, TestSpecification } from 'vitest/node';
import base from '../../vitest.config.ts';
import { lateStatus, planVariable, type TestPlan } from './test-plan.ts';

const plan = JSON.parse(process.env[planVariable] ?? '[]') as TestPlan;
const places = new Map(plan.map(({ path }, index) => [path, index]));

class InGivenOrder implements TestSequencer {
  sort(files: TestSpecification[]): TestSpecification[] {
    const placeOf = ({ moduleId }: TestSpecification): number => places.get(moduleId) ?? plan.length;
    return files.toSorted((a, b) => placeOf(a) - placeOf(b));
  }

  shard(files: TestSpecification[]): TestSpecification[] {
    return files;
  }
}

/** A thread that a mutant keeps in a loop answers no time limit of its own: this process ends then. */
class InTime implements Reporter {
  readonly #timers = new Map<string, NodeJS.Timeout>();

  onTestModuleQueued({ moduleId }: TestModule): void {
    const limitMs = plan[places.get(moduleId) ?? -1]?.limitMs;
    if (limitMs === undefined) return;
    const late = (): void => {
      process.stderr.write(`${moduleId}: late\n`);
      process.exit(lateStatus);
    };
    this.#timers.set(moduleId, setTimeout(late, limitMs));
  }

  onTestModuleEnd({ moduleId }: TestModule): void {
    clearTimeout(this.#timers.get(moduleId));
  }
}

export default mergeConfig(
  base,
  defineConfig({
    root: new URL('../..', import.meta.url).pathname,
    // The packages are the user's, and only linked to.
    cacheDir: '.cache/vite',
    test: { sequence: { sequencer: InGivenOrder }, reporters: ['json', new InTime()] },
  }),
);
