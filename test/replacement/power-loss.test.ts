import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it, onTestFailed, vi } from 'vitest';
import { unitBytes } from '../../src/replacement/layout.ts';
import type * as punchHole from '../../src/replacement/punch-hole.ts';
import type { ReplacementPlace } from '../../src/replacement/open.ts';
import { expectSameBytes, ModelDisk } from '../disk/model-disk.ts';
import { seededTest, soak, type Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { FaultyFiles, tellPunched } from './faulty-files.ts';
import { contentsOf, expectNothingFlushedLost, expectStepDoneOrNot, History } from './interrupted.ts';
import { filesOf, KeptFile, kinds, otherBoots, placeOf, type Kind } from './kept-file.ts';
import { applyTo, applyToModel, describeStep, modelOfBase, nextStep, type Arena, type Step } from './random-steps.ts';

// The real function, and the one that is told of it.
vi.mock(import('../../src/replacement/punch-hole.ts'), async (importOriginal) => {
  const original: typeof punchHole = await importOriginal();
  return {
    punchHole(fd: number, offset: number, lengthBytes: number, name: string) {
      tellPunched(fd, offset, lengthBytes);
      original.punchHole(fd, offset, lengthBytes, name);
    },
  };
});

const timeoutMs = 1_800_000;
const baseBytes = 6 * unitBytes + 1000;
const arena: Arena = { from: 0, to: 12 * unitBytes };
const states = { plain: soak ? 5_000 : 160, sealed: soak ? 5_000 : 60 };
/** Few, since after many all units are present. */
const stepsPerScenario = 25;
const statesPerScenario = 20;

/** A power loss at this moment, the machine started again, and the file opened. */
function withFileAfter(
  files: FaultyFiles,
  place: ReplacementPlace,
  random: Seeded,
  check: (file: KeptFile) => void,
): void {
  using folder = new TempFolder();
  files.losePower(random, folder.path);
  const after = { ...place, path: path.join(folder.path, path.basename(place.path)) };
  using file = new KeptFile(after, otherBoots[0]);
  check(file);
  // A process that is killed now leaves the same to the next one of this boot.
  const found = contentsOf(file);
  file.close();
  using again = new KeptFile(after, otherBoots[0]);
  expectSameBytes(contentsOf(again), found, 'the file, opened again after a power loss');
}

/** Power is lost again while the file is opened after a power loss. */
function loseItAgain(
  files: FaultyFiles,
  place: ReplacementPlace,
  random: Seeded,
  check: (file: KeptFile) => void,
): number {
  using folder = new TempFolder();
  files.losePower(random, folder.path);
  const after = { ...place, path: path.join(folder.path, path.basename(place.path)) };
  let count = 0;
  using recovering = new FaultyFiles(folder.path, () => {
    count++;
    withFileAfter(recovering, after, random, check);
  });
  using file = new KeptFile(after, otherBoots[1]);
  check(file);
  return count;
}

/** It goes on as if nothing had happened, and keeps that through the next power loss. */
function expectGoesOn(file: KeptFile, place: ReplacementPlace, random: Seeded): void {
  const model = ModelDisk.of(contentsOf(file));
  for (let number = 0; number < 5; number++) {
    const step = nextStep(random, model.sizeBytes, arena);
    applyTo(file, step);
    applyToModel(model, step);
  }
  file.replacement.sync();
  file.close();
  using again = new KeptFile(place, otherBoots[1]);
  expectSameBytes(contentsOf(again), model.read(0, model.sizeBytes), 'the file, written after a power loss');
}

describe.each(kinds)('a power loss (%s data file)', (kind) => {
  it(
    'at any moment loses nothing that was flushed, and claims nothing that is not there',
    { timeout: timeoutMs },
    () => {
      const random = seededTest(`power loss ${kind}`);
      let [seen, scenarios] = [0, 0];
      for (; seen < states[kind]; scenarios++) seen += runScenario(random, kind);
      console.info(`${seen} states after a power loss, of ${scenarios} scenarios`);
    },
  );

  it(
    'while less of the synthesized file is made to show leaves the file as before or as after',
    { timeout: timeoutMs },
    () => {
      const random = seededTest(`power loss in a cut ${kind}`);
      let moments = 0;
      for (let round = 0; round < (soak ? 200 : kind === 'plain' ? 15 : 8); round++) {
        using folder = new TempFolder();
        const place = placeOf(folder.file('disk.vhdx'), baseBytes, kind);
        const model = modelOfBase(baseBytes);
        const under: { step?: Step } = {};
        using files = new FaultyFiles(folder.path, () => {
          const { step } = under;
          if (step === undefined) return;
          moments++;
          withFileAfter(files, place, random, (file) => expectStepDoneOrNot(file, model, step));
          loseItAgain(files, place, random, (file) => expectStepDoneOrNot(file, model, step));
        });
        using file = new KeptFile(place);
        const write: Step = { kind: 'write', offset: random.below(baseBytes), bytes: random.bytes(unitBytes) };
        applyTo(file, write);
        applyToModel(model, write);
        file.replacement.sync();
        const step: Step = { kind: 'truncate', sizeBytes: random.below(Math.min(baseBytes, model.sizeBytes)) };
        under.step = step;
        applyTo(file, step);
      }
      expect(moments).toBeGreaterThan(soak ? 1000 : 80);
    },
  );
});

/** Random steps, with power losses at random moments of them. Returns how many. */
function runScenario(random: Seeded, kind: Kind): number {
  using folder = new TempFolder();
  const place = placeOf(folder.file('disk.vhdx'), baseBytes, kind);
  const history = new History(baseBytes);
  const trace: string[] = [];
  onTestFailed(() => console.error(trace.join('\n')));
  let count = 0;
  const check = (file: KeptFile): void => expectNothingFlushedLost(file, history);
  using files = new FaultyFiles(folder.path, () => {
    // About 120 moments a scenario, of which the first ones make the files.
    if (count >= statesPerScenario || !random.oneIn(history.touched.size === 0 ? 3 : 6)) return;
    count++;
    if (random.oneIn(10)) count += loseItAgain(files, place, random, check);
    else withFileAfter(files, place, random, check);
    if (random.oneIn(5)) {
      using goingOn = new TempFolder();
      files.losePower(random, goingOn.path);
      const after = { ...place, path: goingOn.file('disk.vhdx') };
      using file = new KeptFile(after, otherBoots[0]);
      expectGoesOn(file, after, random);
    }
  });
  using file = new KeptFile(place);
  for (let number = 0; number < stepsPerScenario; number++) {
    const step = nextStep(random, history.now.sizeBytes, arena);
    trace.push(describeStep(step));
    history.begin(step);
    applyTo(file, step);
    if (step.kind === 'sync') history.flushed();
  }
  for (const name of Object.values(filesOf(place))) {
    expectSameBytes(files.contents(path.basename(name)) ?? Buffer.alloc(0), fs.readFileSync(name), 'what was recorded');
  }
  trace.length = 0;
  return count;
}
