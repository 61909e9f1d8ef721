/** Images are never changed, and a plugin file's disk is not written, whichever way one tries. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { beforeAll, expect, it } from 'vitest';
import { KiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { run, runOk, veneerOk } from '../../cli/veneer.ts';
import { writeDisk, writeGuest } from '../guest-disk.ts';
import { MountPlace, placeForTest } from '../mounted.ts';
import { describeAboveTransports, describeTransports } from '../transports.ts';

const { chmod, chown, copyFile, link, open, rename, stat, symlink, truncate, unlink, utimes, writeFile } = fs.promises;

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describeTransports('what is read-only', (transport) => {
  let place: MountPlace;
  /** Of every file behind the mount: what it holds, and when its inode was last changed. */
  const states = (): string[] =>
    fs
      .readdirSync(place.folder)
      .filter((name) => name.startsWith('vm.'))
      .map((name) => {
        const { ino, mode, uid, mtimeMs, nlink } = fs.statSync(place.behind(name));
        return [name, ino, mode, uid, mtimeMs, nlink, sha256(fs.readFileSync(place.behind(name)))].join(' ');
      });

  beforeAll(async () => {
    place = new MountPlace();
    await writeGuest(place.folder, place.temporary.file('disk.raw'));
    fs.writeFileSync(place.behind('other'), 'other');
    await place.mount(...transport.options, '--write', 'none');
    return () => place.end();
  });

  const file = (name: string): string => place.under(name);
  const ways: ReadonlyArray<readonly [way: string, attempt: (name: string) => Promise<unknown>]> = [
    ['opened for writing', (name) => open(file(name), 'r+')],
    ['opened for writing only', (name) => open(file(name), fs.constants.O_WRONLY)],
    ['opened for appending', (name) => open(file(name), 'a')],
    ['opened with truncation', (name) => open(file(name), 'w')],
    ['opened for reading with truncation', (name) => open(file(name), fs.constants.O_RDONLY | fs.constants.O_TRUNC)],
    ['truncated', (name) => truncate(file(name), 0)],
    ['extended', (name) => truncate(file(name), 2 ** 40)],
    ['given another mode', (name) => chmod(file(name), 0o666)],
    ['given another owner', (name) => chown(file(name), 1, 1)],
    ['given other times', (name) => utimes(file(name), 1, 1)],
  ];
  const waysOfNames: ReadonlyArray<readonly [way: string, attempt: (name: string) => Promise<unknown>]> = [
    ['deleted', (name) => unlink(file(name))],
    ['renamed', (name) => rename(file(name), file('elsewhere'))],
    ['replaced by renaming another file over it', (name) => rename(file('other'), file(name))],
    ['given a second name', (name) => link(file(name), file('second'))],
    ['copied over', (name) => copyFile(file('other'), file(name))],
  ];

  it.each(ways)('an image and a plugin file cannot be %s', async (_way, attempt) => {
    const before = states();
    for (const name of ['vm.spf', 'vm.spi', 'vm.vhdx'])
      await expect(attempt(name), name).rejects.toMatchObject({ code: 'EROFS' });
    expect(states()).toEqual(before);
  });

  it.each(waysOfNames)('an image cannot be %s', async (_way, attempt) => {
    const before = states();
    for (const name of ['vm.spf', 'vm.spi']) await expect(attempt(name), name).rejects.toMatchObject({ code: 'EROFS' });
    expect(states()).toEqual(before);
    expect(fs.readFileSync(place.behind('other'), 'utf8')).toBe('other');
  });

  it('none of them has a permission to write', async () => {
    for (const name of ['vm.spf', 'vm.spi', 'vm.vhdx', 'thin.vhdx'])
      expect((await stat(file(name))).mode.toString(8), name).toBe('100444');
  });

  it('an image that is open for reading cannot be deleted or replaced either', async () => {
    const handle = await open(file('vm.spf'));
    await expect(unlink(file('vm.spf'))).rejects.toMatchObject({ code: 'EROFS' });
    await expect(rename(file('other'), file('vm.spf'))).rejects.toMatchObject({ code: 'EROFS' });
    await handle.close();
    expect(fs.readdirSync(place.folder).filter((name) => name.includes('fuse_hidden'))).toEqual([]);
  });

  it('an image cannot be written by way of a link', async () => {
    await symlink('vm.spf', file('a link'));
    await expect(open(file('a link'), 'r+')).rejects.toMatchObject({ code: 'EROFS' });
    await unlink(file('a link'));
  });

  it('an image reads as it is', async () => {
    await runOk('cmp', [place.behind('vm.spf'), file('vm.spf')]);
    expect(await veneerOk('image', 'verify', file('vm.spi'))).toContain('sound');
  });

  it('QEMU is told that it cannot write', async () => {
    const { status, stdout, stderr } = await run('qemu-io', ['-f', 'vhdx', '-c', 'write 0 512', file('vm.vhdx')]);
    expect(status, stdout).not.toBe(0);
    expect(stderr).toMatch(/read-only/i);
  });
});

describeAboveTransports('what may be done with plugin files and new images', (transport) => {
  it('a plugin file is renamed, and deleted, as any file', async () => {
    const place = placeForTest();
    await writeGuest(place.folder, place.temporary.file('disk.raw'));
    await place.mount(...transport.options);
    const { size } = await stat(place.under('vm.vhdx'));
    await rename(place.under('vm.vhdx'), place.under('renamed.bin'));
    expect((await stat(place.under('renamed.bin'))).size).toBe(size);
    await runOk('qemu-img', ['check', '-f', 'vhdx', place.under('renamed.bin')]);
    await unlink(place.under('renamed.bin'));
    await writeFile(place.under('other'), 'x');
    await expect(rename(place.under('other'), place.under('thin.vhdx'))).rejects.toMatchObject({ code: 'EROFS' });
    await runOk('qemu-img', ['check', '-f', 'vhdx', place.under('thin.vhdx')]);
    expect(fs.readdirSync(place.folder).sort()).toEqual(['other', 'thin.vhdx', 'vm.spf', 'vm.spi']);
  });

  it('an image and a plugin file are made in the mounted folder itself', async () => {
    const place = placeForTest();
    const raw = place.temporary.file('disk.raw');
    writeDisk(raw, 'made under the mount');
    await place.mount(...transport.options);
    await veneerOk('image', 'create', raw, place.under('new.spf'));
    await expect(open(place.under('new.spf'), 'r+')).rejects.toMatchObject({ code: 'EROFS' });
    await veneerOk('plugin', 'create', place.under('new.spf'), place.under('new.vhdx'));
    expect(fs.readdirSync(place.folder).sort()).toEqual(['new.spf', 'new.vhdx']);
    const said = await runOk('qemu-img', ['compare', '-f', 'vhdx', '-F', 'raw', place.under('new.vhdx'), raw]);
    expect(said).toContain('Images are identical');
  });

  it('an image that was not finished is no image: it may be removed', async () => {
    const place = placeForTest();
    const raw = place.temporary.file('disk.raw');
    writeDisk(raw, 'unfinished');
    await createImage(raw, place.behind('whole.spf'));
    fs.writeFileSync(
      place.behind('vm.spf.veneer-part'),
      fs.readFileSync(place.behind('whole.spf')).subarray(0, 64 * KiB),
    );
    await place.mount(...transport.options);
    await unlink(place.under('vm.spf.veneer-part'));
    expect(fs.readdirSync(place.folder)).toEqual(['whole.spf']);
  });
});
