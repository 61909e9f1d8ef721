/** A guest that reads what is broken again and again costs a bounded log; `status` says why, for the disk that it is. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { mountFiles } from '../../../src/mounts/mount-record.ts';
import { structuresOf } from '../../backup/crafted-image.ts';
import { veneerOk } from '../../cli/veneer.ts';
import { change, writeGuest } from '../guest-disk.ts';
import { placeForTest } from '../mounted.ts';
import { describeAboveTransports } from '../transports.ts';

const reads = 3000;

describeAboveTransports('a broken block', ({ options }) => {
  it('that is read again and again is told of once a minute, with a count, and in status', async () => {
    const place = placeForTest();
    await writeGuest(place.folder, place.temporary.file('disk.raw'));
    const image = place.behind('vm.spi');
    const block = structuresOf(fs.readFileSync(image)).find(({ kind }) => kind === 'payload');
    if (block === undefined) throw new Error('the image has no block');
    change(image, block.offset + Math.floor(block.length / 2), Buffer.from('broken'));
    await place.mount(...options);
    expect((await place.statistics('vm.vhdx')).lastError).toBeUndefined();
    const failed = await failedReads(place.under('vm.vhdx'));
    expect(failed).toBeGreaterThanOrEqual(reads);
    const { lastError, errors } = await place.statistics('vm.vhdx');
    expect(errors).toBeGreaterThanOrEqual(failed);
    expect(lastError?.message).toMatch(/^read of \d+ bytes at \d+ failed: .*vm\.spi.*checksum is/);
    expect(await veneerOk('status', place.mountpoint)).toMatch(
      /^ {4}last error, 20.*: read of .* failed: .*checksum is/m,
    );
    expect((await place.statistics('thin.vhdx')).lastError).toBeUndefined();
    await place.unmount();
    await place.expectComplaint(/^\d+ more of these were left out: vm\.vhdx: read of/m);
    expect(fs.statSync(mountFiles(place.mountpoint).log).size).toBeLessThan(10_000);
  });
});

/** Reads all of a file, and what fails of it again until so many reads have failed. */
async function failedReads(file: string): Promise<number> {
  const handle = await fs.promises.open(file, fs.constants.O_RDONLY | fs.constants.O_DIRECT);
  let failed = 0;
  const fails = async (position: number): Promise<boolean> => {
    try {
      await handle.read(Buffer.alloc(4096), 0, 4096, position);
      return false;
    } catch {
      failed++;
      return true;
    }
  };
  const { size } = await handle.stat();
  let broken = -1;
  for (let at = 0; at < size && broken < 0; at += 65_536) if (await fails(at)) broken = at;
  expect(broken).toBeGreaterThanOrEqual(0);
  while (failed < reads) await fails(broken);
  await handle.close();
  return failed;
}
