/** What a file may hold after a step that was not acknowledged, and after a power loss. */
import { expect } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { expectSameBytes, ModelDisk } from '../disk/model-disk.ts';
import type { KeptFile } from './kept-file.ts';
import { sectorBytes } from './pattern-base.ts';
import { applyToModel, describeStep, modelOfBase, type Step } from './random-steps.ts';

/** Everything of the file. */
export function contentsOf(file: KeptFile): Buffer {
  return file.read(0, file.sizeBytes);
}

/**
 * The file holds what the model does. When a step was under way: a truncation was done or was not; of a write or a discard, each sector was
 * done or was not, and a file that it made longer may be of any length between.
 */
export function expectStepDoneOrNot(file: KeptFile, before: ModelDisk, step: Step | undefined): void {
  const actual = contentsOf(file);
  if (step === undefined || (step.kind !== 'write' && step.kind !== 'discard' && step.kind !== 'truncate')) {
    expectSameBytes(actual, before.read(0, before.sizeBytes), 'the file');
    return;
  }
  const after = before.copy();
  applyToModel(after, step);
  const what = `the file after ${describeStep(step)} was interrupted`;
  if (step.kind === 'truncate') {
    const reached = actual.length === after.sizeBytes ? after : before;
    expectSameBytes(actual, reached.read(0, reached.sizeBytes), what);
    return;
  }
  expect(actual.length, what).toBeGreaterThanOrEqual(before.sizeBytes);
  expect(actual.length, what).toBeLessThanOrEqual(after.sizeBytes);
  const [old, done] = [before, after].map((model) => model.read(0, after.sizeBytes).subarray(0, actual.length));
  for (let at = 0; at < actual.length; at += sectorBytes) {
    const sector = (bytes: Buffer | undefined): Buffer => Buffer.from(bytes?.subarray(at, at + sectorBytes) ?? []);
    if (sector(actual).equals(sector(old)) || sector(actual).equals(sector(done))) continue;
    expectSameBytes(sector(actual), sector(done), `${what}: sector at ${at}`);
  }
}

/** Files of these tests are shorter. */
const farthest = 64 * MiB;

/** What was flushed, then what the file has been since: the last may not have been reached yet. */
export class History {
  versions: ModelDisk[];
  /** Units that a step has touched, ever. */
  readonly touched = new Set<number>();

  constructor(baseBytes: number) {
    this.versions = [modelOfBase(baseBytes)];
  }

  get now(): ModelDisk {
    return this.versions.at(-1) ?? new ModelDisk(0);
  }

  begin(step: Step): void {
    const after = this.now.copy();
    applyToModel(after, step);
    this.versions.push(after);
    const [from, to] = touchedBy(step);
    for (let unit = Math.floor(from / unitBytes); unit * unitBytes < Math.min(to, farthest); unit++)
      this.touched.add(unit);
  }

  flushed(): void {
    this.versions = [this.now];
  }

  copy(): History {
    return History.joined([this], 'since the last flush');
  }

  /** What may be true where several histories may. */
  static joined(histories: readonly History[], versions: 'now' | 'since the last flush'): History {
    const joined = new History(0);
    joined.versions = histories.flatMap((history) => (versions === 'now' ? [history.now] : history.versions));
    for (const history of histories) history.touched.forEach((unit) => joined.touched.add(unit));
    return joined;
  }
}

function touchedBy(step: Step): [number, number] {
  switch (step.kind) {
    case 'write':
      return [step.offset, step.offset + step.bytes.length];
    case 'discard':
    case 'fill':
      return [step.offset, step.offset + step.length];
    case 'fill region':
      return [0, farthest];
    default:
      return [0, 0];
  }
}

/** Every sector holds what was flushed or something later; no unit is claimed that nobody wrote. */
export function expectNothingFlushedLost(file: KeptFile, { versions, touched }: History): void {
  const actual = contentsOf(file);
  const sizes = versions.map((model) => model.sizeBytes);
  expect(actual.length).toBeGreaterThanOrEqual(Math.min(...sizes));
  expect(actual.length).toBeLessThanOrEqual(Math.max(...sizes));
  const contents = versions.map((model) => model.read(0, actual.length));
  for (let at = 0; at < actual.length; at += sectorBytes) {
    const sector = actual.subarray(at, at + sectorBytes);
    const allowed = contents.map((bytes) => bytes.subarray(at, at + sectorBytes));
    if (allowed.some((bytes) => bytes.equals(sector))) continue;
    // Where the file was cut inside a sector, that has what was flushed before the cut, and zeros or what came later after it.
    const cutHere = sizes.some((size) => size > at && size < at + sectorBytes);
    if (cutHere && sector.every((byte, index) => allowed.some((bytes) => bytes[index] === byte))) continue;
    expectSameBytes(
      sector,
      allowed[0] ?? Buffer.alloc(0),
      `sector at ${at} (unit ${at / unitBytes}), what was flushed`,
    );
  }
  for (let unit = 0; unit * unitBytes < actual.length; unit++) {
    if (file.replacement.map.isPresent(unit)) expect(touched, `unit ${unit}`).toContain(unit);
  }
}
