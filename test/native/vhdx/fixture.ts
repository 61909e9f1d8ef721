/** The VHDX that Hyper-V itself has made: third-party test data beside the repository, absent elsewhere. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { TestContext } from 'vitest';

const fixturePath = path.join(import.meta.dirname, '../../../../shared/fixtures/disks/hyperv-dynamic.vhdx.xz');

let unpacked: Buffer | undefined;

/** All of the file; skips the test where it cannot be had. */
export function hyperVFixture(ctx: TestContext): Buffer {
  if (unpacked !== undefined) return unpacked;
  if (!fs.existsSync(fixturePath)) ctx.skip('the fixture made by Hyper-V is not here');
  const xz = spawnSync('xz', ['-dc', fixturePath], { maxBuffer: 256 * 1024 * 1024 });
  if (xz.error !== undefined || xz.status !== 0) ctx.skip('xz is not installed');
  unpacked = xz.stdout;
  return unpacked;
}
