/** The EFI system partition that we make, as fsck.fat and mtools see it. */
import fs from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { planFat } from '../../src/bootable/fat.ts';
import { runOk } from '../cli/veneer.ts';
import { seededTest } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

const folder = new TempFolder();
afterAll(() => folder.remove());

interface File {
  readonly path: string;
  readonly bytes: Buffer;
}

function write(name: string, sizeBytes: number, files: readonly File[]): string {
  const plan = planFat({
    sizeBytes,
    startLba: 2048,
    serial: 0x1234_abcd,
    files: files.map(({ path, bytes }) => ({ path, lengthBytes: bytes.length })),
  });
  const out = folder.write(name, '');
  fs.truncateSync(out, sizeBytes);
  const fd = fs.openSync(out, 'r+');
  for (const { offset, bytes } of plan.structures) fs.writeSync(fd, bytes, 0, bytes.length, offset);
  for (const [index, { bytes }] of files.entries()) {
    fs.writeSync(fd, bytes, 0, bytes.length, plan.fileOffsets[index] ?? -1);
  }
  fs.closeSync(fd);
  return out;
}

describe.each([
  [3, 'FAT16'],
  [8, 'FAT16'],
  [32, 'FAT16'],
  [33, 'FAT32'],
  [36, 'FAT32'],
  [64, 'FAT32'],
  [300, 'FAT32'],
] as const)('a file system of %i MiB', (mebibytes, type) => {
  it(`is ${type} without fault, and holds its files`, async () => {
    const random = seededTest(`fat ${mebibytes}`);
    const files = [
      { path: '/EFI/BOOT/BOOTX64.EFI', bytes: random.bytes(random.between(1, 2 * MiB)) },
      { path: '/EFI/BOOT/GRUB.CFG', bytes: random.bytes(16_384) },
      { path: '/EFI/VENDOR/DEEP/A-B_1.X', bytes: random.bytes(random.between(1, 600)) },
      { path: '/ONE', bytes: random.bytes(512) },
      // More names than a cluster of the folder holds.
      ...Array.from({ length: 40 }, (_, index) => ({ path: `/EFI/MANY/F${index}`, bytes: random.bytes(index + 1) })),
    ];
    const file = write(`${mebibytes}.fat`, mebibytes * MiB, files);
    const said = await runOk('/sbin/fsck.fat', ['-n', '-v', file]);
    expect(said).toContain(type === 'FAT32' ? '32 bit entries' : '16 bit entries');
    expect(said).not.toMatch(/differ|wrong|free cluster summary.*(un)?(correct)|orphan|not cleanly/i);
    for (const { path, bytes } of files) {
      const out = folder.file('copied');
      await runOk('mcopy', ['-n', '-o', '-i', file, `::${path}`, out]);
      expect(fs.readFileSync(out).equals(bytes), path).toBe(true);
    }
  });
});

it('files that do not fit are refused', () => {
  expect(() => write('full.fat', 3 * MiB, [{ path: '/LARGE', bytes: Buffer.alloc(4 * MiB) }])).toThrow(/do not fit/);
});
