import { expect, it } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { attachLoopDevice, whyNoLoopDevices } from '../../disk/loop-device.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

it('a block device is imaged as the file it stands for, in full and in increments', async (ctx) => {
  const reason = whyNoLoopDevices();
  if (reason !== undefined) ctx.skip(reason);
  const random = seededTest('block device image');
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 70 * MiB + 512);
  scribble(source, random, 20);
  {
    using device = attachLoopDevice(source.path);
    const first = await createImage(device.path, folder.file('1.spf'), { threads: 2 });
    expect(first.sourceSizeBytes).toBe(source.sizeBytes);
    expectImageHolds(folder.file('1.spf'), source.model);
  }
  const { offset, length } = { offset: 5 * MiB + 1, length: 100_000 };
  source.write(offset, random.bytes(length));
  using device = attachLoopDevice(source.path);
  const second = await createImage(device.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
  expect(second.dataBlocks).toBeLessThanOrEqual(3);
  expectImageHolds(folder.file('2.spi'), source.model);
});
