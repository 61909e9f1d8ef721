import { describe, expect, it, onTestFailed } from 'vitest';
import { GiB } from '../../src/base/units.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { removeReplacement } from '../../src/replacement/open.ts';
import { expectSameBytes, type ModelDisk } from '../disk/model-disk.ts';
import { seededTest, soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { KeptFile, kinds, otherBoots, placeOf, type Kind } from './kept-file.ts';
import { applyTo, applyToModel, describeStep, modelOfBase, nextRange, nextStep, type Arena } from './random-steps.ts';

const timeoutMs = 1_800_000;

function expectHolds(file: KeptFile, model: ModelDisk, from: number): void {
  expect(file.sizeBytes).toBe(model.sizeBytes);
  const lengthBytes = model.sizeBytes - from;
  expectSameBytes(file.read(from, lengthBytes), model.read(from, lengthBytes), `the file from byte ${from}`);
}

/** The last steps, for the report of a failure. */
function keepTrace(): string[] {
  const trace: string[] = [];
  onTestFailed(() => console.error(trace.slice(-20).join('\n')));
  return trace;
}

describe('a replacement, written, discarded, cut, grown, synced and opened again at random', () => {
  const arenas = [
    { what: 'from its first byte', from: 0, baseBytes: 20 * unitBytes + 777, steps: soak ? 100_000 : 5_000 },
    {
      what: 'around a GiB',
      from: GiB - 7 * unitBytes,
      baseBytes: GiB + 9 * unitBytes + 512,
      steps: soak ? 20_000 : 1_000,
    },
    { what: 'that stands for an empty file', from: 0, baseBytes: 0, steps: soak ? 5_000 : 300 },
  ];
  /** The code is the same, but for the data file: a smaller sample of the sealed ones. */
  const cases = kinds.flatMap((kind: Kind) =>
    arenas.map((arena) => ({ ...arena, kind, steps: kind === 'plain' || soak ? arena.steps : arena.steps / 3 })),
  );

  it.each(cases)(
    '$kind, $what, reads as its model',
    { timeout: timeoutMs },
    ({ kind, what, from, baseBytes, steps }) => {
      const random = seededTest(`replacement ${kind} ${what}`);
      using folder = new TempFolder();
      let place = placeOf(folder.file('0.vhdx'), baseBytes, kind);
      const arena: Arena = { from, to: baseBytes + 20 * unitBytes };
      const base = modelOfBase(baseBytes, from);
      let model = base.copy();
      const trace = keepTrace();
      let boot: string | undefined;
      let file = new KeptFile(place, boot);
      try {
        for (let number = 0; number < steps; number++) {
          const dice = random.below(100);
          if (dice < 30) {
            const { offset, length } = nextRange(random, arena.to, arena);
            trace.push(`read ${length} bytes at ${offset}`);
            const expected = model.read(offset, Math.max(0, Math.min(length, model.sizeBytes - offset)));
            expectSameBytes(file.read(offset, length), expected, `step ${number}: ${length} bytes at ${offset}`);
          } else if (dice < 31) {
            // In this boot everything is found again; in another one, what was flushed: so flush everything.
            if (random.oneIn(2)) {
              file.replacement.sync();
              boot = random.pick([undefined, ...otherBoots]);
            }
            trace.push(`open again in boot ${boot ?? 'of now'}`);
            file.close();
            file = new KeptFile(place, boot);
            expectHolds(file, model, from);
          } else if (dice < 32) {
            // After a while all units are present, and stay so.
            trace.push('begin anew');
            expectHolds(file, model, from);
            file.close();
            removeReplacement(place);
            place = placeOf(folder.file(`${number}.vhdx`), baseBytes, kind);
            model = base.copy();
            file = new KeptFile(place, boot);
          } else {
            const step = nextStep(random, model.sizeBytes, arena);
            trace.push(describeStep(step));
            applyTo(file, step);
            applyToModel(model, step);
            expect(file.sizeBytes).toBe(model.sizeBytes);
          }
        }
        expectHolds(file, model, from);
      } finally {
        file.close();
      }
      removeReplacement(place);
      expect(folder.names()).toEqual([]);
    },
  );
});
