/**
 * A complete disk that the kernel reads and writes by itself, and whose server was killed: whoever has it open goes on with the very file, so nobody
 * else has the disk before he ends.
 */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { createPluginFile } from '../../../src/plugin/create.ts';
import { diskBytes, readFrom, readPart, writeGuest } from '../guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mounted.ts';

/** It is closed, though nobody answers that it is. */
async function closeDead(handle: fs.promises.FileHandle): Promise<void> {
  await expect(handle.close()).rejects.toMatchObject({ code: 'ENOTCONN' });
}

async function completeDisk(): Promise<{ place: MountPlace; disk: string; expected: Buffer }> {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  createPluginFile(place.behind('vm.spi'), place.behind('vm.raw'));
  await place.mount('--transport', 'kernel', '--fill');
  await eventually(async () => {
    const states = (await place.status()).fills?.map(({ state }) => state);
    expect(new Set(states)).toEqual(new Set(['complete']));
  });
  return { place, disk: place.under('vm.raw'), expected: await readPart(raw, 0, diskBytes) };
}

it('the next mount refuses a disk that somebody goes on with, says why, and serves it when he ends', async (context) => {
  const { place, disk, expected } = await completeDisk();
  const first = await fs.promises.open(disk);
  await readFrom(first, 0, 512);
  await place.kill();
  const isServedByKernel = await readFrom(first, 0, 512).then(
    () => true,
    () => false,
  );
  if (!isServedByKernel) {
    await closeDead(first);
    context.skip('the kernel does not read complete disk files by itself here');
  }
  await place.mount('--transport', 'kernel');
  await expect(readPart(disk, 0, 512)).rejects.toMatchObject({ code: 'EBUSY' });
  await place.expectComplaint(/vm\.raw\.replacement: another process writes it, or a program .* before its mount died/);
  await closeDead(first);
  expect((await readPart(disk, 0, diskBytes)).equals(expected)).toBe(true);
});
