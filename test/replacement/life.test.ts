/** The states of a replacement, from interception to the disk file in the plugin file's place, and what a kill at any call leaves of them. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.ts';
import { finalizeFiles } from '../../src/fill/finalize.ts';
import { regionCount } from '../../src/fill/filler.ts';
import { replacementStates, unitBytes, type ReplacementState } from '../../src/replacement/layout.ts';
import { removeLeftovers } from '../../src/replacement/leftovers.ts';
import { hasReplacement } from '../../src/plugin/beside.ts';
import { Replacement } from '../../src/replacement/replacement.ts';
import { changeState, stateOf } from '../../src/replacement/states.ts';
import { proveContents } from '../../src/fill/prove.ts';
import { Verifier } from '../../src/fill/verify.ts';
import { runInjected, systemCalls, whyNoStrace } from '../backup/strace.ts';
import { expectSameBytes } from '../disk/model-disk.ts';
import { soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { filesOf, KeptFile, kinds, otherBoots, placeOf, pluginText } from './kept-file.ts';
import { lifeWrites } from './life-writes.ts';
import { patternBase, sectorBytes } from './pattern-base.ts';

const timeoutMs = 1_800_000;
const script = path.join(import.meta.dirname, 'life-script.ts');
const baseBytes = 9 * unitBytes + 1000;
const plugin = pluginText();
const syscalls = ['pwrite64', 'ftruncate', 'fdatasync', 'fsync', 'rename', 'unlink', 'fchmod'];
const maxKills = soak ? Infinity : 6;

function baseContents(): Buffer {
  const bytes = Buffer.alloc(baseBytes);
  patternBase(baseBytes, true).read(bytes, 0);
  return bytes;
}

/** Every sector is as it was or as it was written; what was acknowledged is as it was written. */
function expectContents(found: Buffer, acknowledged: ReadonlySet<string>, what: string): void {
  const base = baseContents();
  const written = Buffer.from(base);
  const certain = Buffer.from(base);
  for (const [name, { offset, lengthBytes, fill }] of Object.entries(lifeWrites)) {
    written.fill(fill, offset, offset + lengthBytes);
    if (acknowledged.has(name)) certain.fill(fill, offset, offset + lengthBytes);
  }
  expect(found.length, what).toBe(baseBytes);
  for (let at = 0; at < baseBytes; at += sectorBytes) {
    const sector = found.subarray(at, at + sectorBytes);
    if (sector.equals(written.subarray(at, at + sectorBytes))) continue;
    expectSameBytes(sector, certain.subarray(at, at + sectorBytes), `${what}: sector at ${at}`);
  }
}

function contentsNow(place: ReturnType<typeof placeOf>): Buffer {
  if (fs.readFileSync(place.path).length === baseBytes) return fs.readFileSync(place.path);
  if (!hasReplacement(place.path)) return baseContents();
  using file = new KeptFile(place);
  return file.read(0, file.sizeBytes);
}

function fillAll(file: KeptFile): void {
  for (let region = 0; region < regionCount(file.open.parts); region++)
    for (const bytes of file.filler.fill(region, () => 16)) expect(bytes).toBeGreaterThanOrEqual(0);
}

/** How many units a verification had to copy again, and how many it took for the guest's. */
function verifyAll(file: KeptFile): { repaired: number; adopted: number } {
  const verifier = new Verifier(file.open.parts, patternBase(baseBytes, true));
  for (let region = 0; region < regionCount(file.open.parts); region++)
    for (const bytes of verifier.verify(region)) expect(bytes).toBeGreaterThan(0);
  return { repaired: verifier.repairedUnits, adopted: verifier.adoptedUnits };
}

describe('the life of a replacement', () => {
  it.for(kinds)(
    '(%s) that is killed at any call loses nothing acknowledged, and goes on to its end',
    { timeout: timeoutMs },
    (kind, ctx) => {
      const noStrace = whyNoStrace();
      if (noStrace !== undefined) ctx.skip(noStrace);
      using folder = new TempFolder();
      const startAfresh = (name: string): { place: ReturnType<typeof placeOf>; watched: string[] } => {
        fs.mkdirSync(folder.file(name));
        const place = placeOf(path.join(folder.file(name), 'disk.raw'), baseBytes, kind);
        fs.writeFileSync(place.path, plugin);
        const { data, map } = filesOf(place);
        const plain = `${data}-plain.veneer-part`;
        const record = `${place.path}.finalized`;
        const made = [data, map, `${map}.veneer-part`, plain, place.path, record, `${record}.veneer-part`];
        return { place, watched: [...made, folder.file(name)] };
      };
      const whole = startAfresh('whole');
      const calls = systemCalls(syscalls, whole.watched, script, [JSON.stringify(whole.place)]);
      expect(new Set(calls)).toEqual(new Set(syscalls));
      const every = Math.max(1, Math.ceil(calls.length / (kind === 'plain' ? maxKills : maxKills / 2)));
      // Behind the rename into the plugin file's place, what is left over is to be cleared away: all of these.
      const inPlace = calls.lastIndexOf('rename');
      let kills = 0;
      for (const [index, syscall] of calls.entries()) {
        if (index % every !== 0 && (kind === 'plain' || index < inPlace)) continue;
        const when = calls.slice(0, index + 1).filter((other) => other === syscall).length;
        const { place, watched } = startAfresh(`${syscall} ${when}`);
        const argument = [JSON.stringify(place)];
        const run = runInjected({ syscall, what: 'signal=SIGKILL', when }, watched, script, argument);
        expect(run.signal, `${syscall} ${when}: ${run.stderr}`).toBe('SIGKILL');
        kills++;
        const acknowledged = new Set(run.stdout.split('\n').slice(0, -1));
        const what = `after a kill at ${syscall} ${when}`;
        expectContents(contentsNow(place), acknowledged, what);
        if (fs.readFileSync(place.path).length !== baseBytes) {
          expect(fs.readFileSync(place.path, 'utf8')).toBe(plugin);
          const again = spawnSync(process.execPath, [script, ...argument], { encoding: 'utf8' });
          expect(again.stdout, `${what}: ${again.stderr}`).toMatch(
            kind === 'plain' ? /final\nfinal written\n$/ : /final written\nfinal\n$/,
          );
        }
        // In its place, readable with nothing of ours, and the record beside it.
        expectContents(fs.readFileSync(place.path), acknowledged, `${what}, at the end`);
        expect(fs.readFileSync(`${place.path}.finalized`, 'utf8')).toBe(plugin);
        removeLeftovers(path.dirname(place.path));
        expect(fs.readdirSync(path.dirname(place.path)).sort(), what).toEqual(['disk.raw', 'disk.raw.finalized']);
      }
      console.info(`killed at ${kills} of ${calls.length} calls`);
    },
  );

  it.each(replacementStates)('is found %s again', (state) => {
    const ways: Record<ReplacementState, ReplacementState[]> = {
      intercepting: [],
      filling: ['filling'],
      paused: ['filling', 'paused'],
      complete: ['filling', 'complete'],
      final: ['filling', 'complete', 'final'],
      failed: ['filling', 'failed'],
    };
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    {
      using file = new KeptFile(place);
      for (const next of ways[state]) changeState(file.open.parts, file.replacement.map, next);
    }
    using again = new KeptFile(place);
    expect(stateOf(again.open.parts)).toBe(state);
  });

  it('takes no way that the machine does not have, and says why', () => {
    using folder = new TempFolder();
    using file = new KeptFile(placeOf(folder.file('disk.raw'), baseBytes));
    const { parts } = file.open;
    const go = (to: ReplacementState) => () => changeState(parts, file.replacement.map, to);
    expect(go('paused')).toThrow(UsageError);
    expect(go('complete')).toThrow(/no fill was started/);
    go('filling')();
    expect(go('final')).toThrow(/is being filled/);
    go('complete')();
    expect(go('intercepting')).toThrow(/veneer finalize/);
    expect(stateOf(parts)).toBe('complete');
  });

  it('reads nothing of the synthesized file once it is complete', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    using file = new KeptFile(place);
    file.replacement.write(Buffer.alloc(100, 7), 10);
    fillAll(file);
    file.replacement.sync();
    changeState(file.open.parts, file.replacement.map, 'filling');
    changeState(file.open.parts, file.replacement.map, 'complete', true);
    const broken = {
      sizeBytes: baseBytes,
      read: () => {
        throw new Error('the image was read');
      },
    };
    const alone = new Replacement(file.open.parts, broken);
    alone.write(Buffer.alloc(10, 9), baseBytes + 3 * unitBytes);
    const expected = baseContents();
    expected.fill(7, 10, 110);
    const found = Buffer.alloc(baseBytes + unitBytes, 0xa5);
    alone.read(found, 0);
    expectSameBytes(found.subarray(0, baseBytes), expected, 'the file');
    expectSameBytes(found.subarray(baseBytes), Buffer.alloc(unitBytes), 'what it has grown by');
  });
});

describe('verification', () => {
  it('finds units that the disk below did not keep, and copies them again', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    using file = new KeptFile(place);
    file.replacement.write(Buffer.alloc(512, 7), 0);
    fillAll(file);
    file.replacement.sync();
    const fd = fs.openSync(filesOf(place).data, 'r+');
    fs.writeSync(fd, Buffer.from('decay'), 0, 5, 4 * unitBytes + 77);
    // In a unit that is zero, and so a hole.
    fs.writeSync(fd, Buffer.from('decay'), 0, 5, 2 * unitBytes + 9);
    fs.closeSync(fd);
    const before = proveContents(file.open.parts, patternBase(baseBytes, true));
    expect(before.replacementSha256).not.toBe(before.expectedSha256);
    expect(before.differences).toEqual([2 * unitBytes, 4 * unitBytes]);
    expect(verifyAll(file)).toEqual({ repaired: 2, adopted: 0 });
    const after = proveContents(file.open.parts, patternBase(baseBytes, true));
    expect(after.replacementSha256).toBe(after.expectedSha256);
    expect(after).toMatchObject({ writtenUnits: 1, missingUnits: 0, differences: [] });
  });

  it('takes what differs after a power loss for the guest’s own, and never gives it back to the image', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    {
      using file = new KeptFile(place);
      changeState(file.open.parts, file.replacement.map, 'filling');
      fillAll(file);
      file.replacement.sync();
      // Reaches the disk; its bit does not.
      file.replacement.write(Buffer.alloc(512, 7), 5 * unitBytes);
    }
    using file = new KeptFile(place, otherBoots[0]);
    expectSameBytes(file.read(5 * unitBytes, 512), Buffer.alloc(512, 7), 'the unit');
    expect(verifyAll(file)).toEqual({ repaired: 0, adopted: 1 });
    expectSameBytes(file.read(5 * unitBytes, 512), Buffer.alloc(512, 7), 'the unit after verification');
  });
});

describe('what an interrupted finalize may have left', () => {
  it.for(kinds)('(%s) stays, unless the disk file is in its place and nothing else is left to become it', (kind) => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes, kind);
    {
      using file = new KeptFile(place);
      fillAll(file);
      file.replacement.sync();
      for (const state of ['filling', 'complete', 'final'] as const)
        changeState(file.open.parts, file.replacement.map, state);
    }
    const names = (): string[] => folder.names().sort();
    const kept = ['disk.raw.replacement', 'disk.raw.replacement-map'];
    const expectKept = (...others: string[]): void => {
      expect(removeLeftovers(folder.path)).toEqual([]);
      expect(names()).toEqual([...kept, ...others].sort());
    };
    expectKept();
    folder.write('disk.raw', plugin);
    expectKept('disk.raw');
    folder.write('disk.raw.finalized', plugin);
    expectKept('disk.raw', 'disk.raw.finalized');
    fs.rmSync(folder.file('disk.raw'));
    expectKept('disk.raw.finalized');
    // A damaged plugin file is no disk file.
    folder.write('disk.raw', plugin.slice(0, -20));
    expectKept('disk.raw', 'disk.raw.finalized');
    folder.write('disk.raw', 'a disk');
    folder.write('disk.raw.replacement-plain.veneer-part', 'a disk');
    expectKept('disk.raw', 'disk.raw.finalized', 'disk.raw.replacement-plain.veneer-part');
    fs.rmSync(folder.file('disk.raw.replacement-plain.veneer-part'));
    // A plain one that has not been renamed is the only one there is.
    if (kind === 'plain') expectKept('disk.raw', 'disk.raw.finalized');
    else expect(removeLeftovers(folder.path)).toEqual([place.path]);
    fs.rmSync(filesOf(place).data, { force: true });
    removeLeftovers(folder.path);
    expect(names()).toEqual(['disk.raw', 'disk.raw.finalized']);
  });
});

describe('finalizing', () => {
  it('is refused where another file has the name of one that only the mount has, and changes nothing', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk-flat.vmdk'), baseBytes);
    folder.write('disk.vmdk', plugin);
    folder.write('disk-flat.vmdk', 'of another disk');
    using file = new KeptFile(place);
    fillAll(file);
    for (const state of ['filling', 'complete'] as const) changeState(file.open.parts, file.replacement.map, state);
    const names = folder.names();
    expect(() => finalizeFiles(folder.file('disk.vmdk'), [{ path: place.path, parts: file.open.parts }])).toThrow(
      /disk-flat\.vmdk: is in the way of the disk file/,
    );
    expect(folder.names()).toEqual(names);
    expect(stateOf(file.open.parts)).toBe('complete');
  });

  it('is refused before all is there, and changes nothing', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    folder.write('disk.raw', plugin);
    using file = new KeptFile(place);
    file.replacement.write(Buffer.alloc(1), 0);
    const names = folder.names();
    expect(() => finalizeFiles(place.path, [{ path: place.path, parts: file.open.parts }])).toThrow(
      /no fill was started/,
    );
    expect(folder.names()).toEqual(names);
    expect(stateOf(file.open.parts)).toBe('intercepting');
  });

  it('keeps an earlier record, and gives the disk file the plugin file’s owner and mode', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes);
    folder.write('disk.raw', plugin);
    fs.chmodSync(place.path, 0o640);
    folder.write('disk.raw.finalized', 'of another time');
    using file = new KeptFile(place);
    fillAll(file);
    changeState(file.open.parts, file.replacement.map, 'filling');
    changeState(file.open.parts, file.replacement.map, 'complete', true);
    const { record, clearAway } = finalizeFiles(place.path, [{ path: place.path, parts: file.open.parts }]);
    clearAway();
    expect(fs.readFileSync(record, 'utf8')).toBe(plugin);
    expect(fs.readFileSync(`${place.path}.finalized`, 'utf8')).toBe('of another time');
    expect(fs.statSync(place.path).mode & 0o777).toBe(0o640);
    expectSameBytes(fs.readFileSync(place.path), baseContents(), 'the disk file');
    expect(folder.names().sort()).toEqual(
      [path.basename(place.path), path.basename(record), 'disk.raw.finalized'].sort(),
    );
    // Whoever has it open goes on.
    file.replacement.write(Buffer.alloc(512, 3), 1024);
    expect(fs.readFileSync(place.path).subarray(1024, 1536)).toEqual(Buffer.alloc(512, 3));
  });
});
