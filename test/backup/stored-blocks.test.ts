import fs from 'node:fs';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { IntegrityError } from '../../src/base/errors.ts';
import { openChainDisk } from '../../src/backup/chain.ts';
import { createImage } from '../../src/backup/create.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

const blockBytes = 64 * KiB;

it('a block that is stored as it is reads the same whole and in parts, the first time and later', async () => {
  using folder = new TempFolder();
  const bytes = new Seeded('stored blocks').bytes(MiB);
  await createImage(folder.write('disk.raw', bytes), folder.file('disk.spf'), { codec: 'none', blockBytes });
  const disk = openChainDisk(folder.file('disk.spf'));
  for (const [offset, length] of [
    [5, 100],
    [5, 100],
    [blockBytes - 7, 20],
    [0, MiB],
    [3 * blockBytes, blockBytes],
    [blockBytes - 7, 2 * blockBytes],
  ] as const) {
    const target = new Uint8Array(length);
    disk.read(target, offset);
    expect(Buffer.compare(target, bytes.subarray(offset, offset + length))).toBe(0);
  }
  disk.close();
});

it('a damaged block that is stored as it is is refused, also where the damage is not in the part that is read', async () => {
  using folder = new TempFolder();
  const bytes = new Seeded('damaged stored block').bytes(MiB);
  await createImage(folder.write('disk.raw', bytes), folder.file('disk.spf'), { codec: 'none', blockBytes });
  const image = fs.readFileSync(folder.file('disk.spf'));
  const at = image.indexOf(bytes.subarray(4 * blockBytes, 4 * blockBytes + 64));
  image.writeUInt8(image.readUInt8(at + 1000) ^ 1, at + 1000);
  fs.writeFileSync(folder.file('disk.spf'), image);
  const disk = openChainDisk(folder.file('disk.spf'));
  for (const within of [60_000, 60_000, 0])
    expect(() => disk.read(new Uint8Array(10), 4 * blockBytes + within)).toThrow(IntegrityError);
  disk.read(new Uint8Array(10), 5 * blockBytes);
  disk.close();
});

it('an image that is overwritten in place gives no more bytes of blocks that were checked before', async () => {
  using folder = new TempFolder();
  const bytes = new Seeded('overwritten stored block').bytes(MiB);
  await createImage(folder.write('disk.raw', bytes), folder.file('disk.spf'), { codec: 'none', blockBytes });
  const disk = openChainDisk(folder.file('disk.spf'));
  const target = new Uint8Array(10);
  disk.read(target, 4 * blockBytes);
  const at = fs.readFileSync(folder.file('disk.spf')).indexOf(bytes.subarray(4 * blockBytes, 4 * blockBytes + 64));
  const fd = fs.openSync(folder.file('disk.spf'), 'r+');
  fs.writeSync(fd, 'other bytes', at);
  fs.closeSync(fd);
  expect(() => disk.read(target, 4 * blockBytes)).toThrow('was changed while it was open');
  disk.close();
});
