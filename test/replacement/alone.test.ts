/**
 * Once a replacement serves alone, its data file is the disk, whoever writes to it: through Veneer or past it, as the kernel does. And its map
 * never claims that something is as synthesized which is not.
 */
import fs from 'node:fs';
import { describe, expect, it, onTestFailed } from 'vitest';
import { fallocate, fallocateMode } from '../../src/base/fallocate.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { unitCountOf } from '../../src/replacement/open.ts';
import { proveContents } from '../../src/fill/prove.ts';
import { regionCount } from '../../src/fill/filler.ts';
import { Replacement } from '../../src/replacement/replacement.ts';
import { changeState } from '../../src/replacement/states.ts';
import { readWrittenUnits } from '../../src/replacement/written-units.ts';
import { expectSameBytes, ModelDisk } from '../disk/model-disk.ts';
import { seededTest, soak, type Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { filesOf, KeptFile, kinds, otherBoots, placeOf, type Kind } from './kept-file.ts';
import { patternBase } from './pattern-base.ts';
import { applyTo, applyToModel, describeStep, modelOfBase, nextRange, nextStep, type Arena } from './random-steps.ts';

const timeoutMs = 1_800_000;
const baseBytes = 6 * unitBytes + 777;
const rounds = soak ? 300 : 8;
const stepsPerRound = soak ? 120 : 60;

function cutOver(file: KeptFile): void {
  changeState(file.open.parts, file.replacement.map, 'filling');
  for (let region = 0; region < regionCount(file.open.parts); region++)
    for (const bytes of file.filler.fill(region, () => 16)) expect(bytes).toBeGreaterThanOrEqual(0);
  file.replacement.sync();
  changeState(file.open.parts, file.replacement.map, 'complete', true);
}

/** What a guest does past Veneer, straight to the data file. */
function writeDirectly(file: KeptFile, random: Seeded, model: ModelDisk, arena: Arena): string {
  const direct = file.replacement.directFile;
  if (direct === undefined) throw new Error('a sealed file has no direct access');
  direct.allowWrites();
  const { offset, length } = nextRange(random, Math.min(model.sizeBytes + 2 * unitBytes, arena.to), arena);
  if (random.oneIn(4)) {
    const end = Math.min(offset + length, model.sizeBytes);
    expect(fallocate(direct.fd, fallocateMode.keepSize | fallocateMode.punchHole, offset, length)).toBe(0);
    if (end > offset) model.zero(offset, end - offset);
    return `punch ${length} bytes at ${offset} directly`;
  }
  const bytes = random.bytes(length);
  fs.writeSync(direct.fd, bytes, 0, length, offset);
  applyToModel(model, { kind: 'write', offset, bytes });
  return `write ${length} bytes at ${offset} directly`;
}

function expectHolds(file: KeptFile, model: ModelDisk): void {
  expect(file.sizeBytes).toBe(model.sizeBytes);
  expectSameBytes(file.read(0, model.sizeBytes), model.read(0, model.sizeBytes), 'the file');
}

/** Byte for byte: what the map calls unwritten is as synthesized, and where all is known, the proof holds. */
function expectHonest(file: KeptFile, place: ReturnType<typeof placeOf>, model: ModelDisk, base: ModelDisk): void {
  const isWritten = readWrittenUnits(place);
  for (let at = 0; at < model.sizeBytes; at += unitBytes) {
    const length = Math.min(unitBytes, model.sizeBytes - at);
    if (isWritten?.(at, length) !== false) continue;
    expectSameBytes(model.read(at, length), base.read(at, length), `unit at ${at}, which counts as unwritten,`);
  }
  const proof = proveContents(file.open.parts, patternBase(baseBytes, true));
  expect(proof.sizeBytes).toBe(model.sizeBytes);
  expect(proof.differences).toEqual([]);
  expect(proof.expectedSha256 ?? proof.replacementSha256).toBe(proof.replacementSha256);
  if (proof.isDirect) expect(proof.expectedSha256).toBeUndefined();
  let equalBytes = 0;
  for (let at = 0; at < Math.min(baseBytes, model.sizeBytes); at += unitBytes) {
    const length = Math.min(unitBytes, model.sizeBytes - at);
    if (model.read(at, length).equals(base.read(at, length))) equalBytes += length;
  }
  expect(proof.equalBytes).toBeLessThanOrEqual(equalBytes);
}

describe('a replacement that serves alone', () => {
  const cases = kinds.flatMap((kind: Kind) => Array.from({ length: rounds }, (_, round) => ({ kind, round })));

  it.each(cases)('reads as its model ($kind, round $round)', { timeout: timeoutMs }, ({ kind, round }) => {
    const random = seededTest(`alone ${kind} ${round}`);
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes, kind);
    const arena: Arena = { from: 0, to: 20 * unitBytes };
    const base = modelOfBase(baseBytes);
    const model = base.copy();
    const trace: string[] = [];
    onTestFailed(() => console.error(trace.slice(-20).join('\n')));
    let boot: string | undefined;
    let file = new KeptFile(place, boot);
    try {
      for (let number = 0; number < stepsPerRound; number++) {
        const isAlone = file.replacement.servesAlone;
        const dice = random.below(20);
        if (dice === 0) {
          if (random.oneIn(2)) {
            file.replacement.sync();
            boot = random.pick([undefined, ...otherBoots]);
          }
          trace.push(`open again in boot ${boot ?? 'of now'}`);
          file.close();
          file = new KeptFile(place, boot);
        } else if (!isAlone && number > stepsPerRound / 4) {
          trace.push('cut over');
          cutOver(file);
        } else if (isAlone && kind === 'plain' && dice < 5 && (round % 2 === 0 || number > stepsPerRound / 2)) {
          trace.push(writeDirectly(file, random, model, arena));
        } else {
          const step = nextStep(random, model.sizeBytes, arena);
          if (isAlone && ['fill', 'fill region', 'release'].includes(step.kind)) continue;
          trace.push(describeStep(step));
          applyTo(file, step);
          applyToModel(model, step);
        }
        expect(file.sizeBytes).toBe(model.sizeBytes);
        if (random.oneIn(4)) expectHolds(file, model);
        if (boot === undefined && random.oneIn(8)) expectHonest(file, place, model, base);
      }
      expectHolds(file, model);
      file.replacement.sync();
    } finally {
      file.close();
    }
    // Read by nobody of ours.
    if (kind === 'plain' && model.sizeBytes > 0)
      expectSameBytes(fs.readFileSync(filesOf(place).data), model.read(0, model.sizeBytes), 'the data file');
  });

  it.each(kinds)('(%s) grows past the last unit that its map has room for', (kind) => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes, kind);
    // The map's memory has room up to the end of a page.
    const beyond = (unitCountOf(baseBytes) + 16_384) * unitBytes + 5;
    {
      using file = new KeptFile(place);
      cutOver(file);
      file.replacement.write(Buffer.from('beyond'), beyond);
      file.replacement.discard(beyond + 2, 2);
      file.replacement.sync();
    }
    using again = new KeptFile(place);
    expect(again.sizeBytes).toBe(beyond + 6);
    expect(again.read(beyond - 3, 9).toString('latin1')).toBe('\0\0\0be\0\0nd');
    expect([...again.replacement.dataExtents(beyond - unitBytes, unitBytes + 6)].length).toBeGreaterThan(0);
    expect(readWrittenUnits(place)?.(beyond, 1)).toBe(true);
    expect(readWrittenUnits(place)?.(0, unitBytes)).toBe(false);
    again.replacement.truncate(baseBytes);
    expect(again.sizeBytes).toBe(baseBytes);
  });

  it('a write, or a discard, that fails does not cut off what was written past it meanwhile', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    using file = new KeptFile(place);
    cutOver(file);
    const direct = file.replacement.directFile;
    direct?.allowWrites();
    fs.writeSync(direct?.fd ?? -1, Buffer.from('grown'), 0, 5, baseBytes + 3 * unitBytes);
    file.replacement.growTo(baseBytes + unitBytes);
    expect(file.sizeBytes).toBe(baseBytes + 3 * unitBytes + 5);
    file.replacement.discard(baseBytes + 3 * unitBytes + 1, 2);
    expect(file.read(baseBytes + 3 * unitBytes, 9).toString('latin1')).toBe('g\0\0wn');
  });

  it('holds at the cut-over no byte that a guest has not seen', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    using file = new KeptFile(place);
    file.replacement.truncate(baseBytes + 5 * unitBytes);
    const grown = file.read(0, file.sizeBytes);
    changeState(file.open.parts, file.replacement.map, 'filling');
    for (const bytes of file.filler.fill(0, () => 16)) expect(bytes).toBeGreaterThanOrEqual(0);
    file.replacement.truncate(baseBytes + 20 * unitBytes);
    // As a thread leaves it that dies between the data and the map of a write, and one that dies in a write past the end.
    const fd = fs.openSync(filesOf(place).data, 'r+');
    fs.writeSync(fd, Buffer.from('never acknowledged'), 0, 18, baseBytes + 12 * unitBytes);
    fs.writeSync(fd, Buffer.from('never acknowledged'), 0, 18, baseBytes + 25 * unitBytes);
    fs.closeSync(fd);
    const whole = Buffer.concat([grown, Buffer.alloc(15 * unitBytes)]);
    expectSameBytes(file.read(0, file.sizeBytes), whole, 'before');
    changeState(file.open.parts, file.replacement.map, 'complete', true);
    expectSameBytes(file.read(0, file.sizeBytes), whole, 'after');
    expectSameBytes(fs.readFileSync(filesOf(place).data), whole, 'the data file');
  });

  it('does not rewrite the rest of a unit of which a part is written', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    using file = new KeptFile(place);
    cutOver(file);
    const direct = file.replacement.directFile;
    direct?.allowWrites();
    fs.writeSync(direct?.fd ?? -1, Buffer.alloc(unitBytes, 'G'), 0, unitBytes, 10 * unitBytes);
    const other = new Replacement(file.open.parts, patternBase(baseBytes, true));
    other.write(Buffer.from('small'), 10 * unitBytes + 100);
    other.discard(10 * unitBytes + 8192, 4096);
    const expected = Buffer.alloc(unitBytes, 'G');
    expected.write('small', 100);
    expected.fill(0, 8192, 12_288);
    expectSameBytes(file.read(10 * unitBytes, unitBytes), expected, 'the unit');
  });
});
