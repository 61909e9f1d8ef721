/** Every file that is made has the mode of the table, less the umask; what a machine has written is its owner's alone under any umask. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { fileModes } from '../../src/base/file-modes.ts';
import { MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { extractImage } from '../../src/backup/read/extract.ts';
import { uefiArguments } from '../../src/machine/uefi.ts';
import { mountFiles } from '../../src/mounts/mount-record.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { writeBootFile } from '../../src/plugin/boot-file.ts';
import { writePlain } from '../../src/fill/decrypt.ts';
import { plainPathOf } from '../../src/plugin/beside.ts';
import { writeSystem } from '../guest/linux/small-system.ts';
import { placeForTest } from '../mount/mounted.ts';
import { filesOf, KeptFile, placeOf } from '../replacement/kept-file.ts';
import { TempFolder } from '../temp-folder.ts';
import { runOk, veneerPath } from './veneer.ts';

type Kind = keyof typeof fileModes;
/** Where the files of each kind are, once they were made. */
type Made = Record<Kind, readonly string[]>;

async function veneerWithUmask(umask: number, ...args: string[]): Promise<void> {
  await runOk('sh', ['-c', `umask ${umask.toString(8)}; exec "$@"`, 'sh', process.execPath, veneerPath, ...args]);
}

/** @param umask of this process and of those that it starts */
async function makeAll(folder: TempFolder, umask: number): Promise<Made> {
  const mounted = placeForTest();
  const tree = folder.file('tree');
  writeSystem(tree, { fstab: '/dev/hda1 / ext4 defaults 0 1\n' });
  const volume = folder.write('volume', '');
  fs.truncateSync(volume, 32 * MiB);
  await runOk('/sbin/mke2fs', ['-q', '-F', '-t', 'ext4', '-d', tree, volume]);

  const image = mounted.behind('vm.spf');
  await createImage(volume, image);
  const encrypted = folder.file('encrypted.spf');
  await createImage(volume, encrypted, { encrypt: { kind: 'key file', secret: randomBytes(32) } });
  const plugin = mounted.behind('vm.raw');
  createPluginFile(image, plugin);
  await veneerWithUmask(umask, 'reconfigure', plugin, '--target', 'qemu');
  writeBootFile(plugin, Buffer.from('boot'));
  extractImage(image, folder.file('disk.raw'));

  const kept = placeOf(folder.file('kept.raw'), MiB, 'plain');
  using plain = new KeptFile(kept);
  plain.replacement.write(Buffer.from('x'), 0);
  const sealedPlace = placeOf(folder.file('sealed.raw'), MiB, 'sealed');
  using sealed = new KeptFile(sealedPlace);
  sealed.replacement.write(Buffer.from('x'), 0);
  writePlain(sealed.open.parts, sealedPlace.path);
  const { data: plainData, map: plainMap } = filesOf(kept);
  const { data: sealedData, map: sealedMap } = filesOf(sealedPlace);

  const variables = folder.file('variables');
  const hasUefi = attempt(() => uefiArguments(variables));
  await veneerWithUmask(umask, 'mount', mounted.folder, mounted.mountpoint);
  const { record, socket, log } = mountFiles(mounted.mountpoint);
  return {
    image: [image, encrypted],
    pluginFile: [plugin],
    patchSet: [`${plugin}.patch-qemu`],
    bootFile: [`${plugin}.boot`],
    diskFile: [folder.file('disk.raw')],
    replacement: [plainData, sealedData],
    replacementMap: [plainMap, sealedMap],
    replacementPlain: [`${plainPathOf(sealedPlace.path)}.veneer-part`],
    machineVariables: hasUefi ? [variables] : [],
    runFolder: [record.slice(0, record.lastIndexOf('/'))],
    record: [record],
    socket: [socket],
    log: [log],
  };
}

function attempt(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}

it.each([0, 0o022, 0o077])('under umask %i', async (umask) => {
  using folder = new TempFolder();
  const before = process.umask(umask);
  try {
    const made = await makeAll(folder, umask);
    for (const kind of Object.keys(fileModes) as Kind[]) {
      for (const file of made[kind]) {
        const mode = fs.lstatSync(file).mode & 0o7777;
        expect([kind, mode.toString(8)]).toEqual([kind, (fileModes[kind] & ~umask).toString(8)]);
      }
    }
  } finally {
    process.umask(before);
  }
});

it('what is the owner’s alone by the table is nobody else’s', () => {
  const open = Object.entries(fileModes).filter(([, mode]) => (mode & 0o077) !== 0);
  expect(open.map(([kind]) => kind)).toEqual(['image', 'pluginFile', 'patchSet', 'bootFile', 'diskFile']);
});

it('an image that is made on a private one, or of private ones, is private too', async () => {
  using folder = new TempFolder();
  const raw = folder.write('disk.raw', randomBytes(MiB));
  const [full, next, both] = ['1.spf', '2.spi', 'both.spf'].map((name) => folder.file(name)) as [
    string,
    string,
    string,
  ];
  await createImage(raw, full);
  fs.chmodSync(full, 0o600);
  fs.appendFileSync(raw, randomBytes(MiB));
  await createImage(raw, next, { parent: full });
  expect(fs.statSync(next).mode & 0o777).toBe(0o600);
  fs.chmodSync(next, 0o644);
  await veneerWithUmask(0o022, 'image', 'consolidate', next, both);
  expect(fs.statSync(both).mode & 0o777).toBe(0o600);
});

it('a plugin file that root reconfigures stays whose it is', async (ctx) => {
  if (process.getuid?.() !== 0) ctx.skip('only root may give files away');
  using folder = new TempFolder();
  const tree = folder.file('tree');
  writeSystem(tree, { fstab: '/dev/hda1 / ext4 defaults 0 1\n' });
  const volume = folder.write('volume', '');
  fs.truncateSync(volume, 32 * MiB);
  await runOk('/sbin/mke2fs', ['-q', '-F', '-t', 'ext4', '-d', tree, volume]);
  await createImage(volume, folder.file('vm.spf'));
  const plugin = folder.file('vm.raw');
  createPluginFile(folder.file('vm.spf'), plugin);
  fs.chownSync(plugin, 61_001, 61_001);
  fs.chmodSync(plugin, 0o640);
  await veneerWithUmask(0o022, 'reconfigure', plugin, '--target', 'qemu');
  for (const file of [plugin, `${plugin}.patch-qemu`]) {
    const { uid, gid, mode } = fs.statSync(file);
    expect([uid, gid, mode & 0o777]).toEqual([61_001, 61_001, 0o640]);
  }
});
