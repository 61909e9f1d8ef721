/** Image creation, killed or lied to at each of its system calls that change something. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UsageError } from '../../../src/base/errors.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openChain } from '../../../src/backup/read/chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { Seeded, soak } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds, thrownBy } from '../image-holds.ts';
import { SourceDisk } from '../source-disk.ts';
import { readOrRefuse } from '../tiny-image.ts';
import { runInjected, strikes, systemCalls, whyNoStrace } from '../strace.ts';

const script = path.join(import.meta.dirname, '..', 'create-image-script.ts');
const noStrace = whyNoStrace();
const timeoutMs = 600_000;
const options = JSON.stringify({ blockBytes: 16 * KiB, codec: 'lz4' });
/** Done on the image's file or its folder, in the order in which they first occur. */
const syscalls = ['openat', 'flock', 'ftruncate', 'pwrite64', 'fdatasync', 'rename', 'fsync'] as const;

let folder: TempFolder;
let source: SourceDisk;
let imageFolder: string;
let imagePath: string;
let unfinished: string;
let watched: string[];

beforeAll(() => {
  folder = new TempFolder();
  // Two leaves of 8 MiB with several batches of records each.
  source = new SourceDisk(folder.file('source.raw'), 12 * MiB + 512);
  const random = new Seeded('crash');
  source.write(100, random.bytes(2.3 * MiB));
  source.write(9 * MiB, random.bytes(1.2 * MiB));
  imageFolder = folder.file('images');
  imagePath = path.join(imageFolder, 'disk.spf');
  unfinished = `${imagePath}.veneer-part`;
  watched = [imagePath, unfinished, imageFolder];
  fs.mkdirSync(imageFolder);
});
afterAll(() => folder.remove());

function startAfresh(): void {
  fs.rmSync(imageFolder, { recursive: true, force: true });
  fs.mkdirSync(imageFolder);
}

function create(): Promise<unknown> {
  return createImage(source.path, imagePath, { blockBytes: 16 * KiB, codec: 'lz4' });
}

/** Nothing opens as an image, or the image is there, complete. Says which. */
function expectNothingOrAll(): 'nothing' | 'all' {
  if (fs.existsSync(imagePath)) {
    expectImageHolds(imagePath, source.model);
    return 'all';
  }
  for (const name of fs.readdirSync(imageFolder)) {
    expect(name).toBe(path.basename(unfinished));
    expect(thrownBy(() => openChain(path.join(imageFolder, name)))).toBeInstanceOf(UsageError);
  }
  return 'nothing';
}

/** How often an undisturbed creation makes the call. */
function countOf(syscall: string): number {
  startAfresh();
  const count = systemCalls([syscall], watched, script, [source.path, imagePath, options]).length;
  expect(count).toBeGreaterThan(0);
  expect(expectNothingOrAll()).toBe('all');
  return count;
}

describe('an image', () => {
  it('is flushed before it is committed, and committed before it has its name: a power loss leaves all or nothing', (ctx) => {
    if (noStrace !== undefined) ctx.skip(noStrace);
    startAfresh();
    const traced = ['pwrite64', 'write', 'fdatasync', 'fsync', 'rename', 'ftruncate'];
    const calls = systemCalls(traced, watched, script, [source.path, imagePath, options]);
    const data = calls.lastIndexOf('pwrite64', calls.lastIndexOf('pwrite64') - 1) + 1;
    expect(new Set(calls.slice(1, data))).toEqual(new Set(['pwrite64']));
    expect(calls.slice(data)).toEqual(['fdatasync', 'pwrite64', 'fdatasync', 'rename', 'fsync']);
  });

  it.for(syscalls)(
    'killed at any %s is not there, or is complete; a rerun succeeds',
    { timeout: timeoutMs },
    async (syscall, ctx) => {
      if (noStrace !== undefined) ctx.skip(noStrace);
      const count = countOf(syscall);
      for (const when of strikes(count, true)) {
        startAfresh();
        const run = runInjected({ syscall, what: 'signal=SIGKILL', when }, watched, script, [
          source.path,
          imagePath,
          options,
        ]);
        expect(run.signal, `killed at ${syscall} ${when} of ${count}: ${run.stderr}`).toBe('SIGKILL');
        if (expectNothingOrAll() === 'nothing') await create();
        expect(fs.readdirSync(imageFolder)).toEqual([path.basename(imagePath)]);
        expectImageHolds(imagePath, source.model);
      }
    },
  );

  for (const [what, calls] of [
    ['ENOSPC', ['openat', 'ftruncate', 'pwrite64', 'fdatasync', 'rename', 'fsync']],
    ['EIO', soak ? syscalls : ['flock', 'pwrite64', 'fdatasync']],
  ] as const) {
    it.for([...calls])(
      `that meets ${what} at any %s is an error of one line and leaves nothing, or is complete`,
      { timeout: timeoutMs },
      (syscall, ctx) => {
        if (noStrace !== undefined) ctx.skip(noStrace);
        const count = countOf(syscall);
        for (const when of strikes(count, true)) {
          startAfresh();
          const run = runInjected({ syscall, what: `error=${what}`, when }, watched, script, [
            source.path,
            imagePath,
            options,
          ]);
          const where = `${what} at ${syscall} ${when} of ${count}: ${run.stderr}`;
          const outcome = expectNothingOrAll();
          if (run.status === 0) {
            expect(outcome, where).toBe('all');
            continue;
          }
          expect(run.status, where).toBe(3);
          expect(run.stderr.trimEnd().split('\n'), where).toHaveLength(1);
          expect(run.stderr, where).toMatch(/images/);
          if (outcome === 'nothing') expect(fs.readdirSync(imageFolder), where).not.toContain(path.basename(imagePath));
          if (syscall !== 'flock') expect(fs.existsSync(unfinished), where).toBe(false);
        }
      },
    );
  }

  it('whose write is reported as done in part goes on with the rest', { timeout: timeoutMs }, (ctx) => {
    if (noStrace !== undefined) ctx.skip(noStrace);
    const count = countOf('pwrite64');
    for (const number of strikes(count, true)) {
      startAfresh();
      const shortWrite = { number, bytes: 512 };
      const shortened = [source.path, imagePath, JSON.stringify({ ...JSON.parse(options), shortWrite })];
      const calls = systemCalls(['pwrite64'], watched, script, shortened).length;
      // The last but one is the root, which is shorter than that.
      expect(calls).toBe(number === count - 1 ? count : count + 1);
      expect(expectNothingOrAll()).toBe('all');
    }
  });

  it('never reads as wrong bytes when the kernel says it wrote what it did not', { timeout: timeoutMs }, (ctx) => {
    if (noStrace !== undefined) ctx.skip(noStrace);
    const count = countOf('pwrite64');
    let refused = 0;
    for (const when of strikes(count, true)) {
      startAfresh();
      runInjected({ syscall: 'pwrite64', what: 'retval=512', when }, watched, script, [
        source.path,
        imagePath,
        options,
      ]);
      if (!fs.existsSync(imagePath)) continue;
      // What was not written reads as zeros: where zeros belong there, no harm was done.
      if (readOrRefuse(imagePath, source.model).refusal === undefined) expectImageHolds(imagePath, source.model);
      else refused++;
    }
    expect(refused).toBeGreaterThan(0);
  });
});
