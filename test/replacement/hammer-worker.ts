/** One of the threads that use a replacement at once: a writer, a reader, the one that fills it, or the one that changes the size. */
import { alignUp } from '../../src/base/ranges.ts';
import { teamMember } from '../../src/base/worker-team.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { Filler } from '../../src/fill/filler.ts';
import { releaseCopies } from '../../src/fill/release.ts';
import { Replacement, type SharedReplacement } from '../../src/replacement/replacement.ts';
import { Seeded } from '../seeded.ts';
import { allUnits, baseBytes, bytesOf, SectorJudge, stableUnits, stepsOf, writers } from './hammer.ts';
import { patternBase, sectorBytes } from './pattern-base.ts';

export interface HammerJob {
  readonly parts: SharedReplacement;
  readonly seed: string;
  /** Of each writer. */
  readonly steps: number;
  readonly readers: number;
  /** Whether one more thread changes the size. */
  readonly resizes: boolean;
  /** Three counters: threads that have begun, that have reached the starting line, writers that have finished. */
  readonly counters: SharedArrayBuffer;
}

/** What a thread reports when it has done its part. */
export interface HammerReport {
  readonly role: 'writer' | 'reader' | 'filler' | 'resizer';
  readonly done: number;
}

const longestRead = 3 * unitBytes;

teamMember<HammerJob, HammerReport>((job, post) => {
  const counters = new Int32Array(job.counters);
  const thread = Atomics.add(counters, 0, 1);
  const replacement = new Replacement(job.parts, patternBase(baseBytes));
  const judge = new SectorJudge(job.seed, job.steps, job.resizes);
  const random = new Seeded(`${job.seed} thread ${thread}`);
  startTogether(counters, threadsOf(job));
  if (thread < writers) {
    post({ role: 'writer', done: write(job, thread, replacement, judge, random) });
    Atomics.add(counters, 2, 1);
    return;
  }
  const role = thread < writers + job.readers ? 'reader' : thread === writers + job.readers ? 'filler' : 'resizer';
  const filler = new Filler(job.parts, patternBase(baseBytes));
  let done = 0;
  while (Atomics.load(counters, 2) < writers) {
    if (role === 'reader') readSome(replacement, judge, random);
    else if (role === 'filler') fillSome(job, filler, random);
    else changeSize(replacement, random);
    done++;
  }
  post({ role, done });
});

/** One fills. */
function threadsOf(job: HammerJob): number {
  return writers + job.readers + 1 + (job.resizes ? 1 : 0);
}

/** Copies what is missing, and gives it back again. */
function fillSome(job: HammerJob, filler: Filler, random: Seeded): void {
  for (const bytes of filler.fill(0, () => random.between(1, 16))) if (bytes < 0) return;
  if (random.oneIn(2)) releaseCopies(job.parts);
}

function startTogether(counters: Int32Array, threads: number): void {
  Atomics.add(counters, 1, 1);
  while (Atomics.load(counters, 1) < threads);
}

function write(job: HammerJob, writer: number, replacement: Replacement, judge: SectorJudge, random: Seeded): number {
  const steps = stepsOf(job.seed, writer, job.steps);
  for (const [number, step] of steps.entries()) {
    if (step.kind === 'sync') {
      replacement.sync();
    } else if (step.kind === 'discard') {
      replacement.discard(step.sector * sectorBytes, step.count * sectorBytes);
    } else {
      replacement.write(bytesOf(step, writer, number), step.sector * sectorBytes);
      if (!job.resizes || step.sector * sectorBytes < stableUnits * unitBytes) {
        judge.expectSeen(step.sector, step.count, number);
      }
    }
    if (random.oneIn(4)) readSome(replacement, judge, random);
  }
  return steps.length;
}

function readSome(replacement: Replacement, judge: SectorJudge, random: Seeded): void {
  const sector = random.below((allUnits * unitBytes) / sectorBytes);
  const bytes = Buffer.alloc(Math.ceil(random.between(1, longestRead) / sectorBytes) * sectorBytes, 0xa5);
  const length = replacement.read(bytes, sector * sectorBytes);
  // The last sector may be cut short by the end of the file.
  for (let at = 0; at + sectorBytes <= length; at += sectorBytes) {
    judge.judge(bytes.subarray(at, at + sectorBytes), sector + at / sectorBytes);
  }
}

function changeSize(replacement: Replacement, random: Seeded): void {
  // Whole sectors, so that each is whole or gone.
  const end = alignUp(random.between(stableUnits * unitBytes, allUnits * unitBytes), sectorBytes);
  replacement.truncate(end);
  const from = alignUp(random.between(stableUnits * unitBytes, end), sectorBytes);
  if (random.oneIn(3)) replacement.discard(from, 2 * unitBytes);
}
