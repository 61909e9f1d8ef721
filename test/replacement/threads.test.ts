import fs from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { closing } from '../../src/base/ownership.ts';
import { runTeam } from '../../src/base/worker-team.ts';
import { workerUrl } from '../../src/base/worker-url.ts';
import { livePageOffset, mapPageBytes, unitBytes } from '../../src/replacement/layout.ts';
import { replacementStat } from '../../src/replacement/beside.ts';
import { openReplacement } from '../../src/replacement/open.ts';
import { Replacement } from '../../src/replacement/replacement.ts';
import { expectSameBytes, ModelDisk } from '../disk/model-disk.ts';
import { seededTest, soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { baseBytes, bytesOf, stableUnits, stepsOf, writers } from './hammer.ts';
import type { HammerJob, HammerReport } from './hammer-worker.ts';
import { filesOf, KeptFile, kinds, otherBoots, placeOf } from './kept-file.ts';
import { sectorBytes, wholeBase } from './pattern-base.ts';
import type { TurnsJob } from './turns-worker.ts';

const timeoutMs = 1_800_000;
const plainSteps = soak ? 10_000 : 500;
const rounds = soak ? 6 : 1;

/** What is there when all writers have finished, in whatever order their steps came. */
function modelOf(seed: string, steps: number): ModelDisk {
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

async function hammer(
  file: KeptFile,
  what: { readonly seed: string; readonly steps: number; readonly readers: number; readonly resizes: boolean },
): Promise<HammerReport[]> {
  const { seed, steps, readers, resizes } = what;
  const reports: HammerReport[] = [];
  const { parts } = file.open;
  const job: HammerJob = { parts, seed, steps, readers, resizes, counters: new SharedArrayBuffer(12) };
  // One more fills.
  const threads = writers + readers + 1 + (resizes ? 1 : 0);
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

describe.each(kinds)('many threads on one replacement (%s data file)', (kind) => {
  const steps = kind === 'plain' || soak ? plainSteps : plainSteps / 4;

  it.each(Array.from({ length: rounds }, (_, round) => round))(
    'copy units up at once, lose no write and read nothing that was never there (round %i)',
    { timeout: timeoutMs },
    async (round) => {
      const { seed } = seededTest(`hammer ${round}`);
      using folder = new TempFolder();
      const place = placeOf(folder.file('disk.vhdx'), baseBytes, kind);
      const model = modelOf(seed, steps);
      {
        using file = new KeptFile(place);
        await hammer(file, { seed, steps, readers: 1, resizes: false });
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
      const place = placeOf(folder.file('disk.vhdx'), baseBytes, kind);
      const model = modelOf(seed, steps);
      const stableBytes = stableUnits * unitBytes;
      {
        using file = new KeptFile(place);
        await hammer(file, { seed, steps, readers: 1, resizes: true });
        expect(replacementStat(place)?.sizeBytes).toBe(file.sizeBytes);
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
});

/** The worker writes at unit `turn * stride` of a file whose base is all `byte`, and at the same time this thread does `act`. */
async function race(
  what: { baseUnits: number; stride: number; turns: number; lengthBytes?: number },
  act: (replacement: Replacement, turn: number) => void,
  check: (replacement: Replacement, turn: number, dataPath: string) => void,
): Promise<void> {
  const random = seededTest('race');
  using folder = new TempFolder();
  const byte = 0x6b;
  const { stride, turns } = what;
  const baseBytes = what.baseUnits * unitBytes;
  const place = placeOf(folder.file('disk.raw'), baseBytes);
  using open = closing(openReplacement(place));
  const { parts } = open.value;
  const numbers = new Int32Array(new SharedArrayBuffer(8));
  const [given, done] = [0, 1];
  const job: TurnsJob = { parts, turns, stride, byte, lengthBytes: what.lengthBytes ?? 1, counters: numbers.buffer };
  const replacement = new Replacement(parts, { sizeBytes: baseBytes, read: (target) => void target.fill(byte) });
  const writing = runTeam(workerUrl(import.meta.url, './turns-worker'), 1, job, () => undefined);
  // However the loop below or the worker ends, neither waits for the other for ever.
  const ended = writing.finally(() => Atomics.store(numbers, done, turns));
  try {
    for (let turn = 1; turn <= turns; turn++) {
      Atomics.store(numbers, given, turn);
      // A copy-up takes some tens of microseconds: begin at any of its moments.
      const startMs = performance.now() + random.below(200) / 1000;
      while (performance.now() < startMs);
      act(replacement, turn);
      while (Atomics.load(numbers, done) < turn) await setImmediate();
      check(replacement, turn, filesOf(place).data);
    }
  } finally {
    Atomics.store(numbers, given, turns);
    await ended;
  }
}

describe('two threads at the same moment', () => {
  it(
    'one writes a unit, one reads on from it: it does not take what is behind for written',
    { timeout: timeoutMs },
    async () => {
      const stride = 64;
      const turns = soak ? 20_000 : 400;
      const bytes = Buffer.alloc(stride * unitBytes);
      const expected = Buffer.alloc(bytes.length, 0x6b);
      await race(
        { baseUnits: (turns + 2) * stride, stride, turns },
        (replacement, turn) => replacement.read(bytes, turn * stride * unitBytes),
        (_, turn) => expectSameBytes(bytes, expected, `turn ${turn}`),
      );
    },
  );

  it('one writes a unit, one reads it: all of it is as before or as after', { timeout: timeoutMs }, async () => {
    const bytes = Buffer.alloc(unitBytes);
    const seen = { before: 0, after: 0 };
    const byteOf = (turn: number): number => turn % 256;
    await race(
      { baseUnits: 1, stride: 0, turns: soak ? 50_000 : 2_000, lengthBytes: unitBytes },
      (replacement) => replacement.read(bytes, 0),
      (_, turn) => {
        const [first = -1] = bytes;
        expectSameBytes(bytes, Buffer.alloc(unitBytes, first), `turn ${turn}`);
        if (turn > 1) expect([byteOf(turn - 1), byteOf(turn)]).toContain(first);
        seen[first === byteOf(turn) ? 'after' : 'before']++;
      },
    );
    expect(Math.min(seen.before, seen.after)).toBeGreaterThan(0);
  });

  it('one makes the file longer, one cuts it: it is as long as it says', { timeout: timeoutMs }, async () => {
    const stride = 2;
    const turns = soak ? 7_000 : 700;
    await race(
      { baseUnits: 0, stride, turns },
      (replacement, turn) => replacement.truncate(turn * stride * unitBytes - 1),
      (replacement, turn, dataPath) => {
        expect(replacement.sizeBytes, `turn ${turn}`).toBe(fs.statSync(dataPath).size);
        expect(replacement.read(new Uint8Array(2), replacement.sizeBytes - 1)).toBe(1);
      },
    );
  });

  it('each writes a unit of its own, side by side: a killed process finds both', { timeout: timeoutMs }, async () => {
    const stride = 4;
    const turns = soak ? 20_000 : 1_500;
    const place = (turn: number): number => turn * stride * unitBytes + unitBytes;
    let pages: Buffer[] = [];
    await race(
      { baseUnits: (turns + 2) * stride, stride, turns },
      (replacement, turn) => replacement.write(Uint8Array.of(1), place(turn)),
      ({ map }, turn, dataPath) => {
        if (turn < turns) return;
        pages = Array.from({ length: map.pageCount }, (_, page) => Buffer.from(map.page(page)));
        // The last page may be cut short; what is not there is zero.
        const live = Buffer.concat([
          fs.readFileSync(`${dataPath}-map`),
          Buffer.alloc(map.pageCount * 2 * mapPageBytes),
        ]);
        for (const [page, bits] of pages.entries()) {
          const at = livePageOffset(page);
          expectSameBytes(live.subarray(at, at + bits.length), bits, `page ${page}`);
        }
      },
    );
    expect(pages.some((page) => page.includes(0x0f))).toBe(true);
  });
});
