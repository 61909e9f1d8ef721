/** A file system that is really full, and others who write the same image: nothing injected but time. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { extractImage } from '../../../src/backup/read/extract.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { SourceDisk } from '../source-disk.ts';
import { straceArguments, whyNoStrace } from '../strace.ts';

/** A file system of that size at `small` in a folder, or why there is none. */
function mountSmall(folder: TempFolder, sizeBytes: number): Disposable & { readonly reason?: string } {
  const target = folder.file('small');
  fs.mkdirSync(target);
  const run = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'veneer-test', target], {
    encoding: 'utf8',
  });
  const unmount = (): void => {
    spawnSync('umount', [target]);
  };
  if (run.status === 0) return { [Symbol.dispose]: unmount };
  return { reason: `no tmpfs can be mounted here: ${run.stderr || String(run.error)}`, [Symbol.dispose]: unmount };
}

it('creation and extraction on a full file system fail with one line, leave nothing, and succeed with more room', async (ctx) => {
  const random = seededTest('full');
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 40 * MiB);
  source.write(0, random.bytes(9 * MiB));
  source.write(30 * MiB, random.bytes(2 * MiB));
  using mounted = mountSmall(folder, 4 * MiB + 4 * KiB);
  if (mounted.reason !== undefined) ctx.skip(mounted.reason);
  const small = folder.file('small');
  const imagePath = path.join(small, 'disk.spf');
  for (const threads of [1, 3]) {
    const made = createImage(source.path, imagePath, { threads, blockBytes: 16 * KiB });
    await expect(made).rejects.toMatchObject({
      code: 'CAPACITY',
      message: expect.not.stringContaining('\n') as string,
    });
    expect(fs.readdirSync(small)).toEqual([]);
  }
  await createImage(source.path, folder.file('disk.spf'));
  expect(() => extractImage(folder.file('disk.spf'), path.join(small, 'out.raw'))).toThrow(/free some space/);
  expect(fs.readdirSync(small)).toEqual([]);
  spawnSync('mount', ['-o', `remount,size=${32 * MiB}`, small]);
  await createImage(source.path, imagePath, { threads: 3 });
  expectImageHolds(imagePath, source.model);
});

/** In any process. */
function isOpenSomewhere(file: string): boolean {
  return fs.readdirSync('/proc').some((pid) => {
    try {
      return fs.readdirSync(`/proc/${pid}/fd`).some((fd) => fs.readlinkSync(`/proc/${pid}/fd/${fd}`) === file);
    } catch {
      // No process, or one that has ended.
      return false;
    }
  });
}

it('an image that another process has just finished is not written over', async (ctx) => {
  const reason = whyNoStrace();
  if (reason !== undefined) ctx.skip(reason);
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), MiB);
  source.write(0, seededTest('just finished').bytes(100_000));
  await createImage(source.path, folder.file('finished'));
  const finished = fs.readFileSync(folder.file('finished'));
  const imagePath = folder.file('disk.spf');
  // What another process is about to rename: it is done just while ours waits between opening the file and locking it.
  fs.renameSync(folder.file('finished'), `${imagePath}.veneer-part`);
  const delay = { syscall: 'flock', what: 'delay_enter=3000000', when: 1 };
  const script = path.join(import.meta.dirname, '..', 'create-image-script.ts');
  const args = [...straceArguments(delay, []), process.execPath, script, source.path, imagePath];
  const child = spawn('strace', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const closed = once(child, 'close');
  while (child.exitCode === null && !isOpenSomewhere(`${imagePath}.veneer-part`)) await setTimeout(20);
  fs.renameSync(`${imagePath}.veneer-part`, imagePath);
  const [status] = (await closed) as [number];
  expect(said).toMatch(/another process has just finished it/);
  expect(status).toBe(3);
  expect(fs.readFileSync(imagePath).equals(finished)).toBe(true);
  expect(folder.names()).toEqual(['disk.spf', 'source.raw']);
});

it('an image that another process is writing is left alone', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 100 * MiB);
  source.write(0, seededTest('two writers').bytes(MiB));
  const options = { threads: 2, blockBytes: 16 * KiB };
  const first = createImage(source.path, folder.file('disk.spf'), options);
  await expect(createImage(source.path, folder.file('disk.spf'), options)).rejects.toMatchObject({ code: 'BUSY' });
  await first;
  expectImageHolds(folder.file('disk.spf'), source.model);
});
