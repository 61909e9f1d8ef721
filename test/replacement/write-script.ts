/**
 * Run by tests in a process of its own, to be killed or lied to: random steps on a replacement. Prints a line when it is open, and one for each
 * step: that it was acknowledged, or with which error it failed and how long the file is now; then it goes on, as a guest would.
 */
import fs from 'node:fs';
import { VeneerError } from '../../src/base/errors.ts';
import type { ReplacementPlace } from '../../src/replacement/open.ts';
import { Seeded } from '../seeded.ts';
import { KeptFile } from './kept-file.ts';
import { applyTo, nextStep, type Arena } from './random-steps.ts';

export interface WriteJob {
  readonly place: ReplacementPlace;
  readonly arena: Arena;
  readonly seed: string;
  readonly steps: number;
}

const job = JSON.parse(process.argv[2] ?? '') as WriteJob;
const random = new Seeded(job.seed);
const file = openOrSay();
for (let number = 0; number < job.steps; number++) {
  const step = nextStep(random, file.sizeBytes, job.arena);
  try {
    applyTo(file, step);
    report('done');
  } catch (error) {
    if (!(error instanceof VeneerError)) throw error;
    report(`${error.code} ${file.sizeBytes}`);
  }
}
file.close();

function openOrSay(): KeptFile {
  try {
    const opened = new KeptFile(job.place);
    report('open');
    return opened;
  } catch (error) {
    if (!(error instanceof VeneerError)) throw error;
    report(error.code);
    process.exit(3);
  }
}

/** At once: what is in the pipe stays there when this process is killed. */
function report(line: string): void {
  fs.writeSync(1, `${line}\n`);
}
