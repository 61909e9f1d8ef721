/** Consolidation with --replace, killed or refused by the disk at each of its system calls that change something. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { consolidateChain } from '../../../src/backup/care/consolidate-chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { expectReadsAs, type ModelDisk } from '../../disk/model-disk.ts';
import { Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { faultsOf } from '../image-holds.ts';
import { keyFile, ringOf } from '../keys.ts';
import { SourceDisk } from '../source-disk.ts';
import { runInjected, strikes, systemCalls, whyNoStrace } from '../strace.ts';

const script = path.join(import.meta.dirname, 'consolidate-script.ts');
const noStrace = whyNoStrace();
const timeoutMs = 600_000;
const owner = keyFile('owner');
const names = ['0.spf', '1.spi', '2.spi', '3.spi'];
const newest = '2.spi';

let folder: TempFolder;
let images: string;
let originals: Map<string, Buffer>;
let models: Map<string, ModelDisk>;
let watched: string[];

beforeAll(async () => {
  folder = new TempFolder();
  images = folder.file('images');
  fs.mkdirSync(images);
  originals = new Map();
  models = new Map();
  const source = new SourceDisk(folder.file('source.raw'), 10 * MiB);
  const random = new Seeded('consolidation crash');
  for (const [step, name] of names.entries()) {
    source.write(random.below(9 * MiB), random.bytes(300 * KiB));
    const parent = names[step - 1];
    await createImage(source.path, path.join(images, name), {
      codec: 'none',
      ...(parent === undefined
        ? { blockBytes: 16 * KiB, encrypt: owner }
        : { parent: path.join(images, parent), keys: ringOf(owner) }),
    });
    originals.set(name, fs.readFileSync(path.join(images, name)));
    models.set(name, source.model.copy());
  }
  watched = [images, ...[...names, `${newest}.veneer-part`].map((name) => path.join(images, name))];
});
afterAll(() => folder.remove());

function startAfresh(): void {
  fs.rmSync(images, { recursive: true, force: true });
  fs.mkdirSync(images);
  for (const [name, bytes] of originals) fs.writeFileSync(path.join(images, name), bytes);
}

/** The newest of those to consolidate, and the one that is made on it, read as ever. */
function expectWhole(where: string): void {
  for (const name of [newest, '3.spi']) {
    const model = models.get(name);
    using disk = closing(openChainDisk(path.join(images, name), undefined, undefined, ringOf(owner)));
    if (model !== undefined) expectReadsAs(disk.value, model);
    expect(faultsOf(path.join(images, name), ringOf(owner)), where).toEqual([]);
  }
}

function namesNow(): string[] {
  return fs.readdirSync(images).sort();
}

const args = (): string[] => [path.join(images, newest), path.join(images, newest)];

function countOf(syscall: string): number {
  startAfresh();
  const count = systemCalls([syscall], watched, script, args()).length;
  expect(namesNow()).toEqual([newest, '3.spi']);
  expectWhole('undisturbed');
  return count;
}

describe('a consolidation that replaces', () => {
  it('flushes the result, reads it again, gives it its name, and only then removes, the newest first', (ctx) => {
    if (noStrace !== undefined) ctx.skip(noStrace);
    startAfresh();
    const changing = ['pwrite64', 'fdatasync', 'fsync', 'rename', 'unlink', 'unlinkat', 'ftruncate'];
    const calls = systemCalls(changing, watched, script, args());
    const flushed = calls.indexOf('fdatasync');
    expect(new Set(calls.slice(1, flushed))).toEqual(new Set(['pwrite64']));
    const rest = calls.slice(flushed).map((call) => call.replace('unlinkat', 'unlink'));
    expect(rest).toEqual([
      'fdatasync',
      'pwrite64',
      'fdatasync',
      'fdatasync',
      'rename',
      'fsync',
      'unlink',
      'unlink',
      'fsync',
    ]);
  });

  it.for(['pwrite64', 'fdatasync', 'rename', 'unlink', 'fsync'] as const)(
    'killed at any %s leaves the chain whole, and a rerun ends it',
    { timeout: timeoutMs },
    async (syscall, ctx) => {
      if (noStrace !== undefined) ctx.skip(noStrace);
      const count = countOf(syscall);
      expect(count).toBeGreaterThan(0);
      for (const when of strikes(count)) {
        startAfresh();
        const run = runInjected({ syscall, what: 'signal=SIGKILL', when }, watched, script, args());
        const where = `killed at ${syscall} ${when} of ${count}: ${run.stderr}`;
        expect(run.signal, where).toBe('SIGKILL');
        expectWhole(where);
        const [file = ''] = args();
        await consolidateChain([file], file, { replace: true }).catch((error: unknown) => {
          // All was done already.
          expect(error, where).toMatchObject({
            code: 'USAGE',
            message: expect.stringMatching(/single image/) as string,
          });
        });
        expect(namesNow(), where).toEqual([newest, '3.spi']);
        expectWhole(where);
      }
    },
  );

  it.for(['pwrite64', 'fdatasync', 'rename', 'fsync'] as const)(
    'that meets ENOSPC at any %s is an error of one line, and the chain is whole',
    { timeout: timeoutMs },
    (syscall, ctx) => {
      if (noStrace !== undefined) ctx.skip(noStrace);
      const count = countOf(syscall);
      for (const when of strikes(count)) {
        startAfresh();
        const run = runInjected({ syscall, what: 'error=ENOSPC', when }, watched, script, args());
        const where = `ENOSPC at ${syscall} ${when} of ${count}: ${run.stderr}`;
        expect(run.status, where).toBe(3);
        expect(run.stderr.trimEnd().split('\n'), where).toHaveLength(1);
        expect(namesNow(), where).not.toContain(`${newest}.veneer-part`);
        expectWhole(where);
      }
    },
  );
});

it('a consolidation on a full file system fails with one line, leaves the chain as it was, and succeeds with more room', async (ctx) => {
  startAfresh();
  const total = [...originals.values()].reduce((sum, bytes) => sum + bytes.length, 0);
  const small = folder.file('small');
  fs.mkdirSync(small);
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${total + 256 * KiB}`, 'veneer-test', small]);
  if (mounted.status !== 0) ctx.skip(`no tmpfs can be mounted here: ${mounted.stderr.toString()}`);
  try {
    for (const [name, bytes] of originals) fs.writeFileSync(path.join(small, name), bytes);
    const file = path.join(small, newest);
    await expect(consolidateChain([file], file, { replace: true })).rejects.toMatchObject({ code: 'CAPACITY' });
    for (const [name, bytes] of originals) expect(fs.readFileSync(path.join(small, name)).equals(bytes)).toBe(true);
    expect(fs.readdirSync(small).sort()).toEqual(names);
    spawnSync('mount', ['-o', `remount,size=${2 * total}`, small]);
    await consolidateChain([file], file, { replace: true });
    expect(fs.readdirSync(small).sort()).toEqual([newest, '3.spi']);
    expect(faultsOf(path.join(small, '3.spi'), ringOf(owner))).toEqual([]);
  } finally {
    spawnSync('umount', [small]);
  }
});
