import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { CapacityError, TooLargeError, UnavailableError } from '../../src/base/errors.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { replacementStat } from '../../src/replacement/beside.ts';
import { thrownBy } from '../backup/image-holds.ts';
import { runInjected, systemCalls, whyNoStrace } from '../backup/strace.ts';
import { expectSameBytes, ModelDisk } from '../disk/model-disk.ts';
import { Seeded, seededTest, soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { contentsOf, expectNothingFlushedLost, expectStepDoneOrNot, History } from './interrupted.ts';
import { filesOf, KeptFile, kinds, otherBoots, placeOf } from './kept-file.ts';
import { applyTo, applyToModel, nextStep, type Arena, type Step } from './random-steps.ts';
import { SmallDisk, smallDisks, whyNoSmallDisk } from './small-disk.ts';
import type { WriteJob } from './write-script.ts';

const timeoutMs = 1_800_000;
const baseBytes = 8 * unitBytes + 1000;
const arena: Arena = { from: 0, to: 16 * unitBytes };

/** Does the step, or finds it refused for want of room, done in part at most. Returns what the file holds then, and whether it was refused. */
function attempt(file: KeptFile, model: ModelDisk, step: Step): { model: ModelDisk; refused: boolean } {
  try {
    applyTo(file, step);
  } catch (error) {
    expect(error).toBeInstanceOf(CapacityError);
    expectStepDoneOrNot(file, model, step);
    return { model: ModelDisk.of(contentsOf(file)), refused: true };
  }
  const after = model.copy();
  applyToModel(after, step);
  return { model: after, refused: false };
}

function expectHolds(file: KeptFile, model: ModelDisk): void {
  expectSameBytes(contentsOf(file), model.read(0, model.sizeBytes), 'the file');
}

describe('a replacement on a full disk', () => {
  it.for(smallDisks.flatMap((disk) => kinds.map((kind) => [disk, kind] as const)))(
    '(%s, %s data file) refuses what needs room, keeps the rest, and goes on when there is room again',
    { timeout: timeoutMs },
    ([disks, kind], ctx) => {
      const random = seededTest(`full ${disks} ${kind}`);
      const reason = whyNoSmallDisk(disks);
      if (reason !== undefined) ctx.skip(reason);
      for (let round = 0; round < (soak ? 20 : 1); round++) {
        using disk = new SmallDisk(disks, 16 * MiB);
        const place = placeOf(path.join(disk.path, 'disk.vhdx'), baseBytes, kind);
        let model: ModelDisk;
        {
          using file = new KeptFile(place);
          model = ModelDisk.of(contentsOf(file));
          const free = disk.leave(random.between(0, 3 * unitBytes));
          let refusals = 0;
          for (let step = 0; step < 100; step++) {
            const tried = attempt(file, model, nextStep(random, model.sizeBytes, arena));
            model = tried.model;
            if (tried.refused) refusals++;
            if (tried.refused || step % 20 === 0) expectHolds(file, model);
            expect(replacementStat(place)?.sizeBytes).toBe(file.sizeBytes);
          }
          expect(refusals).toBeGreaterThan(0);
          free();
          for (let step = 0; step < 30; step++) {
            const tried = attempt(file, model, nextStep(random, model.sizeBytes, arena));
            expect(tried.refused).toBe(false);
            model = tried.model;
          }
          file.replacement.sync();
          expectHolds(file, model);
        }
        using again = new KeptFile(place, otherBoots[0]);
        expectHolds(again, model);
      }
    },
  );

  it('cannot be made there, and can when there is room', (ctx) => {
    const reason = whyNoSmallDisk('tmpfs');
    if (reason !== undefined) ctx.skip(reason);
    using disk = new SmallDisk('tmpfs', MiB);
    const place = placeOf(path.join(disk.path, 'disk.vhdx'), baseBytes);
    const free = disk.leave(4 * KiB);
    expect(thrownBy(() => new KeptFile(place))).toBeInstanceOf(CapacityError);
    expect(fs.existsSync(filesOf(place).map)).toBe(false);
    free();
    using file = new KeptFile(place);
    expect(file.sizeBytes).toBe(baseBytes);
  });

  it('is refused growth past its own limit, and stays as it is', () => {
    using folder = new TempFolder();
    using file = new KeptFile(placeOf(folder.file('disk.vhdx'), baseBytes));
    const limitBytes = file.replacement.map.unitCount * unitBytes;
    expect(thrownBy(() => file.replacement.write(Buffer.alloc(2), limitBytes - 1))).toBeInstanceOf(TooLargeError);
    expect(thrownBy(() => file.replacement.truncate(limitBytes + 1))).toBeInstanceOf(TooLargeError);
    expect(file.sizeBytes).toBe(baseBytes);
    file.replacement.truncate(limitBytes);
    expect(file.sizeBytes).toBe(limitBytes);
  });
});

const script = path.join(import.meta.dirname, 'write-script.ts');
const noStrace = whyNoStrace();

describe('a process whose system call fails', () => {
  const smallBase = 6 * unitBytes + 1000;
  const small: Arena = { from: 0, to: 12 * unitBytes };

  function jobIn(folder: TempFolder, name: string, seed: string): { job: WriteJob; watched: string[] } {
    fs.mkdirSync(folder.file(name));
    const place = placeOf(path.join(folder.file(name), 'disk.vhdx'), smallBase);
    const { data, map } = filesOf(place);
    return {
      job: { place, arena: small, seed, steps: 40 },
      watched: [data, map, `${map}.veneer-part`, folder.file(name)],
    };
  }

  /**
   * What the file may hold, as far as the process's answers tell. A step that failed forks history: one with it, one without; of each sector
   * either may be true.
   */
  function replay(job: WriteJob, answers: readonly string[]): { histories: History[]; kinds: Array<Step['kind']> } {
    const random = new Seeded(job.seed);
    const histories = [new History(job.place.baseBytes)];
    const kinds: Array<Step['kind']> = [];
    for (const answer of answers) {
      const step = nextStep(random, histories[0]?.now.sizeBytes ?? 0, job.arena);
      kinds.push(step.kind);
      if (answer === 'done') {
        for (const history of histories) {
          history.begin(step);
          if (step.kind === 'sync') history.flushed();
        }
      } else if (histories.length === 1) {
        histories.push(...histories.map((history) => history.copy()));
        histories[0]?.begin(step);
        for (const history of histories) history.begin({ kind: 'truncate', sizeBytes: Number(answer.split(' ')[1]) });
      }
    }
    return { histories, kinds };
  }

  it.for([
    ['pwrite64', 'ENOSPC'],
    ['pwrite64', 'EIO'],
    ['ftruncate', 'ENOSPC'],
    ['fallocate', 'EOPNOTSUPP'],
    ['fdatasync', 'EIO'],
    ['fdatasync', 'ENOSPC'],
    ['fsync', 'EIO'],
    ['rename', 'EIO'],
  ] as const)(
    '%s, with %s, loses nothing that was flushed, and says what it could not do',
    { timeout: timeoutMs },
    ([syscall, what], ctx) => {
      if (noStrace !== undefined) ctx.skip(noStrace);
      const random = seededTest(`${syscall} ${what}`);
      using folder = new TempFolder();
      let [seed, count] = ['', 0];
      // Until the steps are such that the call is made.
      for (let tries = 0; count === 0 && tries < 20; tries++) {
        seed = `${random.seed} ${tries}`;
        const { job, watched } = jobIn(folder, `whole ${tries}`, seed);
        count = systemCalls([syscall], watched, script, [JSON.stringify(job)]).length;
      }
      expect(count).toBeGreaterThan(0);
      const every = soak ? 1 : Math.max(1, Math.floor(count / 2));
      for (let when = 1; when <= count; when += every) {
        const { job, watched } = jobIn(folder, String(when), seed);
        const run = runInjected({ syscall, what: `error=${what}`, when }, watched, script, [JSON.stringify(job)]);
        const where = `${what} at ${syscall} ${when} of ${count}: ${run.stderr}`;
        const [opened = '', ...steps] = run.stdout.split('\n').slice(0, -1);
        expect(run.stderr, where).toBe('');
        expect(run.status, where).toBe(opened === 'open' ? 0 : 3);
        const { histories, kinds } = replay(job, steps);
        const first = steps.findIndex((answer) => answer !== 'done');
        const failed = steps.filter((answer) => answer !== 'done');
        // A hole that cannot be made is written as zeros; all else is told.
        if (opened === 'open') expect(failed.length > 0, where).toBe(syscall !== 'fallocate');
        // A cut whose header could not be written ends all writing, as a flush does that failed.
        const poisoned = first >= 0 && (syscall === 'fdatasync' || (kinds[first] === 'truncate' && failed.length > 1));
        if (poisoned) for (const answer of steps.slice(first)) expect(answer, where).toMatch(/^UNAVAILABLE /);
        else expect(failed.length, where).toBeLessThanOrEqual(1);
        using file = new KeptFile(job.place);
        expectNothingFlushedLost(file, History.joined(histories, poisoned ? 'since the last flush' : 'now'));
        // The next process may write and flush again.
        file.replacement.write(Uint8Array.of(1), 0);
        file.replacement.sync();
      }
    },
  );
});

/** Does something while calls of a function of `fs` fail for which `fails` says so. */
function whileFailing(
  name: 'writeSync' | 'fdatasyncSync',
  code: string,
  fails: (fd: number) => boolean,
  action: () => void,
): void {
  const real = fs[name] as (fd: number, ...rest: unknown[]) => unknown;
  const instead = (fd: number, ...rest: unknown[]): unknown => {
    if (fails(fd)) throw Object.assign(new Error(`${code}: injected`), { code, syscall: name });
    return real(fd, ...rest);
  };
  Object.assign(fs, { [name]: instead });
  syncBuiltinESMExports();
  try {
    action();
  } finally {
    Object.assign(fs, { [name]: real });
    syncBuiltinESMExports();
  }
}

describe('a write whose bits find no room in the map', () => {
  it('is refused, changes nothing, and when it is tried again it is there for the next process', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.vhdx'), baseBytes);
    const pastEnd = baseBytes + unitBytes;
    {
      using file = new KeptFile(place);
      const before = ModelDisk.of(contentsOf(file));
      const { mapFd } = file.open.parts;
      const writeBoth = [
        () => file.replacement.write(Buffer.alloc(100, 1), unitBytes),
        () => file.replacement.write(Buffer.alloc(100, 2), pastEnd),
      ];
      whileFailing(
        'writeSync',
        'ENOSPC',
        (fd) => fd === mapFd,
        () => {
          for (const write of writeBoth) expect(thrownBy(write)).toBeInstanceOf(CapacityError);
          expectHolds(file, before);
        },
      );
      for (const write of writeBoth) write();
    }
    using again = new KeptFile(place);
    expect(again.read(unitBytes, 100)).toEqual(Buffer.alloc(100, 1));
    expect(again.read(pastEnd, 100)).toEqual(Buffer.alloc(100, 2));
    expect(again.sizeBytes).toBe(pastEnd + 100);
  });
});

describe('a flush that failed', () => {
  it.each([
    ['data file', 1],
    ['map', 2],
  ])('on the %s is not tried again, and the next mount goes back to what had been flushed', (_, failingCall) => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.vhdx'), baseBytes);
    {
      using file = new KeptFile(place);
      const { replacement } = file;
      replacement.write(Buffer.alloc(100, 1), 0);
      replacement.sync();
      replacement.write(Buffer.alloc(100, 2), 5 * unitBytes);
      let calls = 0;
      whileFailing(
        'fdatasyncSync',
        'EIO',
        () => ++calls === failingCall,
        () => {
          expect(thrownBy(() => replacement.sync())).toBeInstanceOf(UnavailableError);
        },
      );
      const refused = [
        () => replacement.sync(),
        () => replacement.write(Buffer.alloc(1), 0),
        () => replacement.truncate(1),
        () => replacement.discard(0, 1),
      ];
      for (const action of refused) expect(thrownBy(action)).toBeInstanceOf(UnavailableError);
      expect(file.read(5 * unitBytes, 100)).toEqual(Buffer.alloc(100, 2));
    }
    using again = new KeptFile(place);
    expect(again.read(0, 100)).toEqual(Buffer.alloc(100, 1));
    if (failingCall === 1) expect(again.replacement.map.isPresent(5)).toBe(false);
    again.replacement.write(Buffer.alloc(100, 3), 5 * unitBytes);
    again.replacement.sync();
  });
});
