/** What `veneer status` tells: the right numbers, for people and for programs. */
import fs from 'node:fs';
import net from 'node:net';
import { availableParallelism } from 'node:os';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { mountFiles } from '../../../src/mounts/mount-record.ts';
import { veneer, veneerOk } from '../../cli/veneer.ts';
import { mapOf, readFrom, writeGuest } from '../guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mounted.ts';
import { describeAboveTransports, type Transport } from '../transports.ts';

const direct = fs.constants.O_RDONLY | fs.constants.O_DIRECT;
const payload = 5 * MiB;

async function guestPlace(transport: Transport, ...options: string[]): Promise<MountPlace> {
  const place = placeForTest();
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  await place.mount(...transport.options, ...options);
  return place;
}

describeAboveTransports('status', (transport) => {
  it('tells of every plugin file from the start, and of no other file', async () => {
    const place = await guestPlace(transport, '--cache', '32M');
    const status = await place.status();
    expect(status).toMatchObject({
      folder: place.folder,
      mountpoint: place.mountpoint,
      transport: transport.name,
      cacheBudgetBytes: 32 * MiB,
      log: mountFiles(place.mountpoint).log,
    });
    expect(status.residentBytes).toBeGreaterThan(10 * MiB);
    expect(Date.now() - Date.parse(status.startedAt)).toBeLessThan(60_000);
    expect(status.files.map((file) => file.name).sort()).toEqual(['thin.vhdx', 'vm.vhdx']);
    expect(await place.statistics('vm.vhdx')).toMatchObject({
      sizeBytes: mapOf(place.behind('vm.vhdx')).sizeBytes,
      opens: 0,
      openNow: 0,
      reads: 0,
      readBytes: 0,
      errors: 0,
      imageOpens: 0,
      imageOpenNow: 0,
    });
  });

  it('counts opens, reads, bytes and blocks found in the cache', async () => {
    const place = await guestPlace(transport);
    const handle = await fs.promises.open(place.under('vm.vhdx'), direct);
    const second = await fs.promises.open(place.under('vm.vhdx'), direct);
    expect(await place.statistics('vm.vhdx')).toMatchObject({ opens: 2, openNow: 2 });
    await second.close();

    await readFrom(handle, 0, 64 * KiB);
    expect(await place.statistics('vm.vhdx')).toMatchObject({ reads: 1, readBytes: 64 * KiB, imageOpens: 0 });

    // 16 reads of 4 KiB: one block, which was just written into the newest image. Each thread opens and inflates for itself.
    for (let part = 0; part < 16; part++) await readFrom(handle, payload + part * 4096, 4096);
    const threads = transport.name === 'fuse-native' ? 1 : availableParallelism();
    const counted = await place.statistics('vm.vhdx');
    expect(counted).toMatchObject({ reads: 17, readBytes: 128 * KiB, errors: 0 });
    expect(counted.imageOpens).toBeGreaterThan(0);
    expect(counted.imageOpens).toBeLessThanOrEqual(threads);
    expect(counted.imageOpenNow).toBe(counted.imageOpens);
    expect(counted.cacheMisses).toBeGreaterThan(0);
    expect(counted.cacheMisses).toBeLessThanOrEqual(threads);
    expect(counted.cacheHits).toBe(16 - counted.cacheMisses);
    const { latencyMicroseconds: latency } = counted;
    if (latency === undefined) expect.fail('no latency');
    expect(latency.p50).toBeGreaterThan(0);
    expect([latency.p50, latency.p90, latency.p99, latency.max]).toEqual(
      [latency.p50, latency.p90, latency.p99, latency.max].sort((a, b) => a - b),
    );

    await handle.close();
    await eventually(async () => expect(await place.statistics('vm.vhdx')).toMatchObject({ opens: 2, openNow: 0 }));
    expect(await place.statistics('thin.vhdx')).toMatchObject({ opens: 0, reads: 0 });
  });

  it('counts errors', async () => {
    const place = await guestPlace(transport);
    fs.rmSync(place.behind('vm.spf'));
    const handle = await fs.promises.open(place.under('vm.vhdx'), direct);
    for (let count = 1; count <= 3; count++) {
      await expect(handle.read(Buffer.alloc(512), 0, 512, payload)).rejects.toMatchObject({ code: 'EIO' });
      expect(await place.statistics('vm.vhdx')).toMatchObject({ errors: count, reads: 0, imageOpenNow: 0 });
    }
    await handle.close();
  });

  it('says the same to people', async () => {
    const place = await guestPlace(transport);
    const before = await veneerOk('status', place.mountpoint);
    expect(before).toContain(`${place.folder} at ${place.mountpoint}, since `);
    expect(before).toContain(transport.name);
    expect(before).toContain(`log ${mountFiles(place.mountpoint).log}`);
    expect(before).toMatch(/vm\.vhdx: 30 MiB, open 0 \(0 in all\), image not open \(opened 0 times\)/);
    expect(before).toContain('no reads yet');
    const handle = await fs.promises.open(place.under('vm.vhdx'), direct);
    for (let part = 0; part < 4; part++) await readFrom(handle, payload + part * 4096, 4096);
    const after = await veneerOk('status', place.mountpoint);
    const { imageOpens, cacheHits, cacheMisses } = await place.statistics('vm.vhdx');
    const hits = Math.round((100 * cacheHits) / (cacheHits + cacheMisses));
    expect(after).toContain(`vm.vhdx: 30 MiB, open 1 (1 in all), image open (opened ${imageOpens} times)`);
    expect(after).toContain(`4 reads, 16 KiB, ${hits} % of blocks from the cache, 0 errors, read latency p50 `);
    await handle.close();
  });

  it('answers while reads go on', async () => {
    const place = await guestPlace(transport);
    const handle = await fs.promises.open(place.under('vm.vhdx'), direct);
    let stop = false;
    const reading = (async () => {
      while (!stop) await readFrom(handle, payload, 8 * MiB);
    })();
    for (let count = 0; count < 3; count++) expect((await place.status()).pid).toBeGreaterThan(0);
    stop = true;
    await reading;
    await handle.close();
  });

  it('nonsense on the control socket is survived', async () => {
    const place = await guestPlace(transport);
    const { pid } = await place.status();
    for (const nonsense of ['\n', 'not JSON\n', '{"command":"explode"}\n', 'null\n', `${'x'.repeat(100_000)}\n`]) {
      await new Promise<void>((resolve) => {
        const connection = net.connect(mountFiles(place.mountpoint).socket);
        connection.on('error', () => resolve()).on('close', () => resolve());
        connection.resume();
        connection.write(nonsense);
      });
    }
    expect((await place.status()).pid).toBe(pid);
  });

  it('a mount that does not answer is reported, and the others are still told of', async () => {
    const [silent, other] = [await guestPlace(transport), await guestPlace(transport)];
    const { pid } = await silent.status();
    process.kill(pid, 'SIGSTOP');
    try {
      const { status, stdout, stderr } = await veneer('status');
      expect(status).toBe(1);
      expect(stdout).toContain(other.mountpoint);
      // There may be mounts of others on this machine.
      const lines = stderr.split('\n').filter((line) => line.includes(silent.mountpoint));
      expect(lines).toEqual([
        expect.stringMatching(/^veneer: .*: cannot tell its status: .*no answer within 5000 ms$/),
      ]);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
  });
});
