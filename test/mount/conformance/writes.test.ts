/** Writes to a native file: kept beside its plugin file, and never in the image. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createPluginFile } from '../../../src/plugin/create.ts';
import { run, runOk, veneerOk } from '../../cli/veneer.ts';
import { seededTest, soak } from '../../seeded.ts';
import { diskBytes, readPart, writeGuest } from '../guest-disk.ts';
import { placeForTest, type MountPlace } from '../mounted.ts';
import { describeAboveTransports, describeTransports } from '../transports.ts';

/** QEMU's name of each format, and whether it can check it. */
const formats = [
  { name: 'vm.vhdx', qemu: 'vhdx', isChecked: true },
  { name: 'vm.qcow2', qemu: 'qcow2', isChecked: true },
  { name: 'vm.vmdk', qemu: 'vmdk', isChecked: true },
  { name: 'vm.vdi', qemu: 'vdi', isChecked: true },
  { name: 'vm.vhd', qemu: 'vpc', isChecked: false },
  { name: 'vm.raw', qemu: 'raw', isChecked: false },
] as const;

async function placeWithGuest(): Promise<{ place: MountPlace; raw: string }> {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  for (const { name } of formats) {
    if (!fs.existsSync(place.behind(name))) createPluginFile(place.behind('vm.spi'), place.behind(name));
  }
  return { place, raw };
}

function hashOfImages(place: MountPlace): string {
  const hash = createHash('sha256');
  for (const name of ['vm.spf', 'vm.spi']) hash.update(fs.readFileSync(place.behind(name)));
  return hash.digest('hex');
}

async function writeAt(file: string, bytes: Uint8Array, offset: number): Promise<void> {
  const handle = await fs.promises.open(file, 'r+');
  try {
    const { bytesWritten } = await handle.write(bytes, 0, bytes.length, offset);
    expect(bytesWritten).toBe(bytes.length);
  } finally {
    await handle.close();
  }
}

describeTransports('writes to a native file', (transport) => {
  it('eight writers at once lose nothing and mix nothing up', async () => {
    const { place } = await placeWithGuest();
    await place.mount(...transport.options);
    const job = ['--name=v', '--rw=randwrite', '--bs=4k', '--direct=1', '--ioengine=psync', '--size=2m', '--numjobs=8'];
    const verify = ['--offset_increment=3m', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0'];
    await runOk('fio', [...job, ...verify, `--filename=${place.under('vm.raw')}`], place.temporary.path);
  });

  it('a write is kept when the process is killed, and the mount finds it again', async () => {
    const { place } = await placeWithGuest();
    await place.mount(...transport.options);
    await writeAt(place.under('vm.raw'), Buffer.alloc(100 * KiB, 0x77), 5 * MiB + 123);
    await place.kill();
    await place.mount(...transport.options);
    expect(await readPart(place.under('vm.raw'), 5 * MiB + 123, 100 * KiB)).toEqual(Buffer.alloc(100 * KiB, 0x77));
  });

  it('random writes, sizes and mounts read as a plain file that got the same', async () => {
    const random = seededTest('writes through a mount');
    const { place, raw } = await placeWithGuest();
    await place.mount(...transport.options);
    const file = place.under('vm.raw');
    for (let step = 0; step < (soak ? 1000 : 60); step++) {
      const size = fs.statSync(raw).size;
      const kind = random.below(20);
      if (kind === 0) {
        await place.unmount();
        await place.mount(...transport.options);
      } else if (kind === 1) {
        const sizeBytes = random.below(2 * diskBytes);
        await fs.promises.truncate(file, sizeBytes);
        await fs.promises.truncate(raw, sizeBytes);
      } else if (kind < 12) {
        const bytes = random.bytes(1 + random.below(200 * KiB));
        const offset = random.below(size + MiB);
        await writeAt(file, bytes, offset);
        await writeAt(raw, bytes, offset);
      } else {
        const offset = random.below(size + 1);
        const length = random.below(300 * KiB);
        const [found, wanted] = [await readPart(file, offset, length), await readPart(raw, offset, length)];
        expect(found.equals(wanted), `${length} bytes at ${offset} in step ${step}`).toBe(true);
      }
    }
    await runOk('cmp', [file, raw]);
  });
});

describeAboveTransports('writes to a native file, kept beside it,', (transport) => {
  it('QEMU writes into each format, and finds it after the next mount; the images are what they were', async () => {
    const { place, raw } = await placeWithGuest();
    const before = hashOfImages(place);
    await place.mount(...transport.options);
    for (const { name, qemu } of formats) {
      const writes = ['write -P 0x5a 9M 2M', 'write -P 0x33 1234432 7680', 'flush'];
      await runOk('qemu-io', ['-f', qemu, ...writes.flatMap((write) => ['-c', write]), place.under(name)]);
    }
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 9M 2M', '-c', 'write -P 0x33 1234432 7680', raw]);
    for (let mounts = 0; mounts < 2; mounts++) {
      for (const { name, qemu, isChecked } of formats) {
        expect(await runOk('qemu-img', ['compare', '-f', qemu, '-F', 'raw', place.under(name), raw])).toContain(
          'identical',
        );
        if (isChecked) await runOk('qemu-img', ['check', '-f', qemu, place.under(name)]);
      }
      await place.unmount();
      if (mounts === 0) await place.mount(...transport.options);
    }
    expect(hashOfImages(place)).toBe(before);
  });

  it('--write discard throws away at unmount what was written, and leaves what an earlier mount kept', async () => {
    const { place } = await placeWithGuest();
    const at = (file: string): Promise<Buffer> => readPart(file, 4 * MiB, 6);
    await place.mount(...transport.options);
    await writeAt(place.under('vm.raw'), Buffer.from('keeper'), 4 * MiB);
    await place.unmount();
    const before = fs.readdirSync(place.folder).sort();
    await place.mount(...transport.options, '--write', 'discard');
    await writeAt(place.under('vm.raw'), Buffer.from('passer'), 4 * MiB);
    expect((await at(place.under('vm.raw'))).toString()).toBe('passer');
    await place.unmount();
    expect(fs.readdirSync(place.folder).sort()).toEqual(before);
    await place.mount(...transport.options);
    expect((await at(place.under('vm.raw'))).toString()).toBe('keeper');
  });

  it('--write none refuses to open for writing', async () => {
    const { place } = await placeWithGuest();
    await place.mount(...transport.options, '--write', 'none');
    await expect(fs.promises.open(place.under('vm.vhdx'), 'r+')).rejects.toMatchObject({ code: 'EROFS' });
    expect((await fs.promises.stat(place.under('vm.vhdx'))).mode & 0o222).toBe(0);
  });

  it('what is kept is not shown, cannot be touched, and goes with its plugin file', async () => {
    const { place } = await placeWithGuest();
    await place.mount(...transport.options);
    await writeAt(place.under('vm.raw'), Buffer.from('x'), 0);
    expect(fs.existsSync(place.behind('vm.raw.replacement'))).toBe(true);
    expect((await fs.promises.readdir(place.mountpoint)).filter((name) => name.includes('replacement'))).toEqual([]);
    await expect(fs.promises.open(place.under('vm.raw.replacement'))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(fs.promises.writeFile(place.under('vm.raw.replacement'), 'x')).rejects.toThrow(/ENOENT|EACCES/);
    // A name like it, of no disk, is a name like any.
    await fs.promises.writeFile(place.under('other.replacement'), 'x');
    expect(await fs.promises.readFile(place.under('other.replacement'), 'utf8')).toBe('x');
    await fs.promises.rm(place.under('vm.raw'));
    expect(fs.readdirSync(place.folder).filter((name) => name.startsWith('vm.raw'))).toEqual([]);
  });

  it('a full disk behind reaches the writer as ENOSPC, the rest stays readable, and room lets it go on', async () => {
    const { place } = await placeWithGuest();
    const small = place.temporary.file('small');
    fs.mkdirSync(small);
    const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=40m', 'tmpfs', small]);
    if (mounted.status !== 0) return expect.fail(`no tmpfs could be mounted: ${mounted.stderr}`);
    try {
      for (const name of ['vm.spf', 'vm.spi', 'vm.raw']) fs.copyFileSync(place.behind(name), `${small}/${name}`);
      await veneerOk('mount', ...transport.options, small, place.mountpoint);
      try {
        const ballast = `${small}/ballast`;
        fs.writeFileSync(ballast, Buffer.alloc(fs.statfsSync(small).bavail * 4096 - MiB));
        const full = await run('dd', [
          'if=/dev/urandom',
          `of=${place.under('vm.raw')}`,
          'bs=1M',
          'count=8',
          'conv=notrunc',
        ]);
        expect(full.stderr).toContain('No space left on device');
        expect((await readPart(place.under('vm.raw'), 12 * MiB, MiB)).length).toBe(MiB);
        fs.rmSync(ballast);
        await runOk('dd', ['if=/dev/zero', `of=${place.under('vm.raw')}`, 'bs=1M', 'count=8', 'conv=notrunc,fsync']);
        expect(await readPart(place.under('vm.raw'), 0, MiB)).toEqual(Buffer.alloc(MiB));
      } finally {
        await veneerOk('unmount', '--lazy', place.mountpoint);
      }
    } finally {
      await run('umount', ['-l', small]);
    }
  });
});
