/** A file that is held against its SHA-256: another one is refused, what is changed later is not returned, and nothing of it is kept in memory. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { IntegrityError } from '../../src/base/errors.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import { openVerified } from '../../src/disk/verified.ts';
import { Seeded, seededTest } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { conformsToDisk } from './conformance.ts';
import { ModelDisk } from './model-disk.ts';

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

conformsToDisk('a verified file', () => {
  const contents = new Seeded('verified').bytes(3 * MiB + 4321);
  using folder = new TempFolder();
  const fd = fs.openSync(folder.write('file', contents), 'r');
  const disk = openVerified(fd, contents.length, sha256(contents), 'file');
  return { disk, model: ModelDisk.of(contents), boundaries: [16 * KiB, MiB, 3 * MiB] };
});

it('of another SHA-256, or shorter, is not opened, and its descriptor is closed', () => {
  using folder = new TempFolder();
  const contents = Buffer.alloc(100_000, 3);
  const open = (sizeBytes: number, hash: string): unknown =>
    openVerified(fs.openSync(folder.write('file', contents), 'r'), sizeBytes, hash, 'file');
  const before = fs.readdirSync('/proc/self/fd').length;
  expect(() => open(contents.length, sha256(Buffer.of(1)))).toThrow(IntegrityError);
  expect(() => open(contents.length + 1, sha256(contents))).toThrow(/ends at byte 100000/);
  expect(fs.readdirSync('/proc/self/fd')).toHaveLength(before);
});

it('no byte is returned that was changed since it was opened', () => {
  const random = seededTest('verified');
  using folder = new TempFolder();
  const contents = random.bytes(200_000);
  const file = folder.write('file', contents);
  const disk = openVerified(fs.openSync(file, 'r'), contents.length, sha256(contents), 'file');
  for (let round = 0; round < 200; round++) {
    const at = random.below(contents.length);
    const changed = Buffer.from(contents);
    changed[at] = (changed[at] ?? 0) ^ 1;
    fs.writeFileSync(file, changed);
    const from = Math.max(0, at - random.below(50_000));
    const target = Buffer.alloc(Math.min(contents.length - from, at - from + 1 + random.below(9000)));
    try {
      disk.read(target, from);
      // It was kept from the read before.
      expect(target.equals(contents.subarray(from, from + target.length))).toBe(true);
    } catch (error) {
      expect(error).toBeInstanceOf(IntegrityError);
    }
    fs.writeFileSync(file, contents);
    disk.read(target, from);
    expect(target.equals(contents.subarray(from, from + target.length))).toBe(true);
  }
  disk.close();
});

it('takes hardly any memory, however large it is', () => {
  using folder = new TempFolder();
  const contents = Buffer.alloc(96 * MiB, 5);
  const hash = sha256(contents);
  const file = folder.write('file', contents);
  const before = process.memoryUsage().arrayBuffers;
  const disks = Array.from({ length: 4 }, () => openVerified(fs.openSync(file, 'r'), contents.length, hash, 'file'));
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 * MiB);
  for (const disk of disks) disk.close();
});
