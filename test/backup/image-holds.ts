/** What every test of a finished image asks: does the chain read as the model, and is it sound? */
import { expect } from 'vitest';
import { closing } from '../../src/base/ownership.ts';
import { openChainDisk } from '../../src/backup/read/chain.ts';
import type { KeyRing } from '../../src/backup/crypto/key-ring.ts';
import { verifyChain, type Fault, type VerifyResult } from '../../src/backup/care/verify.ts';
import { expectReadsAs, type ModelDisk } from '../disk/model-disk.ts';

/** The chain reads as the model from end to end, and `verify` finds nothing. */
export function expectImageHolds(imagePath: string, model: ModelDisk): void {
  using disk = closing(openChainDisk(imagePath));
  expect(disk.value.sizeBytes).toBe(model.sizeBytes);
  expectReadsAs(disk.value, model);
  expect(faultsOf(imagePath)).toEqual([]);
}

/** @param keys checks seals and provenance too */
export function faultsOf(imagePath: string, keys?: KeyRing): Fault[] {
  const faults: Fault[] = [];
  const result: VerifyResult = verifyChain(imagePath, {
    ...(keys === undefined ? {} : { keys }),
    onFault: (fault) => faults.push(fault),
  });
  expect(result.faults).toBe(faults.length);
  return faults;
}

/** What a function throws; fails when it throws nothing. */
export function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return expect.fail('nothing was thrown');
}
