import fs from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { closing } from '../../src/base/ownership.ts';
import { runTeam } from '../../src/base/worker-team.ts';
import { workerUrl } from '../../src/base/worker-url.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { openReplacement } from '../../src/replacement/open.ts';
import { Replacement } from '../../src/replacement/replacement.ts';
import { expectSameBytes, ModelDisk } from '../disk/model-disk.ts';
import { seededTest, soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { baseBytes, bytesOf, stableUnits, stepsOf, writers } from './hammer.ts';
import type { FirstUnitJob } from './first-unit-worker.ts';
import type { HammerJob, HammerReport } from './hammer-worker.ts';
import { filesOf, KeptFile, otherBoots, placeOf } from './kept-file.ts';
import { sectorBytes, wholeBase } from './pattern-base.ts';

const timeoutMs = 1_800_000;
const steps = soak ? 20_000 : 1_000;
const rounds = soak ? 20 : 1;

/** What is there when all writers have finished, in whatever order their steps came. */
function modelOf(seed: string): ModelDisk {
  const model = ModelDisk.of(wholeBase(baseBytes));
  for (let writer = 0; writer < writers; writer++) {
    for (const [number, step] of stepsOf(seed, writer, steps).entries()) {
      if (step.kind === 'sync') continue;
      const offset = step.sector * sectorBytes;
      const end = offset + step.count * sectorBytes;
      if (step.kind === 'discard') {
        model.zero(offset, end - offset);
        continue;
      }
      if (end > model.sizeBytes) model.resize(end);
      model.write(offset, bytesOf(step, writer, number));
    }
  }
  return model;
}

async function hammer(file: KeptFile, seed: string, readers: number, resizes: boolean): Promise<HammerReport[]> {
  const reports: HammerReport[] = [];
  const { parts } = file.open;
  const job: HammerJob = { parts, seed, steps, readers, resizes, counters: new SharedArrayBuffer(12) };
  const threads = writers + readers + (resizes ? 1 : 0);
  await runTeam<HammerReport>(workerUrl(import.meta.url, './hammer-worker'), threads, job, (report) =>
    reports.push(report),
  );
  expect(reports).toHaveLength(threads);
  for (const { role, done } of reports) expect(done, role).toBeGreaterThan(0);
  return reports;
}

function expectHolds(file: KeptFile, model: ModelDisk, lengthBytes: number): void {
  expectSameBytes(file.read(0, lengthBytes), model.read(0, lengthBytes), 'the file');
}

describe('many threads on one replacement', () => {
  it.each(Array.from({ length: rounds }, (_, round) => round))(
    'copy units up at once, lose no write and read nothing that was never there (round %i)',
    { timeout: timeoutMs },
    async (round) => {
      const { seed } = seededTest(`hammer ${round}`);
      using folder = new TempFolder();
      const place = placeOf(folder.file('disk.vhdx'), baseBytes);
      const model = modelOf(seed);
      {
        using file = new KeptFile(place);
        await hammer(file, seed, 1, false);
        expect(file.sizeBytes).toBe(model.sizeBytes);
        expectHolds(file, model, model.sizeBytes);
      }
      {
        using again = new KeptFile(place);
        expectHolds(again, model, model.sizeBytes);
        again.replacement.sync();
      }
      using afterPowerLoss = new KeptFile(place, otherBoots[0]);
      expect(afterPowerLoss.sizeBytes).toBe(model.sizeBytes);
      expectHolds(afterPowerLoss, model, model.sizeBytes);
    },
  );

  it.each(Array.from({ length: rounds }, (_, round) => round))(
    'go on reading and writing while the end of the file moves (round %i)',
    { timeout: timeoutMs },
    async (round) => {
      const { seed } = seededTest(`hammer the end ${round}`);
      using folder = new TempFolder();
      const place = placeOf(folder.file('disk.vhdx'), baseBytes);
      const model = modelOf(seed);
      const stableBytes = stableUnits * unitBytes;
      {
        using file = new KeptFile(place);
        await hammer(file, seed, 1, true);
        expect(fs.statSync(filesOf(place).data).size).toBe(file.sizeBytes);
        expectHolds(file, model, stableBytes);
        file.replacement.truncate(stableBytes);
        file.replacement.truncate(2 * baseBytes);
        const grown = file.read(stableBytes, 2 * baseBytes);
        expectSameBytes(grown, Buffer.alloc(2 * baseBytes - stableBytes), 'what grew again');
      }
      using again = new KeptFile(place);
      expectHolds(again, model, stableBytes);
    },
  );

  it('do not take what is behind a unit for written because that unit just was', { timeout: timeoutMs }, async () => {
    const random = seededTest('first unit');
    using folder = new TempFolder();
    const stride = 64;
    const turns = soak ? 20_000 : 400;
    const byte = 0x6b;
    const baseBytes = (turns + 2) * stride * unitBytes;
    using open = closing(openReplacement(placeOf(folder.file('disk.raw'), baseBytes)));
    const { parts } = open.value;
    const counters = new SharedArrayBuffer(8);
    const job: FirstUnitJob = { parts, turns, stride, byte, counters };
    const writing = runTeam(workerUrl(import.meta.url, './first-unit-worker'), 1, job, () => undefined);
    const [given, done] = [0, 1];
    const numbers = new Int32Array(counters);
    const replacement = new Replacement(parts, { sizeBytes: baseBytes, read: (target) => void target.fill(byte) });
    const bytes = Buffer.alloc(stride * unitBytes);
    const expected = Buffer.alloc(bytes.length, byte);
    // However the loop below or the worker ends, neither waits for the other for ever.
    const ended = writing.finally(() => Atomics.store(numbers, done, turns));
    try {
      for (let turn = 1; turn <= turns; turn++) {
        Atomics.store(numbers, given, turn);
        // A copy-up takes some tens of microseconds: begin to read at any of its moments.
        const startMs = performance.now() + random.below(200) / 1000;
        while (performance.now() < startMs);
        replacement.read(bytes, turn * stride * unitBytes);
        expectSameBytes(bytes, expected, `turn ${turn}`);
        while (Atomics.load(numbers, done) < turn) await setImmediate();
      }
    } finally {
      Atomics.store(numbers, given, turns);
      await ended;
    }
  });
});
