/** FAT volumes that mkfs.fat makes and mtools fill. */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import type { TestContext } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import type { TempFolder } from '../../temp-folder.ts';
import { skipWithout } from '../../guest/windows/hives.ts';

const environment = { ...process.env, MTOOLS_SKIP_CHECK: '1' };

/** Makes a volume with these files; skips the test where a program is missing. */
export function makeFat(
  context: TestContext,
  folder: TempFolder,
  { bits, sizeBytes, files }: { bits: number; sizeBytes: number; files: Readonly<Record<string, Uint8Array>> },
): string {
  skipWithout(context, ['mkfs.fat', 'mcopy', 'fsck.fat']);
  const image = folder.write(`fat${bits}.raw`, '');
  fs.truncateSync(image, sizeBytes);
  execFileSync('mkfs.fat', ['-F', String(bits), '-n', 'SYSTEM', image], { stdio: 'pipe' });
  const made = new Set<string>();
  for (const [name, contents] of Object.entries(files)) {
    const parts = name.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const path = parts.slice(0, depth).join('/');
      if (!made.has(path)) execFileSync('mmd', ['-i', image, `::/${path}`], { stdio: 'pipe', env: environment });
      made.add(path);
    }
    execFileSync('mcopy', ['-i', image, folder.write('copied', contents), `::/${name}`], {
      stdio: 'pipe',
      env: environment,
    });
  }
  return image;
}

/** A file's bytes as mtools read them. */
export function mtypeBytes(image: string, name: string): Buffer {
  return execFileSync('mtype', ['-i', image, `::/${name}`], { env: environment, maxBuffer: 64 * MiB });
}

/** What fsck.fat says of the volume, which it does not change: empty when all is well. */
export function faultsOf(image: string): string {
  const { status, stdout } = spawnSync('fsck.fat', ['-n', image], { encoding: 'utf8' });
  return status === 0 ? '' : stdout;
}
