/** The disk file takes the plugin file's place, and power is lost at any moment of it. */
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { UnavailableError, UsageError } from '../../src/base/errors.ts';
import { freeze, writePlain } from '../../src/fill/decrypt.ts';
import { finalizeFiles, isInPlace, type FinalizedFile, type Placed, type Placement } from '../../src/fill/finalize.ts';
import { regionCount } from '../../src/fill/filler.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { removeLeftovers } from '../../src/replacement/leftovers.ts';
import type { ReplacementPlace } from '../../src/replacement/open.ts';
import { shared } from '../../src/replacement/shared.ts';
import type { ReplacementState } from '../../src/replacement/layout.ts';
import { changeState, stateOf } from '../../src/replacement/states.ts';
import { thrownBy } from '../backup/image-holds.ts';
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

function isDisk(place: ReplacementPlace): boolean {
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
      if (isDisk(after)) inPlace++;
      else expect(isDone, 'what was said to be in its place is not').toBe(false);
      if (isDisk(after)) expectInPlace(after, contents);
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

/** A disk of two files that serves alone: the plugin file's own, and one that only the mount has. */
class TwoFiles implements Disposable {
  readonly folder = new TempFolder();
  readonly main: KeptFile;
  readonly flat: KeptFile;
  readonly mainPath = this.folder.write('vm.vmdk', plugin);
  readonly flatPath = this.folder.file('vm-flat.vmdk');

  constructor() {
    [this.main, this.flat] = [this.mainPath, this.flatPath].map((path, index) => {
      const file = new KeptFile(placeOf(path, baseBytes));
      file.replacement.write(Buffer.alloc(baseBytes, index + 1), 0);
      changeState(file.open.parts, file.replacement.map, 'filling');
      changeState(file.open.parts, file.replacement.map, 'complete', true);
      return file;
    }) as [KeptFile, KeptFile];
  }

  get files(): FinalizedFile[] {
    return [
      { path: this.mainPath, parts: this.main.open.parts },
      { path: this.flatPath, parts: this.flat.open.parts },
    ];
  }

  get contents(): string[] {
    return this.folder.names().map((name) => `${name} ${fs.readFileSync(this.folder.file(name), 'latin1')}`);
  }

  [Symbol.dispose](): void {
    this.main.close();
    this.flat.close();
    this.folder.remove();
  }
}

const finished = ['vm-flat.vmdk', 'vm.vmdk', 'vm.vmdk.finalized'];

describe('a disk of two files', () => {
  it('is put into its place behind what only the mount had, while names stay, and a mount takes part in each', () => {
    using disk = new TwoFiles();
    const descriptors = fs.readdirSync('/proc/self/fd').length;
    const pluginIno = fs.statSync(disk.mainPath).ino;
    const placed: string[] = [];
    let isHeld = false;
    const placement: Placement = {
      whileNamesStay(action) {
        isHeld = true;
        const result = action();
        isHeld = false;
        return result;
      },
      place({ plugin: stat, part, fd, parts }, rename) {
        expect([isHeld, Number(stat.ino)]).toEqual([true, pluginIno]);
        expect(new BigInt64Array(parts.numbers)[shared.direct]).toBe(0n);
        rename();
        expect(new BigInt64Array(parts.numbers)[shared.direct]).toBe(1n);
        expect(fs.fstatSync(fd).ino).toBe(fs.statSync(path.join(disk.folder.path, parts.name)).ino);
        expect(fs.writeSync(fd, Buffer.of(9), 0, 1, 0)).toBe(1);
        placed.push(part);
      },
    };
    const { record, clearAway } = finalizeFiles(disk.mainPath, disk.files, placement);
    expect(placed).toEqual(['vm-flat.vmdk', '']);
    expect(record).toBe(`${disk.mainPath}.finalized`);
    clearAway();
    expect(disk.folder.names()).toEqual(finished);
    expect([disk.mainPath, disk.flatPath].map((file) => [...fs.readFileSync(file).subarray(0, 2)])).toEqual([
      [9, 1],
      [9, 2],
    ]);
    expect(fs.readdirSync('/proc/self/fd').length).toBe(descriptors);
  });

  it('of which one was put into its place before an attempt failed is finished by the next', () => {
    using disk = new TwoFiles();
    const [, flat] = disk.files;
    const { pluginId } = disk.main.open.parts;
    expect(isInPlace(disk.flatPath, pluginId)).toBe(false);
    const failing: Placement = {
      whileNamesStay: (action) => action(),
      place({ part }, rename) {
        if (part === '') throw new Error('no further');
        rename();
      },
    };
    expect(thrownBy(() => finalizeFiles(disk.mainPath, disk.files, failing))).toBeInstanceOf(UnavailableError);
    expect(fs.readFileSync(disk.mainPath, 'utf8')).toBe(plugin);
    expect(isInPlace(disk.flatPath, pluginId)).toBe(true);
    expect(isInPlace(disk.flatPath, otherBoots[0])).toBe(false);
    expect(flat?.path).toBe(disk.flatPath);
    const again = disk.files.map((file) => (file.path === disk.flatPath ? { ...file, parts: undefined } : file));
    finalizeFiles(disk.mainPath, again).clearAway();
    expect(disk.folder.names()).toEqual(finished);
    expect(fs.readFileSync(disk.flatPath)).toEqual(Buffer.alloc(baseBytes, 2));
  });

  it('is not in its place where the name is missing, is no file, or the replacement is not final', () => {
    using disk = new TwoFiles();
    const { pluginId } = disk.flat.open.parts;
    fs.writeFileSync(disk.flatPath, 'a file');
    expect(isInPlace(disk.flatPath, pluginId)).toBe(false);
    changeState(disk.flat.open.parts, disk.flat.replacement.map, 'final');
    expect(isInPlace(disk.flatPath, pluginId)).toBe(true);
    fs.rmSync(disk.flatPath);
    expect(isInPlace(disk.flatPath, pluginId)).toBe(false);
    fs.mkdirSync(disk.flatPath);
    expect(isInPlace(disk.flatPath, pluginId)).toBe(false);
  });
});

describe('nothing is changed', () => {
  it('where another file has the name of one that only the mount had', () => {
    using disk = new TwoFiles();
    fs.writeFileSync(disk.flatPath, 'precious');
    const before = disk.contents;
    expect(() => finalizeFiles(disk.mainPath, disk.files)).toThrow(/vm-flat\.vmdk: is in the way/);
    expect(disk.contents).toEqual(before);
  });

  it.each([
    ['intercepting', [], /no fill was started/],
    ['filling', ['filling'], /is still being filled/],
    ['paused', ['filling', 'paused'], /is paused/],
    ['failed', ['filling', 'failed'], /has failed/],
  ] as const)('where one of the files is %s', (state, ways: readonly ReplacementState[], why) => {
    using disk = new TwoFiles();
    const place = placeOf(disk.folder.file('vm-other.vmdk'), baseBytes);
    using other = new KeptFile(place);
    for (const way of ways) changeState(other.open.parts, other.replacement.map, way);
    const before = disk.contents;
    const files = [...disk.files, { path: place.path, parts: other.open.parts }];
    const error = thrownBy(() => finalizeFiles(disk.mainPath, files));
    expect(error).toBeInstanceOf(UsageError);
    expect(String(error)).toMatch(why);
    expect(disk.contents).toEqual(before);
    expect([disk.main, disk.flat, other].map((file) => stateOf(file.open.parts))).toEqual([
      'complete',
      'complete',
      state,
    ]);
  });
});

it.runIf(process.geteuid?.() === 0)('the disk file belongs to whom the plugin file belonged', () => {
  using disk = new TwoFiles();
  fs.chownSync(disk.mainPath, 1234, 2345);
  fs.chmodSync(disk.mainPath, 0o664);
  finalizeFiles(disk.mainPath, disk.files).clearAway();
  for (const file of [disk.mainPath, disk.flatPath]) {
    const { uid, gid, mode } = fs.statSync(file);
    expect([uid, gid, mode & 0o777]).toEqual([1234, 2345, 0o664]);
  }
});
