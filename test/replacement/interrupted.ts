/** What a file may hold after a step that was not acknowledged. */
import { expect } from 'vitest';
import { expectSameBytes, type ModelDisk } from '../disk/model-disk.ts';
import type { KeptFile } from './kept-file.ts';
import { sectorBytes } from './pattern-base.ts';
import { applyToModel, describeStep, type Step } from './random-steps.ts';

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
  if (step === undefined || step.kind === 'sync') {
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
