/** A disk around Windows volumes is the one that Windows remembers: NTFS volumes made by mkntfs, with hives on them. */
import { expect, it, type TestContext } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import type { Bootable } from '../../src/plugin/bootable-schema.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { filledHive, realHive } from '../guest/windows/hives.ts';
import { smallSystem, storeFile, systemFile } from '../guest/windows/machine.ts';
import { makeVolume } from '../filesystem/ntfs/made-volume.ts';
import { TempFolder } from '../temp-folder.ts';

/** The disk that `plugin create --boot bios` makes around a Windows with these files. */
async function around(
  context: TestContext,
  folder: TempFolder,
  files: Readonly<Record<string, Uint8Array>>,
): Promise<Bootable> {
  const { image } = makeVolume(context, folder, { files, sizeBytes: 64 * MiB });
  await createImage(image, folder.file('windows.spf'), { content: 'volume' });
  const made = createPluginFile(folder.file('windows.spf'), folder.file('vm.raw'), { boot: { firmware: 'bios' } });
  return made.bootable ?? expect.fail('no disk was made');
}

/** C: on a disk of signature 04030201, at this many MiB. */
function systemWithDriveAt(mebibytes: number): Uint8Array {
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(mebibytes * MiB));
  const place = [...start].map((byte) => byte.toString(16).padStart(2, '0')).join(',');
  const lines = smallSystem.map((line) => line.replace('00,00,10,00,00,00,00,00', place));
  expect(lines).not.toEqual(smallSystem);
  return filledHive(lines);
}

it('signature and start are those of the registry, so that neither drive letters nor boot entries need an edit', async (context) => {
  using folder = new TempFolder();
  const bootable = await around(context, folder, { [systemFile]: systemWithDriveAt(101) });
  expect(bootable.diskSignature).toBe(0x0403_0201);
  expect(bootable.partitions).toMatchObject([{ type: 'windows', active: true, startBytes: 101 * MiB }]);
  expect(bootable.volumes[0]?.patches[0]).toEqual({
    offset: 0x1c,
    base64: Buffer.from(Uint32Array.of((101 * MiB) / 512).buffer).toString('base64'),
  });
});

it('those of a real Windows 7 hive and boot store are taken', async (context) => {
  using folder = new TempFolder();
  const files = { [systemFile]: realHive(context, 'SYSTEM'), [storeFile]: realHive(context, 'BCDvm') };
  const bootable = await around(context, folder, files);
  expect(bootable.diskSignature).toBe(0x5cbe_a03e);
  expect(bootable.partitions[0]?.startBytes).toBe(MiB);
});

it('a hive that cannot be read is no reason to refuse: the table is as for any other volume', async (context) => {
  using folder = new TempFolder();
  const bootable = await around(context, folder, { [systemFile]: Buffer.alloc(8192, 'regf') });
  expect(bootable.partitions[0]?.startBytes).toBe(MiB);
  expect(bootable.diskSignature).toBeGreaterThan(0);
});

it('a place that is none is passed over', async (context) => {
  using folder = new TempFolder();
  // Behind what an MBR reaches.
  const bootable = await around(context, folder, { [systemFile]: systemWithDriveAt(3 * 1024 * 1024) });
  expect(bootable.partitions[0]?.startBytes).toBe(MiB);
});
