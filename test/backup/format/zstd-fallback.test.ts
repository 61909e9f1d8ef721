import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';
import { whyNoStrace } from '../strace.ts';

/** Runs a script of the folder above where no libzstd can be loaded; node has one of its own inside. */
function runWithoutLibrary(script: string, args: readonly string[]): { stdout: string; hidden: number } {
  const hide = ['-f', '-qq', '-e', 'trace=openat', '-e', 'inject=openat:error=ENOENT'];
  const found = spawnSync('sh', ['-c', 'ldconfig -p | sed -n "s/.*libzstd.so.1 .*=> //p"'], { encoding: 'utf8' });
  const libraries = found.stdout.split('\n').filter((line) => line !== '');
  const paths = [...libraries, ...libraries.map((library) => library.replace(/^\/lib\//, '/usr/lib/'))];
  const filters = [...new Set(paths)].flatMap((library) => ['-P', library]);
  const file = path.join(import.meta.dirname, '..', script);
  const run = spawnSync('strace', [...hide, ...filters, process.execPath, file, ...args], { encoding: 'utf8' });
  expect(run.status, run.stderr).toBe(0);
  return { stdout: run.stdout, hidden: run.stderr.split('\n').filter((line) => line.includes('INJECTED')).length };
}

it("images made with the system's zstd read with the one inside node, and the other way round", async (ctx) => {
  const reason = whyNoStrace();
  if (reason !== undefined) ctx.skip(reason);
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 3 * MiB + 100);
  scribble(source, seededTest('zstd fallback'), 20);
  const expected = source.sha256();

  await createImage(source.path, folder.file('library.spf'), { blockBytes: 16 * KiB });
  const read = runWithoutLibrary('read-chain-script.ts', [folder.file('library.spf')]);
  if (read.hidden === 0) ctx.skip('there is no libzstd to be hidden');
  expect(JSON.parse(read.stdout)).toMatchObject({ sha256: expected });

  runWithoutLibrary('create-image-script.ts', [source.path, folder.file('node.spf')]);
  expectImageHolds(folder.file('node.spf'), source.model);
  expect(createHash('sha256').update(source.model.read(0, source.sizeBytes)).digest('hex')).toBe(expected);
});
