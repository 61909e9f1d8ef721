import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { concatDisks } from '../../../src/disk/concat.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { zeroDisk } from '../../../src/disk/zero.ts';
import { openVhdx } from '../../../src/native/vhdx/read.ts';
import { vhdx } from '../../../src/native/vhdx/format.ts';
import { TempFolder } from '../../temp-folder.ts';
import { materialize } from '../golden.ts';
import { factsOf, seededDisk, sha256OfDisk } from './disk-file.ts';
import { libvhdiHashes, libvhdiInfo, sevenZipHash } from './judges.ts';

// QEMU 7.2 opens no VHDX with such sectors, and 7-Zip none whose disk is not a multiple of eight sectors.
describe('a VHDX with logical sectors of 4 KiB', () => {
  it.for(['fixed', 'dynamic'] as const)(
    'is the disk, rounded up to a sector, to foreign readers: %s',
    (layout, ctx) => {
      using folder = new TempFolder();
      const disk = seededDisk(97 * MiB + 512, 'large sectors');
      const rounded = concatDisks([disk, zeroDisk(4096 - 512)]);
      const file = folder.file('disk.vhdx');
      const geometry = vhdx.plan(factsOf(disk, { logical: 4096 }), { layout, unitBytes: MiB });
      for (const { map } of vhdx.synthesize(geometry, 'disk.vhdx')) materialize(map, disk, file);
      const expected = sha256OfDisk(rounded);
      const opened = openVhdx(openFileDisk(file));
      expect(opened.logicalSectorBytes).toBe(4096);
      expect(sha256OfDisk(opened)).toBe(expected);
      opened.close();
      expect(libvhdiInfo(ctx, file)).toMatch(/Bytes per sector\s*: 4096/);
      expect(libvhdiHashes(ctx, file, [{ offset: 0, length: rounded.sizeBytes }])).toEqual([expected]);
    },
  );

  it.for(['fixed', 'dynamic'] as const)('is the disk to 7-Zip: %s', (layout, ctx) => {
    using folder = new TempFolder();
    const disk = seededDisk(97 * MiB + 32 * KiB, 'large sectors');
    const file = folder.file('disk.vhdx');
    const geometry = vhdx.plan(factsOf(disk, { logical: 4096 }), { layout, unitBytes: MiB });
    for (const { map } of vhdx.synthesize(geometry, 'disk.vhdx')) materialize(map, disk, file);
    expect(sevenZipHash(ctx, file)).toBe(sha256OfDisk(disk));
  });
});
