/** Foreign readers of VHDX files. A judge that is not installed skips the test and says so. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expect, type TestContext } from 'vitest';
import type { Disk } from '../../../src/disk/disk.ts';
import { patience } from '../../patience.ts';
import { soak } from '../../seeded.ts';

const judgeTimeoutMs = soak ? 600_000 : 100_000;
/** Debian's interpreter: the one that has the bindings of libvhdi. */
const python = '/usr/bin/python3';

/** Runs a judge to its end and returns what it printed; any status but zero fails the test with it. */
function run(ctx: TestContext, program: string, args: readonly string[]): string {
  const result = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: patience(judgeTimeoutMs),
    maxBuffer: 64 * 1024 * 1024,
  });
  if (result.error !== undefined && 'code' in result.error && result.error.code === 'ENOENT') {
    ctx.skip(`${program} is not installed`);
  }
  const said = `${result.stdout}${result.stderr}`;
  expect(result.status, `${program} ${args.join(' ')}\n${said}`).toBe(0);
  return said;
}

export function qemuCheck(ctx: TestContext, file: string): void {
  expect(run(ctx, 'qemu-img', ['check', '-f', 'vhdx', file])).toContain('No errors were found');
}

/** The guest's disk, as QEMU reads it, equals the raw file. */
export function qemuCompare(ctx: TestContext, file: string, golden: string): void {
  expect(run(ctx, 'qemu-img', ['compare', '-f', 'vhdx', '-F', 'raw', file, golden])).toContain('Images are identical');
}

/** The same for one range of both. */
export function qemuCompareRange(ctx: TestContext, file: string, golden: string, offset: number, size: number): void {
  const range = (driver: string, filename: string): string => {
    const below = { driver, file: { driver: 'file', filename } };
    return `json:${JSON.stringify({ driver: 'raw', offset, size, file: below })}`;
  };
  expect(run(ctx, 'qemu-img', ['compare', range('vhdx', file), range('raw', golden)])).toContain(
    'Images are identical',
  );
}

export function qemuImg(ctx: TestContext, args: readonly string[]): string {
  return run(ctx, 'qemu-img', args);
}

/** Runs commands of qemu-io; a pattern that does not match fails the test. */
export function qemuIo(
  ctx: TestContext,
  format: string,
  file: string,
  commands: readonly string[],
  readOnly: boolean,
): void {
  const args = [...(readOnly ? ['-r'] : []), '-f', format, ...commands.flatMap((command) => ['-c', command]), file];
  expect(run(ctx, 'qemu-io', args)).not.toMatch(/failed|error/i);
}

export function libvhdiInfo(ctx: TestContext, file: string): string {
  return run(ctx, 'vhdiinfo', [file]);
}

/**
 * SHA-256 of each range of the guest's disk, as libvhdi reads it.
 * @param parents the files below a differencing one, nearest first
 */
export function libvhdiHashes(
  ctx: TestContext,
  file: string,
  ranges: ReadonlyArray<{ offset: number; length: number }>,
  parents: readonly string[] = [],
): string[] {
  if (!fs.existsSync(python)) ctx.skip(`${python} is not installed`);
  if (spawnSync(python, ['-c', 'import pyvhdi']).status !== 0) ctx.skip('python3-libvhdi is not installed');
  const program = path.join(import.meta.dirname, 'libvhdi_hashes.py');
  const said = run(ctx, python, [program, JSON.stringify({ files: [file, ...parents], ranges })]);
  return said.trim().split('\n');
}

export function sevenZipTest(ctx: TestContext, file: string): void {
  const said = run(ctx, '7zz', ['t', file]);
  expect(said).toContain('Everything is Ok');
  expect(said).not.toMatch(/warning/i);
}

/** SHA-256 of the guest's disk as 7-Zip extracts it, through a pipe: no copy is written. */
export function sevenZipHash(ctx: TestContext, file: string): string {
  run(ctx, '7zz', ['i']); // A shell would not say in what way it is missing.
  return run(ctx, 'bash', ['-o', 'pipefail', '-c', '7zz x -so "$1" | sha256sum', 'bash', file]).slice(0, 64);
}

/** SHA-256 of a whole file by coreutils. */
export function sha256OfFile(ctx: TestContext, file: string): string {
  return run(ctx, 'sha256sum', [file]).slice(0, 64);
}

/** Bytes of a range of a disk. */
export function bytesOf(disk: Disk, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  disk.read(bytes, offset);
  return bytes;
}
