/** Volumes are known by what mkfs programs make. */
import fs from 'node:fs';
import { afterAll, expect, it } from 'vitest';
import { closing } from '../../src/base/ownership.ts';
import { MiB } from '../../src/base/units.ts';
import { inspectVolume, type VolumeFacts } from '../../src/bootable/volume.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { runOk } from '../cli/veneer.ts';
import { TempFolder } from '../temp-folder.ts';

const folder = new TempFolder();
afterAll(() => folder.remove());

async function made(
  name: string,
  mebibytes: number,
  program: string,
  ...args: readonly string[]
): Promise<VolumeFacts> {
  const file = folder.write(name, '');
  fs.truncateSync(file, mebibytes * MiB);
  if (program !== '') await runOk(program, [...args, file]);
  using disk = closing(openFileDisk(file));
  return inspectVolume(disk.value, name);
}

it.each([
  ['ext2', 'linux', 8, '/sbin/mke2fs', ['-q', '-t', 'ext2']],
  ['ext4', 'linux', 8, '/sbin/mke2fs', ['-q', '-t', 'ext4']],
  ['xfs', 'linux', 320, '/sbin/mkfs.xfs', ['-q']],
  ['btrfs', 'linux', 128, '/sbin/mkfs.btrfs', ['-q']],
  ['ntfs', 'ntfs', 8, '/sbin/mkntfs', ['-q', '-F']],
  ['fat16', 'fat', 16, '/sbin/mkfs.fat', ['-F', '16']],
  ['fat32', 'fat', 64, '/sbin/mkfs.fat', ['-F', '32']],
  ['swap', 'swap', 8, '/sbin/mkswap', ['-q']],
  ['nothing', 'unknown', 1, '', []],
] as const)('%s', async (name, kind, mebibytes, program, args) => {
  expect((await made(name, mebibytes, program, ...args)).kind).toBe(kind);
});

it.each(['16', '32'])('FAT%s that holds a folder EFI is an EFI system partition', async (bits) => {
  const file = folder.write(`esp${bits}`, '');
  fs.truncateSync(file, 64 * MiB);
  await runOk('/sbin/mkfs.fat', ['-F', bits, file]);
  await runOk('mmd', ['-i', file, '::/OTHER', '::/EFI']);
  using disk = closing(openFileDisk(file));
  expect(inspectVolume(disk.value, file)).toMatchObject({
    kind: 'efi-system',
    bootSectors: bits === '32' ? [0, 3072] : [0],
  });
});

it('a whole disk is refused: it has its own boot code', async () => {
  const file = folder.write('disk', '');
  fs.truncateSync(file, 16 * MiB);
  for (const type of ['dos', 'gpt']) {
    await runOk('bash', ['-c', `echo 'start=2048' | /sbin/sfdisk -q --label ${type} "$1"`, 'bash', file]);
    using disk = closing(openFileDisk(file));
    expect(() => inspectVolume(disk.value, 'vm.spf')).toThrow(/vm\.spf: is an image of a whole disk.*leave --boot out/);
  }
});
