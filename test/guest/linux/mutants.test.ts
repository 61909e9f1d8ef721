/** Broken ext4, XFS and btrfs below a Linux: an error or a plan that holds, never a crash, a hang or a patch outside of the disk. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { UnsupportedError } from '../../../src/base/errors.ts';
import { MiB } from '../../../src/base/units.ts';
import { crc32c, sealCrc32c } from '../../../src/bytes/checksum.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { openGuestDisk } from '../../../src/volume/open-disk.ts';
import { planGuest } from '../../../src/guest/plan-guest.ts';
import type { Patch } from '../../../src/filesystem/edit/patch.ts';
import { TempFolder } from '../../temp-folder.ts';
import { copyTree, run, whyNoMounts, withMounted } from '../../filesystem/trees.ts';
import { guestMutantCount, survivesGuestMutants } from '../mutants.ts';
import { writeSystem } from './small-system.ts';

const folder = new TempFolder();
const tree = folder.file('tree');
/** In a soak there are thousands of mutants. */
const endsWithinMs = 1_800_000;
const noMounts = whyNoMounts();
if (noMounts !== undefined) console.log(`mutants of XFS and btrfs are not tested: ${noMounts}`);

vi.setConfig({ testTimeout: endsWithinMs });
beforeAll(() => writeSystem(tree, { fstab: `/dev/sda1 / ext4 defaults 0 1\n${'# a comment\n'.repeat(400)}` }));
afterAll(() => folder.remove());

function use(disk: Disk): readonly Patch[] {
  const plan = planGuest(openGuestDisk(disk), 'qemu-virtio', { wrapped: true });
  if (plan === undefined) throw new UnsupportedError('no system was found');
  return plan.patches;
}

function blank(name: string, sizeBytes: number): string {
  fs.writeFileSync(folder.file(name), '');
  fs.truncateSync(folder.file(name), sizeBytes);
  return folder.file(name);
}

/** Some mutants get through, or what is behind the first check was never reached; and some do not. */
function expectBoth(planned: number): void {
  expect(planned).toBeGreaterThan(0);
  expect(planned).toBeLessThan(guestMutantCount);
}

it.each([
  ['ext4 without checksums', ['-t', 'ext4', '-O', '^metadata_csum,^has_journal']],
  ['ext4 with data in inodes and checksums', ['-t', 'ext4', '-O', 'inline_data,^has_journal', '-I', '256']],
  ['ext2', ['-t', 'ext2']],
])('mutants of %s', (title, options) => {
  const image = blank('ext', 8 * MiB);
  run('mke2fs', '-q', '-F', '-b', '1024', ...options, '-d', tree, image);
  expectBoth(survivesGuestMutants(title, { disk: fs.readFileSync(image), use }));
});

it.skipIf(noMounts !== undefined)('mutants of XFS, with checksums that are right', () => {
  const image = blank('xfs', 320 * MiB);
  run('mkfs.xfs', '-q', image);
  withMounted(image, [], (mountpoint) => copyTree(tree, mountpoint));
  const crcAt: Readonly<Record<string, number>> = { XFSB: 224, XDB3: 4, XDD3: 4, BMA3: 64 };
  const reseal = (structure: Buffer): void => {
    const magic = structure.toString('latin1', 0, 4);
    const at = magic.startsWith('IN') ? 100 : crcAt[magic];
    if (at !== undefined && structure.length > at + 4) sealCrc32c(structure, at);
  };
  expectBoth(survivesGuestMutants('XFS', { disk: fs.readFileSync(image), use, reseal }));
});

it.skipIf(noMounts !== undefined).each(['crc32c', 'sha256'])(
  'mutants of btrfs with %s, with checksums of metadata that are right',
  (csum) => {
    const image = blank('btrfs', 128 * MiB);
    run('mkfs.btrfs', '-q', '-f', '-m', 'single', '--csum', csum, image);
    withMounted(image, [], (mountpoint) => copyTree(tree, mountpoint));
    const reseal = (structure: Buffer): void => {
      const covered = structure.subarray(32);
      if (csum === 'sha256') createHash('sha256').update(covered).digest().copy(structure);
      else structure.writeUInt32LE(crc32c(covered), 0);
    };
    // Data are read by the sector, and are no structure with a checksum in front.
    const metadataOnly = (structure: Buffer): void => {
      const isNode = structure.length === 16384 || structure.toString('latin1', 0x40, 0x48) === '_BHRfS_M';
      if (isNode) reseal(structure);
    };
    expectBoth(survivesGuestMutants(`btrfs ${csum}`, { disk: fs.readFileSync(image), use, reseal: metadataOnly }));
  },
);
