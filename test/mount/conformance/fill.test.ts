/** A disk that is copied out of its image while it is used, served alone when all is there, and put in the plugin file's place. */
import fs from 'node:fs';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createPluginFile } from '../../../src/plugin/create.ts';
import { askMount } from '../../../src/mounts/control.ts';
import { mountFiles } from '../../../src/mounts/mount-record.ts';
import type { FillStatus } from '../../../src/fill/fill-status.ts';
import { run, runOk, veneer, veneerOk, veneerRefuses } from '../../cli/veneer.ts';
import { spread } from '../../covering.ts';
import { patience } from '../../patience.ts';
import { SmallDisk, whyNoSmallDisk } from '../../replacement/small-disk.ts';
import { soak } from '../../seeded.ts';
import { diskBytes, readFrom, readPart, writeGuest } from '../guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mounted.ts';
import { describeAboveTransports } from '../transports.ts';

const withinMs = 60_000;
const writer = path.join(import.meta.dirname, '../acknowledged-writes-script.ts');

const formats = [
  { name: 'vm.vhdx', qemu: 'vhdx' },
  { name: 'vm.qcow2', qemu: 'qcow2' },
  { name: 'vm.vmdk', qemu: 'vmdk' },
  { name: 'vm.vdi', qemu: 'vdi' },
  { name: 'vm.vhd', qemu: 'vpc' },
  { name: 'vm.raw', qemu: 'raw' },
] as const;

async function placeWithGuest(...names: readonly string[]): Promise<{ place: MountPlace; raw: string }> {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  for (const made of ['vm.vhdx', 'thin.vhdx']) fs.rmSync(place.behind(made));
  for (const name of names) createPluginFile(place.behind('vm.spi'), place.behind(name));
  return { place, raw };
}

async function statusOf(file: string): Promise<FillStatus[]> {
  return JSON.parse(await veneerOk('fill', 'status', '--json', file)) as FillStatus[];
}

async function expectState(file: string, state: FillStatus['state']): Promise<FillStatus[]> {
  return await untilStatus(file, (statuses) => {
    expect(
      statuses.map((status) => status.state),
      JSON.stringify(statuses),
    ).toEqual(statuses.map(() => state));
    expect(statuses.length).toBeGreaterThan(0);
  });
}

async function untilSomeCopied(file: string): Promise<void> {
  await untilStatus(file, ([status]) => expect(status?.coldBytes).toBeGreaterThan(0));
}

/** Asks the mount itself until the expectation holds, and then the tool, which takes a while to start. */
async function untilStatus(
  file: string,
  expectation: (statuses: readonly FillStatus[]) => void,
): Promise<FillStatus[]> {
  const { socket } = mountFiles(path.dirname(file));
  const ask = { file: path.basename(file) };
  await eventually(async () => expectation(await askMount(socket, 'fill.status', ask, patience(30_000))), withinMs);
  const statuses = await statusOf(file);
  expectation(statuses);
  return statuses;
}

/** Nobody can read the images any more; the returned function puts them back. */
function takeImagesAway(place: MountPlace): () => void {
  const away = place.temporary.file('away');
  fs.mkdirSync(away);
  const names = ['vm.spf', 'vm.spi'];
  for (const name of names) fs.renameSync(place.behind(name), path.join(away, name));
  return () => {
    for (const name of names) fs.renameSync(path.join(away, name), place.behind(name));
  };
}

async function expectSameDisk(qemu: string, file: string, raw: string): Promise<void> {
  expect(await runOk('qemu-img', ['compare', '-f', qemu, '-F', 'raw', file, raw])).toContain('identical');
}

describeAboveTransports('a disk that is filled', (transport) => {
  it('in each format: written meanwhile, complete without its images, then an ordinary disk file', async () => {
    const { place, raw } = await placeWithGuest(...formats.map(({ name }) => name));
    await place.mount(...transport.options, '--fill-rate', '4M');
    const writes = ['write -P 0x5a 9M 1M', 'write -P 0x33 1234432 7680', 'flush'].flatMap((write) => ['-c', write]);
    await runOk('qemu-io', ['-f', 'raw', ...writes, raw]);
    for (const { name, qemu } of formats) {
      await veneerOk('fill', 'start', place.under(name));
      await runOk('qemu-io', ['-f', qemu, ...writes, place.under(name)]);
    }
    await veneerOk('fill', 'start', '--rate', '0', place.under('vm.raw'));
    for (const { name } of formats) await expectState(place.under(name), 'complete');
    expect(await statusOf(place.behind('vm.vmdk'))).toMatchObject([{ state: 'complete' }, { state: 'complete' }]);
    for (const { name } of spread(formats, 2))
      expect(await veneerOk('fill', 'verify', place.under(name))).toContain('replacement');
    takeImagesAway(place);
    for (const { name, qemu } of formats) {
      await expectSameDisk(qemu, place.under(name), raw);
      expect(await veneerOk('finalize', place.under(name))).toContain('ordinary disk file');
    }
    await sleep(200);
    for (const { name, qemu } of formats) {
      await expectSameDisk(qemu, place.under(name), raw);
      expect(fs.readFileSync(place.behind(`${name}.finalized`), 'utf8')).toContain('plugin file');
    }
    await place.unmount();
    for (const { name, qemu } of formats) {
      await expectSameDisk(qemu, place.behind(name), raw);
      if (qemu !== 'vpc' && qemu !== 'raw') await runOk('qemu-img', ['check', '-f', qemu, place.behind(name)]);
    }
    expect(fs.readdirSync(place.folder).filter((name) => name.includes('.replacement'))).toEqual([]);
  });

  it('cuts over under a writer, who loses nothing, with old handles and new ones', async () => {
    const { place, raw } = await placeWithGuest('vm.raw');
    await place.mount(...transport.options);
    const expected = await readPart(raw, 0, diskBytes);
    await veneerOk('fill', 'start', '--rate', '8M', place.under('vm.raw'));
    const load = spawn(
      process.execPath,
      [writer, place.under('vm.raw'), 'cut-over', String(diskBytes), String(64 * KiB)],
      {
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    );
    let text = '';
    load.stdout.on('data', (data: Buffer) => (text += data.toString()));
    const ended = new Promise((resolve) => load.on('close', resolve));
    try {
      await expectState(place.under('vm.raw'), 'complete');
      takeImagesAway(place);
      const before = text.length;
      await eventually(() => expect(text.length).toBeGreaterThan(before + 1000));
    } finally {
      load.kill('SIGKILL');
    }
    await ended;
    const lines = text.split('\n').filter((line) => line.endsWith(';'));
    for (const line of lines) {
      const [kind, offset, lengthBytes, fill] = line.slice(0, -1).split(' ');
      if (kind === 'done') expected.fill(Number(fill), Number(offset), Number(offset) + Number(lengthBytes));
    }
    const [kind, offset, lengthBytes] = (lines.at(-1) ?? '').slice(0, -1).split(' ');
    const found = await readPart(place.under('vm.raw'), 0, diskBytes);
    // Of the write that was under way, any part may be there.
    if (kind === 'begin') found.copy(expected, Number(offset), Number(offset), Number(offset) + Number(lengthBytes));
    expect(found.equals(expected)).toBe(true);
    // A new handle, and one that is older than what it writes: both see all.
    const [reader, other] = [
      await fs.promises.open(place.under('vm.raw'), 'r'),
      await fs.promises.open(place.under('vm.raw'), 'r+'),
    ];
    try {
      await other.write(Buffer.alloc(5000, 0xe7), 0, 5000, 12345);
      await other.sync();
      const target = Buffer.alloc(5000);
      await reader.read(target, 0, 5000, 12345);
      expect(target.equals(Buffer.alloc(5000, 0xe7))).toBe(true);
    } finally {
      await reader.close();
      await other.close();
    }
    await veneerOk('finalize', place.under('vm.raw'));
    expect((await readPart(place.behind('vm.raw'), 12345, 5000)).equals(Buffer.alloc(5000, 0xe7))).toBe(true);
    expect(place.complaints()).toEqual([]);
  });

  it('opens for many at once after the cut-over, while older handles are open or not', async () => {
    const { place } = await placeWithGuest('vm.raw');
    await place.mount(...transport.options);
    const file = place.under('vm.raw');
    await veneerOk('fill', 'start', file);
    await expectState(file, 'complete');
    const contents = await readPart(file, 0, diskBytes);
    for (let round = 0; round < (soak ? 20 : 2); round++) {
      const handles = await Promise.all(Array.from({ length: 8 }, async () => await fs.promises.open(file, 'r+')));
      try {
        for (const [index, handle] of handles.entries()) {
          contents.fill(round * 8 + index, index * 100_000, index * 100_000 + 70_000);
          await handle.write(contents, index * 100_000, 70_000, index * 100_000);
        }
        for (const handle of handles) {
          const found = await readFrom(handle, 0, diskBytes);
          expect(found.equals(contents)).toBe(true);
        }
      } finally {
        await Promise.all(handles.map(async (handle) => await handle.close()));
      }
    }
    await veneerOk('finalize', file);
    expect((await readPart(place.behind('vm.raw'), 0, diskBytes)).equals(contents)).toBe(true);
  });

  it('is its disk file after the cut-over, to its real length: grown, punched, cut; for many at once, and in the next mount', async () => {
    const { place, raw } = await placeWithGuest('vm.raw');
    await place.mount(...transport.options, '--fill');
    const file = place.under('vm.raw');
    await expectState(file, 'complete');
    const model = await readPart(raw, 0, diskBytes);
    let contents = Buffer.concat([model, Buffer.alloc(128 * KiB, 'G')]);
    const handle = await fs.promises.open(file, 'r+');
    try {
      await handle.write(Buffer.alloc(128 * KiB, 'G'), 0, 128 * KiB, diskBytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    // QEMU punches where the transport can, and writes zeros where it cannot.
    const asks = [`discard ${diskBytes + 8192 - 512} 4096`, `write -z ${2 * MiB + 512} 1024`];
    const opened = `driver=raw,discard=unmap,file.driver=file,file.discard=unmap,file.filename=${file}`;
    for (const ask of asks) await runOk('qemu-io', ['--image-opts', opened, '-c', ask]);
    contents.fill(0, 2 * MiB + 512, 2 * MiB + 1536);
    const expectHeld = async (): Promise<void> => {
      const found = await readPart(file, 0, contents.length + 1);
      // A discard is a hint; what is discarded reads as before or as zeros.
      const discarded = found.subarray(diskBytes + 8192 - 512, diskBytes + 8192 - 512 + 4096);
      if (discarded.every((byte) => byte === 0)) contents.fill(0, diskBytes + 8192 - 512, diskBytes + 8192 + 3584);
      expect(found.equals(contents)).toBe(true);
    };
    await expectHeld();
    for (const options of [['--transport', 'fuse-native'], ...(soak ? [transport.options] : []), transport.options]) {
      await place.unmount();
      await place.mount(...options);
      const handles = await Promise.all(Array.from({ length: 6 }, async () => await fs.promises.open(file, 'r+')));
      try {
        for (const [index, each] of handles.entries()) {
          const at = diskBytes + 20_000 * index + 5;
          await each.write(Buffer.alloc(100, index + 1), 0, 100, at);
          contents.fill(index + 1, at, at + 100);
        }
      } finally {
        await Promise.all(handles.map(async (each) => await each.close()));
      }
      await expectHeld();
    }
    const proof = await veneer('fill', 'verify', file);
    expect(proof.status).toBe(0);
    expect(proof.stdout).toMatch(/128 KiB|lie behind the end of the image/);
    await fs.promises.truncate(file, 10 * MiB);
    await fs.promises.truncate(file, 30 * MiB);
    contents = Buffer.concat([contents.subarray(0, 10 * MiB), Buffer.alloc(20 * MiB)]);
    await expectHeld();
    await place.unmount();
    await place.mount('--transport', 'fuse-native');
    await expectHeld();
    await veneerOk('finalize', file);
    expect((await readPart(place.behind('vm.raw'), 0, 31 * MiB)).equals(contents)).toBe(true);
  });

  it('pauses, goes on, is cancelled and gives its room back; what was written stays', async () => {
    const { place, raw } = await placeWithGuest('vm.raw');
    const file = place.under('vm.raw');
    await place.mount(...transport.options);
    expect(await veneerRefuses('fill', 'pause', file)).toContain('veneer fill start');
    expect(await veneerRefuses('fill', 'resume', file)).toContain('veneer fill start');
    expect(await veneerRefuses('finalize', file)).toContain('veneer fill start');
    const writes = ['-c', 'write -P 0x5a 9M 1M'];
    await runOk('qemu-io', ['-f', 'raw', ...writes, file]);
    await runOk('qemu-io', ['-f', 'raw', ...writes, raw]);
    await veneerOk('fill', 'start', '--rate', '256K', file);
    await untilSomeCopied(file);
    expect(await veneerOk('fill', 'pause', file)).toContain('paused');
    const [paused] = await statusOf(file);
    expect(paused?.presentBytes).toBeGreaterThan(0);
    await sleep(300);
    expect((await statusOf(file))[0]?.presentBytes).toBe(paused?.presentBytes);
    expect(await veneerRefuses('finalize', file)).toContain('paused');
    expect(await veneerOk('fill', 'resume', file)).toContain('filling');
    expect(await veneerOk('fill', 'cancel', file)).toContain('intercepting');
    const [cancelled] = await statusOf(file);
    expect(cancelled?.presentBytes).toBe(cancelled?.writtenBytes);
    expect(fs.statSync(place.behind('vm.raw.replacement')).blocks * 512).toBeLessThan(2 * MiB);
    await expectSameDisk('raw', file, raw);
    expect(await veneerRefuses('fill', 'start', place.under('vm.spi'))).toContain('not a plugin file');
  });

  it('goes on by itself after an unmount, and after a kill, where it was', async () => {
    const { place, raw } = await placeWithGuest('vm.qcow2');
    const file = place.under('vm.qcow2');
    await place.mount(...transport.options, '--fill', '--fill-rate', '256K');
    for (const end of [() => place.unmount(), () => place.kill()]) {
      await untilSomeCopied(file);
      const before = (await statusOf(file))[0]?.presentBytes ?? 0;
      await end();
      await place.mount(...transport.options, '--fill-rate', '256K');
      const [after] = await statusOf(file);
      expect(after?.state).toBe('filling');
      expect(after?.presentBytes).toBeGreaterThanOrEqual(before);
    }
    await veneerOk('fill', 'start', '--rate', '0', file);
    await expectState(file, 'complete');
    await place.unmount();
    fs.rmSync(place.behind('vm.spi'));
    // With no mount either.
    expect(await veneerOk('finalize', place.behind('vm.qcow2'))).toContain('ordinary disk file');
    await expectSameDisk('qcow2', place.behind('vm.qcow2'), raw);
  });

  it('waits while the image is away: what is there is served, the rest fails, nothing written is lost', async () => {
    const { place, raw } = await placeWithGuest('vm.raw');
    const file = place.under('vm.raw');
    await place.mount(...transport.options, '--idle', '0');
    await veneerOk('fill', 'start', '--rate', '256K', file);
    await untilSomeCopied(file);
    await veneerOk('fill', 'pause', file);
    const putBack = takeImagesAway(place);
    await veneerOk('fill', 'resume', file);
    const writes = ['-c', 'write -P 0x5a 9M 64k'];
    await runOk('qemu-io', ['-f', 'raw', ...writes, file]);
    await runOk('qemu-io', ['-f', 'raw', ...writes, raw]);
    const [waiting] = await untilStatus(file, ([status]) => expect(status?.activity).toBe('waiting'));
    expect(waiting?.state).toBe('filling');
    expect(waiting?.note).toContain('vm.spi');
    expect((await run('qemu-io', ['-f', 'raw', '-r', '-c', 'read 20M 64k', file])).stdout).toContain(
      'Input/output error',
    );
    await runOk('qemu-io', ['-f', 'raw', '-r', '-c', 'read -P 0x5a 9M 64k', file]);
    putBack();
    await veneerOk('fill', 'start', '--rate', '0', file);
    await expectState(file, 'complete');
    await expectSameDisk('raw', file, raw);
    expect((await veneer('fill', 'verify', file)).status).toBe(0);
  });

  it('shares a rate with another one fairly', async () => {
    const { place } = await placeWithGuest('one.raw', 'two.raw');
    await place.mount(...transport.options, '--fill', '--fill-rate', '1M');
    await eventually(async () => {
      const copied = (await place.status()).fills?.map((fill) => fill.coldBytes) ?? [];
      expect(copied).toHaveLength(2);
      expect(Math.min(...copied)).toBeGreaterThan(2 * MiB);
    }, withinMs);
    const [one = 0, two = 0] = (await place.status()).fills?.map((fill) => fill.coldBytes) ?? [];
    expect(one / two).toBeGreaterThan(0.5);
    expect(one / two).toBeLessThan(2);
  });

  it.skipIf(whyNoSmallDisk('tmpfs') !== undefined)(
    `begins only where there is room, pauses before guests run out of it, and goes on when told that there is some ${whyNoSmallDisk('tmpfs') ?? ''}`,
    async () => {
      const { place, raw } = await placeWithGuest('vm.raw');
      using small = new SmallDisk('tmpfs', 64 * MiB);
      for (const name of fs.readdirSync(place.folder)) fs.cpSync(place.behind(name), path.join(small.path, name));
      const makeRoom = small.leave(4 * MiB);
      const mountpoint = place.mountpoint;
      await veneerOk('mount', ...transport.options, small.path, mountpoint);
      try {
        const file = place.under('vm.raw');
        await veneerOk('fill', 'start', file);
        const [refused] = await expectState(file, 'paused');
        expect(refused?.note).toMatch(/the fill needs .* more and leaves .* to guests, and its disk has .*make room/);
        expect((refused?.hotBytes ?? 0) + (refused?.coldBytes ?? 0)).toBe(0);
        makeRoom();
        // Others take the room while it copies, slowly enough to be met at it: it stops before a guest's write fails.
        await veneerOk('fill', 'resume', '--rate', '256K', file);
        await untilSomeCopied(file);
        const makeRoomAgain = small.leave(2 * MiB);
        const [stopped] = await expectState(file, 'paused');
        expect(stopped?.note).toMatch(/the fill leaves .* to guests/);
        {
          await using handle = await fs.promises.open(file, 'r+');
          await handle.write(fs.readFileSync(raw).subarray(20 * MiB, 20 * MiB + 4 * KiB), 0, 4 * KiB, 20 * MiB);
          await handle.sync();
        }
        await expectSameDisk('raw', file, raw);
        makeRoomAgain();
        await veneerOk('fill', 'resume', '--rate', '0', file);
        await expectState(file, 'complete');
        await expectSameDisk('raw', file, raw);
      } finally {
        await place.unmount();
      }
    },
  );
});
