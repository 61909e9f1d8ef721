/** The disk file takes the plugin file's place, and power is lost at any moment of it. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { freeze, writePlain } from '../../src/fill/decrypt.ts';
import { finalizeFiles, type Placed } from '../../src/fill/finalize.ts';
import { regionCount } from '../../src/fill/filler.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { removeLeftovers } from '../../src/replacement/leftovers.ts';
import type { ReplacementPlace } from '../../src/replacement/open.ts';
import { changeState } from '../../src/replacement/states.ts';
import { expectSameBytes } from '../disk/model-disk.ts';
import { FaultyFiles } from '../replacement/faulty-files.ts';
import { KeptFile, kinds, otherBoots, placeOf, pluginText, type Kind } from '../replacement/kept-file.ts';
import { seededTest, soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

const baseBytes = 3 * unitBytes + 1000;
const plugin = pluginText();
const pluginMode = 0o640;
const rounds = soak ? 200 : 4;
/** Of what a power loss may leave of one moment. */
const drawsAtTheEnd = 8;

/** A replacement that serves alone, beside its plugin file. */
function complete(folder: TempFolder, kind: Kind): { place: ReplacementPlace; contents: Buffer } {
  const place = placeOf(folder.write('disk.raw', plugin), baseBytes, kind);
  fs.chmodSync(place.path, pluginMode);
  using file = new KeptFile(place);
  file.replacement.write(Buffer.alloc(5000, 0xd7), unitBytes - 700);
  changeState(file.open.parts, file.replacement.map, 'filling');
  for (let region = 0; region < regionCount(file.open.parts); region++)
    for (const bytes of file.filler.fill(region, () => 16)) expect(bytes).toBeGreaterThanOrEqual(0);
  file.replacement.sync();
  changeState(file.open.parts, file.replacement.map, 'complete', true);
  return { place, contents: file.read(0, baseBytes) };
}

/** @param written before anything is put into its place, and not flushed */
function finalize(file: KeptFile, place: ReplacementPlace): Placed {
  const { parts } = file.open;
  if (place.isSealed) {
    freeze(parts);
    writePlain(parts, place.path);
  }
  return finalizeFiles(place.path, [{ path: place.path, parts }]);
}

/** Its name reads as the disk, with the plugin file's rights and its record, and with nothing else once the next mount has come. */
function expectInPlace(place: ReplacementPlace, contents: Buffer): void {
  expectSameBytes(fs.readFileSync(place.path), contents, 'the disk file');
  expect(fs.statSync(place.path).mode & 0o777).toBe(pluginMode);
  const folder = path.dirname(place.path);
  expect(fs.readFileSync(`${place.path}.finalized`, 'utf8')).toBe(plugin);
  removeLeftovers(folder);
  expect(fs.readdirSync(folder).sort()).toEqual(['disk.raw', 'disk.raw.finalized']);
}

/** It serves alone from what lies beside the plugin file, and may be finalized again. */
function expectGoesOn(place: ReplacementPlace, contents: Buffer): void {
  {
    using file = new KeptFile(place, otherBoots[0]);
    expect(file.replacement.servesAlone).toBe(true);
    expectSameBytes(file.read(0, baseBytes), contents, 'the replacement');
    finalize(file, place).clearAway();
  }
  expectInPlace(place, contents);
}

function isInPlace(place: ReplacementPlace): boolean {
  return fs.readFileSync(place.path, 'latin1') !== plugin;
}

it.for(kinds)('after a power loss at any moment (%s data file) the name reads as the disk', (kind) => {
  const random = seededTest(`power loss in finalize ${kind}`);
  let [moments, inPlace] = [0, 0];
  for (let round = 0; round < rounds; round++) {
    using folder = new TempFolder();
    const { place, contents } = complete(folder, kind);
    const loseAndLook = (isDone: boolean): void => {
      using lost = new TempFolder();
      files.losePower(random, lost.path);
      const after = { ...place, path: lost.file('disk.raw') };
      moments++;
      if (isInPlace(after)) inPlace++;
      else expect(isDone, 'what was said to be in its place is not').toBe(false);
      if (isInPlace(after)) expectInPlace(after, contents);
      else expectGoesOn(after, contents);
    };
    let isWatching = true;
    using files = new FaultyFiles(folder.path, () => {
      if (!isWatching) return;
      isWatching = false;
      loseAndLook(false);
      isWatching = true;
    });
    isWatching = false;
    using file = new KeptFile(place);
    isWatching = true;
    const { clearAway } = finalize(file, place);
    isWatching = false;
    for (let draw = 0; draw < drawsAtTheEnd; draw++) loseAndLook(true);
    clearAway();
    for (let draw = 0; draw < drawsAtTheEnd; draw++) loseAndLook(true);
  }
  console.info(`${moments} moments, of which ${inPlace} were with the disk file in its place`);
  expect(inPlace).toBeGreaterThan(rounds * drawsAtTheEnd);
});
