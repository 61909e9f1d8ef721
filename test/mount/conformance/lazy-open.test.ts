/** An image is opened by the first read of guest data and by nothing before, and closed again when nobody asks for any. */
import fs from 'node:fs';
import { availableParallelism } from 'node:os';
import { beforeAll, expect, it } from 'vitest';
import { guardBytes } from '../../../src/native/vhdx/layout.ts';
import { runOk } from '../../cli/veneer.ts';
import { expectSameBytes } from '../../disk/model-disk.ts';
import { mapOf, readPart, writeExpected, writeGuest } from '../guest-disk.ts';
import { eventually, MountPlace, placeForTest } from '../mounted.ts';
import { describeAboveTransports, describeTransports } from '../transports.ts';

const direct = fs.constants.O_RDONLY | fs.constants.O_DIRECT;

/** Where the guest's disk begins in the native file: all before is the file's own. */
function payloadOffsetOf(plugin: string): number {
  for (const { fileOffset } of mapOf(plugin).diskRanges()) return fileOffset;
  throw new Error(`${plugin} has no payload`);
}

describeTransports('metadata', (transport) => {
  const names = ['vm.vhdx', 'thin.vhdx'] as const;
  let place: MountPlace;

  beforeAll(async () => {
    place = new MountPlace();
    await writeGuest(place.folder, place.temporary.file('disk.raw'));
    await place.mount(...transport.options);
    return () => place.end();
  });

  const looks: ReadonlyArray<readonly [look: string, action: (name: string) => Promise<unknown>]> = [
    ['stat', (name) => fs.promises.stat(place.under(name))],
    ['a listing with sizes', () => runOk('ls', ['-lR', place.mountpoint])],
    ['open and close', async (name) => (await fs.promises.open(place.under(name))).close()],
    ['qemu-img info', (name) => runOk('qemu-img', ['info', place.under(name)])],
    ['qemu-img check', (name) => runOk('qemu-img', ['check', '-f', 'vhdx', place.under(name)])],
    ['vhdiinfo', (name) => runOk('vhdiinfo', [place.under(name)])],
    [
      'a plain read of every byte up to the end of the BAT',
      (name) => readPart(place.under(name), 0, payloadOffsetOf(place.behind(name)) - guardBytes),
    ],
    // Without the kernel's readahead, which goes on behind what was asked for.
    [
      'a read of every byte before the payload, past the page cache',
      (name) => readPart(place.under(name), 0, payloadOffsetOf(place.behind(name)), direct),
    ],
  ];

  it.each(looks)('is there for %s, with the image left unopened', async (_look, action) => {
    for (const name of names) {
      await action(name);
      expect(await place.statistics(name)).toMatchObject({ imageOpens: 0, imageOpenNow: 0, errors: 0 });
    }
  });

  it('counted as reads, while the first read of guest data opens the image, once for each thread that reads', async () => {
    const threads = transport.name === 'fuse-native' ? 1 : availableParallelism();
    for (const name of names) {
      expect((await place.statistics(name)).reads).toBeGreaterThan(0);
      for (let count = 0; count < 8; count++)
        await readPart(place.under(name), payloadOffsetOf(place.behind(name)) + count * 100_000, 512);
      const { imageOpens, imageOpenNow, errors } = await place.statistics(name);
      expect(imageOpens).toBeGreaterThan(0);
      expect(imageOpens).toBeLessThanOrEqual(threads);
      expect([imageOpenNow, errors]).toEqual([imageOpens, 0]);
    }
  });
});

describeAboveTransports('an image that is away', (transport) => {
  it('costs an I/O error at the first read of data, and none once it is back', async () => {
    const place = placeForTest();
    const raw = place.temporary.file('disk.raw');
    await writeGuest(place.folder, raw);
    const expected = place.temporary.file('expected');
    writeExpected(place.behind('vm.vhdx'), raw, expected);
    fs.renameSync(place.behind('vm.spi'), place.temporary.file('away'));
    await place.mount(...transport.options);

    const payload = payloadOffsetOf(place.behind('vm.vhdx'));
    expect(await runOk('qemu-img', ['check', '-f', 'vhdx', place.under('vm.vhdx')])).toContain('No errors');
    expectSameBytes(
      await readPart(place.under('vm.vhdx'), 0, payload, direct),
      await readPart(expected, 0, payload),
      'all before the payload',
    );
    expect(place.complaints()).toEqual([]);

    const handle = await fs.promises.open(place.under('vm.vhdx'));
    await expect(handle.read(Buffer.alloc(512), 0, 512, payload)).rejects.toMatchObject({ code: 'EIO' });
    await place.expectComplaint(/vm\.vhdx: read of \d+ bytes at \d+ failed: .*vm\.spi is not there/);
    expect((await place.statistics('vm.vhdx')).errors).toBeGreaterThan(0);

    fs.renameSync(place.temporary.file('away'), place.behind('vm.spi'));
    await eventually(async () => {
      const { buffer } = await handle.read(Buffer.alloc(512), 0, 512, payload);
      expectSameBytes(buffer, await readPart(expected, payload, 512), 'the first sector');
    }, 2000);
    await handle.close();
    // Each thread tries again by itself, a moment after it failed.
    await eventually(() => runOk('cmp', [expected, place.under('vm.vhdx')]));
  });
});

describeAboveTransports('an image that nobody reads', (transport) => {
  it('is closed after the idle time, though the disk file is open, and opened again by the next read', async () => {
    const place = placeForTest();
    const raw = place.temporary.file('disk.raw');
    await writeGuest(place.folder, raw);
    await place.mount(...transport.options, '--idle', '2');
    const payload = payloadOffsetOf(place.behind('vm.vhdx'));
    const handle = await fs.promises.open(place.under('vm.vhdx'), direct);
    try {
      await handle.read(Buffer.alloc(512), 0, 512, payload);
      expect(await place.statistics('vm.vhdx')).toMatchObject({ imageOpens: 1, imageOpenNow: 1, openNow: 1 });
      const openFiles = async (): Promise<string> =>
        await runOk('ls', ['-l', `/proc/${(await place.status()).pid}/fd`]);
      expect(await openFiles()).toContain('vm.spi');
      await eventually(
        async () => expect(await place.statistics('vm.vhdx')).toMatchObject({ imageOpenNow: 0 }),
        10_000,
      );
      expect(await openFiles()).not.toMatch(/vm\.sp[if]/);
      const { buffer } = await handle.read(Buffer.alloc(4096), 0, 4096, payload + 7 * 2 ** 20);
      expectSameBytes(buffer, await readPart(raw, 7 * 2 ** 20, 4096), 'bytes after the image was opened again');
      expect(await place.statistics('vm.vhdx')).toMatchObject({ imageOpens: 2, imageOpenNow: 1, errors: 0 });
    } finally {
      await handle.close();
    }
  });
});
