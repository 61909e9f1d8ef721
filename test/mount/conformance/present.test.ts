/** `--present`: every image is shown as a disk file, with no plugin file. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { createImage } from '../../../src/backup/write/create.ts';
import { extractImage } from '../../../src/backup/read/extract.ts';
import { formatNames } from '../../../src/native/formats.ts';
import { runOk, veneerOk, veneerRefuses } from '../../cli/veneer.ts';
import { writeGuest } from '../guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mounted.ts';
import { describeAboveTransports } from '../transports.ts';

const { open, readdir, readFile, stat } = fs.promises;

/** Only images: the plugin files are removed. `full.raw` is the disk as of `vm.spf`. */
async function imagePlace(): Promise<{ place: MountPlace; raw: string }> {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  for (const name of ['vm.vhdx', 'thin.vhdx']) fs.rmSync(place.behind(name));
  extractImage(place.behind('vm.spf'), place.temporary.file('full.raw'));
  return { place, raw };
}

async function expectDisk(file: string, raw: string): Promise<void> {
  const said = await runOk('qemu-img', ['compare', '-f', 'vhdx', '-F', 'raw', file, raw]);
  expect(said).toContain('Images are identical');
}

describeAboveTransports('presented images', (transport) => {
  const present = [...transport.options, '--present', 'vhdx'];

  it('each image has a disk beside it: the newest of a chain by its plain name, an older one by its whole name', async () => {
    const { place, raw } = await imagePlace();
    await createImage(raw, place.behind('other'));
    await place.mount(...present);
    expect((await readdir(place.mountpoint)).sort()).toEqual([
      'other',
      'other.vhdx',
      'vm.spf',
      'vm.spf.vhdx',
      'vm.spi',
      'vm.vhdx',
    ]);
    await expectDisk(place.under('vm.spf.vhdx'), place.temporary.file('full.raw'));
    await expectDisk(place.under('vm.vhdx'), raw);
    await expectDisk(place.under('other.vhdx'), raw);
    expect((await stat(place.under('vm.vhdx'))).mode.toString(8)).toBe('100444');
    const inodes = await Promise.all(
      (await readdir(place.mountpoint)).map(async (name) => (await stat(place.under(name))).ino),
    );
    expect(new Set(inodes).size).toBe(inodes.length);
  });

  it('the plain name is the newest point’s, also once there is a newer one', async () => {
    const { place, raw } = await imagePlace();
    await place.mount(...present);
    fs.truncateSync(raw, 10 * 1024 * 1024);
    await veneerOk('image', 'create', '--parent', place.behind('vm.spi'), raw, place.behind('vm-2.spi'));
    const shown = async (): Promise<string[]> =>
      (await readdir(place.mountpoint)).filter((name) => name.endsWith('.vhdx')).sort();
    await eventually(async () => expect(await shown()).toEqual(['vm-2.vhdx', 'vm.spf.vhdx', 'vm.spi.vhdx']));
    await expectDisk(place.under('vm-2.vhdx'), raw);
    await expect(stat(place.under('vm.vhdx'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('of two chains that would have one plain name, neither has it', async () => {
    const { place, raw } = await imagePlace();
    await createImage(raw, place.behind('vm'));
    await place.mount(...present);
    expect((await readdir(place.mountpoint)).filter((name) => name.endsWith('.vhdx')).sort()).toEqual([
      'vm.spf.vhdx',
      'vm.spi.vhdx',
      'vm.vhdx',
    ]);
    fs.renameSync(place.behind('vm'), place.behind('vm.SPF'));
    await eventually(async () =>
      expect((await readdir(place.mountpoint)).filter((name) => name.endsWith('.vhdx')).sort()).toEqual([
        'vm.SPF.vhdx',
        'vm.spf.vhdx',
        'vm.spi.vhdx',
      ]),
    );
  });

  it('an image that somebody has open keeps its place', async () => {
    const { place } = await imagePlace();
    await place.mount(...present, '--idle', '1');
    const handle = await open(place.under('vm.spf.vhdx'));
    try {
      await handle.read(Buffer.alloc(65_536), 0, 65_536, 8 * 1024 * 1024);
      await sleep(2500);
      const said = await veneerRefuses(
        'image',
        'consolidate',
        place.behind('vm.spi'),
        place.behind('vm.spi'),
        '--replace',
      );
      expect(said).toMatch(/is in use, by a mount/);
    } finally {
      await handle.close();
    }
  });

  it('a file that is really there comes first', async () => {
    const { place } = await imagePlace();
    fs.writeFileSync(place.behind('vm.vhdx'), 'a file of my own');
    await place.mount(...present);
    expect(await readFile(place.under('vm.vhdx'), 'utf8')).toBe('a file of my own');
    await expectDisk(place.under('vm.spf.vhdx'), place.temporary.file('full.raw'));
    expect(await readdir(place.mountpoint)).toContain('vm.spi.vhdx');
  });

  it('has the same bytes at every mount', async () => {
    const { place } = await imagePlace();
    const hashes: string[] = [];
    for (let mounts = 0; mounts < 2; mounts++) {
      await place.mount(...present);
      hashes.push(
        createHash('sha256')
          .update(await readFile(place.under('vm.vhdx')))
          .digest('hex'),
      );
      await place.unmount();
    }
    expect(hashes[0]).toBe(hashes[1]);
  });

  it('a damaged image, and one that was not finished, hide nothing but themselves', async () => {
    const { place } = await imagePlace();
    fs.copyFileSync(place.behind('vm.spf'), place.behind('damaged.spf'));
    fs.truncateSync(place.behind('damaged.spf'), 64 * 1024);
    fs.copyFileSync(place.behind('vm.spf'), place.behind('unfinished.spf.veneer-part'));
    await place.mount(...present);
    const names = await readdir(place.mountpoint);
    for (const name of ['vm.spf', 'vm.vhdx', 'vm.spf.vhdx', 'damaged.spf', 'unfinished.spf.veneer-part'])
      expect(names).toContain(name);
    expect(names).not.toContain('unfinished.spf.vhdx');
    await expect(open(place.under('damaged.vhdx'))).rejects.toMatchObject({ code: 'EIO' });
    await expectDisk(place.under('vm.spf.vhdx'), place.temporary.file('full.raw'));
    await place.expectComplaint(/damaged\.vhdx: cannot be shown: .*truncated/);
  });

  it('images in folders below are shown there, and one that comes or goes later is too', async () => {
    const { place } = await imagePlace();
    fs.mkdirSync(place.behind('below'));
    await place.mount(...present);
    fs.copyFileSync(place.behind('vm.spf'), place.behind('below/late.spf'));
    await eventually(() => expectDisk(place.under('below/late.vhdx'), place.temporary.file('full.raw')));
    fs.rmSync(place.behind('below/late.spf'));
    await eventually(async () => expect(await readdir(place.under('below'))).toEqual([]));
    await eventually(() => expect(stat(place.under('below/late.vhdx'))).rejects.toMatchObject({ code: 'ENOENT' }));
  });

  it('a disk that is shown is changed in no way', async () => {
    const { place } = await imagePlace();
    fs.writeFileSync(place.behind('other'), 'x');
    await place.mount(...present);
    const disk = place.under('vm.vhdx');
    const { chmod, link, rename, truncate, unlink } = fs.promises;
    for (const attempt of [
      () => open(disk, 'r+'),
      () => truncate(disk, 0),
      () => chmod(disk, 0o777),
      () => unlink(disk),
      () => link(disk, place.under('second')),
      () => rename(disk, place.under('elsewhere')),
      () => rename(place.under('other'), disk),
    ])
      await expect(attempt()).rejects.toMatchObject({ code: 'EROFS' });
    expect(fs.readdirSync(place.folder).sort()).toEqual(['other', 'vm.spf', 'vm.spi']);
  });

  it('is refused for what is no format', async () => {
    const place = placeForTest();
    const said = await veneerRefuses('mount', ...transport.options, '--present', 'iso', place.folder, place.mountpoint);
    expect(said).toMatch(/'iso' is invalid.*Allowed choices are .*vhdx/);
  });

  it('is refused for VMDK, which is two files', async () => {
    const place = placeForTest();
    const said = await veneerRefuses(
      'mount',
      ...transport.options,
      '--present',
      'vmdk',
      place.folder,
      place.mountpoint,
    );
    expect(said).toMatch(/'vmdk' is invalid/);
  });

  it.each(formatNames.filter((format) => format !== 'vmdk'))('reads right as %s', async (format) => {
    const { place, raw } = await imagePlace();
    await place.mount(...transport.options, '--present', format);
    const shown = (await readdir(place.mountpoint)).filter((name) => /^vm\.(?!sp[fi])/.test(name));
    const driver = format === 'vhd' ? 'vpc' : format;
    await runOk('qemu-img', ['compare', '-f', driver, '-F', 'raw', place.under(shown[0] ?? 'nothing'), raw]);
  });
});
