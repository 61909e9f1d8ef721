/** The FAT reader against volumes that mkfs.fat and mtools made, and what fsck.fat and mtools say of patched ones. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { UnsupportedError, UsageError } from '../../../src/base/errors.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { FilesByPath } from '../../../src/filesystem/by-path.ts';
import { openFat, type FatVolume } from '../../../src/filesystem/fat/volume.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { applyTo } from '../trees.ts';
import { faultsOf, makeFat, mtypeBytes } from './made-volume.ts';

function withFat<T>(image: string, use: (volume: FilesByPath, fat: FatVolume) => T): T {
  const disk = openFileDisk(image);
  try {
    const volume = openFat(disk);
    if (volume === undefined) throw new Error('this is no FAT volume');
    return use(new FilesByPath(volume), volume);
  } finally {
    disk.close();
  }
}

for (const { bits, sizeBytes } of [
  { bits: 12, sizeBytes: 2 * MiB },
  { bits: 16, sizeBytes: 32 * MiB },
  { bits: 32, sizeBytes: 100 * MiB },
]) {
  it(`FAT${bits}: files are read, patched and, but on FAT12, added, as mtools and fsck.fat see`, (context) => {
    using folder = new TempFolder();
    const random = seededTest(`fat ${bits}`);
    const files: Record<string, Uint8Array> = {
      'EFI/Microsoft/Boot/BCD': random.bytes(28 * KiB),
      'EFI/Microsoft/Boot/bootmgfw.efi': random.bytes(400 * KiB + 5),
      'a file with a long name.text': random.bytes(3000),
      empty: new Uint8Array(0),
    };
    const image = makeFat(context, folder, { bits, sizeBytes, files });
    const edit = random.bytes(7000);
    const added = random.bytes(300 * KiB);
    const patches = withFat(image, (volume, fat) => {
      expect(volume.label).toBe('SYSTEM');
      for (const [name, contents] of Object.entries(files)) {
        expect(volume.stat(`/${name.toUpperCase()}`)).toMatchObject({ type: 'file', sizeBytes: contents.length });
        expect(Buffer.from(volume.readFile(`/${name}`, MiB)).equals(contents)).toBe(true);
      }
      expect(volume.list('/')).toEqual(['EFI', 'a file with a long name.text', 'empty'].sort());
      expect(volume.stat('/efi/microsoft')).toMatchObject({ type: 'folder', sizeBytes: 0 });
      expect(volume.stat('/nothing/here')).toBeUndefined();
      expect(() => volume.readFile('/EFI', MiB)).toThrow(UsageError);
      expect(() => fat.addFile('/empty', added)).toThrow(UsageError);
      if (bits === 12) expect(() => fat.addFile('/EFI/BOOT/BOOTX64.EFI', added)).toThrow(UnsupportedError);
      return [
        ...volume.replace([{ path: '/EFI/Microsoft/Boot/BCD', fileOffset: 4000, after: edit }]),
        ...(bits === 12 ? [] : fat.addFile('/EFI/BOOT/BOOTX64.EFI', added)),
      ];
    });
    applyTo(image, patches);
    expect(faultsOf(image)).toBe('');
    const store = Buffer.from(files['EFI/Microsoft/Boot/BCD'] ?? []);
    edit.copy(store, 4000);
    expect(mtypeBytes(image, 'EFI/Microsoft/Boot/BCD').equals(store)).toBe(true);
    if (bits !== 12) expect(mtypeBytes(image, 'EFI/BOOT/BOOTX64.EFI').equals(added)).toBe(true);
    expect(
      mtypeBytes(image, 'a file with a long name.text').equals(files['a file with a long name.text'] ?? added),
    ).toBe(true);
  });
}

it('a file that finds no room is refused, and a chain that runs in a circle too', (context) => {
  using folder = new TempFolder();
  const image = makeFat(context, folder, { bits: 16, sizeBytes: 16 * MiB, files: { file: new Uint8Array(100 * KiB) } });
  withFat(image, (volume, fat) => {
    expect(() => fat.addFile('/LARGE', new Uint8Array(17 * MiB))).toThrow(/free clusters/);
    const [piece] = volume.locate('/file');
    expect(piece?.lengthBytes).toBe(100 * KiB);
  });
  const bytes = fs.readFileSync(image);
  const fat = bytes.readUInt16LE(14) * 512;
  // The second cluster of the file leads back to the first.
  bytes.writeUInt16LE(2, fat + 3 * 2);
  fs.writeFileSync(image, bytes);
  withFat(image, (volume) => expect(() => volume.readFile('/file', MiB)).toThrow(/more than/));
});
