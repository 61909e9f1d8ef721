/** `veneer plugin create --boot`, as a user meets it, and what becomes of such a plugin file under a mount. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closing } from '../../src/base/ownership.ts';
import { MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { parsePluginFile, type PluginFile } from '../../src/plugin/plugin-file.ts';
import { run, runOk, veneer, veneerOk, veneerRefuses } from '../cli/veneer.ts';
import { MountPlace, placeForTest } from '../mount/mounted.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

const made = new TempFolder();
afterAll(() => made.remove());
const systemBytes = 24 * MiB;
const dataBytes = 5 * MiB + 512;

beforeAll(async () => {
  fs.truncateSync(made.write('system.raw', ''), systemBytes);
  await runOk('/sbin/mke2fs', ['-q', '-t', 'ext4', made.file('system.raw')]);
  made.write('data.raw', new Seeded('bootable data').bytes(dataBytes));
  made.write('ntfs.raw', '');
  fs.truncateSync(made.file('ntfs.raw'), 8 * MiB);
  await runOk('/sbin/mkntfs', ['-q', '-F', made.file('ntfs.raw')]);
  made.write('disk.raw', '');
  fs.truncateSync(made.file('disk.raw'), 8 * MiB);
  await runOk('bash', ['-c', 'echo start=2048 | /sbin/sfdisk -q "$1"', 'bash', made.file('disk.raw')]);
  for (const name of ['system', 'data', 'ntfs', 'disk']) {
    await createImage(made.file(`${name}.raw`), made.file(`${name}.spf`), { content: 'volume' });
  }
});

/** A place with copies of these images. */
function place(...images: readonly string[]): MountPlace {
  const there = placeForTest();
  for (const name of images) fs.copyFileSync(made.file(`${name}.spf`), there.behind(`${name}.spf`));
  return there;
}

function plugin(file: string): PluginFile {
  return parsePluginFile(fs.readFileSync(file), file);
}

function hashOf(file: string): string {
  return createHash('sha256').update(fs.readFileSync(file)).digest('hex');
}

it('says what boots, and show lists the partitions', async () => {
  const there = place('system');
  const file = there.behind('vm.vhdx');
  const said = await veneerOk('plugin', 'create', there.behind('system.spf'), file, '--boot', 'uefi');
  expect(said).toContain(`${file}: boots with UEFI from a disk with a GPT; GRUB of this host, kept in vm.vhdx.boot\n`);
  const shown = await veneerOk('plugin', 'show', file);
  expect(shown).toMatch(/^ {2}1 +efi-system, 64 MiB at 1 MiB, made$/m);
  expect(shown).toMatch(/^ {2}2 +linux, 24 MiB at 65 MiB, volume 0$/m);
  expect(shown).toMatch(/^image +system\.spf, made /m);
  expect(fs.statSync(file).size).toBeLessThan(16 * 1024);
});

it('several volumes make one disk, named in either way', async () => {
  const there = place('system', 'data');
  const [system, data] = [there.behind('system.spf'), there.behind('data.spf')];
  await veneerOk('plugin', 'create', '--boot', 'bios', system, there.behind('a.raw'), '--volume', data);
  await veneerOk('plugin', 'create', '--boot', 'bios', '--volume', system, '--volume', data, there.behind('b.raw'));
  for (const name of ['a.raw', 'b.raw']) {
    const { source, bootable } = plugin(there.behind(name));
    expect([source.path, ...(bootable?.furtherImages ?? []).map((further) => further.path)]).toEqual([
      'system.spf',
      'data.spf',
    ]);
    expect(bootable?.partitions.map(({ volume, active }) => ({ volume, active }))).toEqual([
      { volume: 0, active: true },
      { volume: 1, active: false },
    ]);
  }
});

it('under the mount it reads as the volumes with a table around them; looking at it opens no image', async () => {
  const there = place('system', 'data');
  const names = ['system.spf', 'data.spf'].map((name) => there.behind(name));
  const [system = '', data = ''] = names;
  await veneerOk('plugin', 'create', '--boot', 'bios', system, there.behind('vm.vhdx'), '--volume', data);
  await there.mount();
  const shown = there.under('vm.vhdx');
  await runOk('qemu-img', ['info', shown]);
  expect((await there.statistics('vm.vhdx')).imageOpens).toBe(0);
  const raw = there.temporary.file('out.raw');
  await runOk('qemu-img', ['convert', '-f', 'vhdx', '-O', 'raw', shown, raw]);
  await runOk('/sbin/sgdisk', ['-v', raw]);
  const { partitions = [] } = plugin(there.behind('vm.vhdx')).bootable ?? {};
  using disk = closing(openFileDisk(raw));
  for (const [index, name] of ['system.raw', 'data.raw'].entries()) {
    const expected = fs.readFileSync(made.file(name));
    const found = Buffer.alloc(expected.length);
    disk.value.read(found, partitions[index]?.startBytes ?? -1);
    expect(found.equals(expected), name).toBe(true);
  }
  // The same bytes after the next mount.
  const before = hashOf(raw);
  await there.unmount();
  await there.mount();
  await runOk('qemu-img', ['convert', '-f', 'vhdx', '-O', 'raw', shown, raw]);
  expect(hashOf(raw)).toBe(before);
  expect(there.complaints()).toEqual([]);
});

describe('a growing disk', () => {
  const formats = ['vhdx', 'vhd', 'vmdk', 'qcow2', 'vdi'];
  let there: MountPlace;

  beforeAll(async () => {
    there = new MountPlace();
    fs.copyFileSync(made.file('system.spf'), there.behind('system.spf'));
    for (const format of formats) {
      const layout = { vmdk: 'sparse', qcow2: 'compact' }[format] ?? 'dynamic';
      const create = ['plugin', 'create', '--boot', 'uefi', there.behind('system.spf')];
      await veneerOk(...create, there.behind(`vm.${format}`), '--layout', layout);
    }
    await there.mount();
    return () => there.end();
  });

  it.each(formats)('has units for all that is made around the volume: %s', async (format) => {
    const raw = there.temporary.file('out.raw');
    const name = format === 'vhd' ? 'vpc' : format;
    await runOk('qemu-img', ['convert', '-f', name, '-O', 'raw', there.under(`vm.${format}`), raw]);
    if (format !== 'vhd') expect(await runOk('/sbin/sgdisk', ['-v', raw])).toMatch(/^No problems found/m);
    const esp = there.temporary.file('esp');
    await runOk('dd', [`if=${raw}`, `of=${esp}`, 'bs=1M', 'skip=1', 'count=64', 'status=none']);
    await runOk('/sbin/fsck.fat', ['-n', esp]);
    await runOk('mcopy', ['-o', '-i', esp, '::/EFI/BOOT/BOOTX64.EFI', there.temporary.file('boot')]);
    expect(hashOf(there.temporary.file('boot'))).toBe(plugin(there.behind(`vm.${format}`)).bootable?.bootFile?.sha256);
  });
});

it('a Windows volume starts from our own boot code, with no boot file, and from BIOS alone', async () => {
  const there = place('ntfs');
  const image = there.behind('ntfs.spf');
  expect(await veneerOk('plugin', 'create', '--boot', 'bios', image, there.behind('vm.vhd'))).toContain(
    'the volumes bring the boot loader',
  );
  expect(fs.existsSync(there.behind('vm.vhd.boot'))).toBe(false);
  expect(plugin(there.behind('vm.vhd')).bootable?.volumes[0]?.patches).toHaveLength(4);
  expect(await veneerRefuses('plugin', 'create', '--boot', 'uefi', image, there.behind('x.vhd'))).toMatch(
    /no boot files for UEFI: add the EFI system partition with --volume, or use --boot bios/,
  );
});

const refusals: ReadonlyArray<readonly [why: string, args: readonly string[], says: RegExp]> = [
  [
    'a whole disk',
    ['disk.spf', 'x.raw', '--boot', 'bios'],
    /whole disk, which has its own boot code; leave --boot out/,
  ],
  ['volumes without --boot', ['system.spf', 'x.raw', '--volume', 'data.spf'], /add --boot bios or --boot uefi/],
  ['no plugin file', ['system.spf', '--boot', 'bios'], /name the plugin file to make as well/],
  ['an unknown firmware', ['system.spf', 'x.raw', '--boot', 'coreboot'], /'coreboot' is invalid/],
  ['a volume that is not there', ['system.spf', 'x.raw', '--boot', 'bios', '--volume', 'away.spf'], /away\.spf/],
  [
    'kernel arguments of two lines',
    ['system.spf', 'x.raw', '--boot', 'bios', '--kernel-arguments', 'a\nb'],
    /cannot hold/,
  ],
];

it.each(refusals)('refuses %s, in one line, and makes nothing', async (_why, args, says) => {
  const there = place('system', 'data', 'disk');
  const before = fs.readdirSync(there.folder);
  const given = args.map((arg) => (/\.(spf|raw)$/.test(arg) ? there.behind(arg) : arg));
  expect(await veneerRefuses('plugin', 'create', ...given)).toMatch(says);
  expect(fs.readdirSync(there.folder)).toEqual(before);
});

it('a missing package of GRUB is named, in one line', async (ctx) => {
  if (process.getuid?.() !== 0) return ctx.skip('hiding the packages takes root');
  const there = place('system');
  const refused = async (hide: string, firmware: string): Promise<string> => {
    const create = `plugin create --boot ${firmware} ${there.behind('system.spf')} ${there.behind('x.raw')}`;
    const script = `${hide} && exec node ${path.join(import.meta.dirname, '../../bin/veneer.mjs')} ${create}`;
    const { status, stderr } = await run('unshare', ['-m', 'bash', '-c', script]);
    expect(status, stderr).toBe(1);
    expect(stderr).toMatch(/^veneer: [^\n]+\n$/);
    return stderr;
  };
  const empty = there.temporary.file('empty');
  fs.mkdirSync(empty);
  const hide = (folder: string): string => `mount --bind ${empty} ${folder}`;
  expect(await refused(hide('/usr/lib/grub'), 'bios')).toMatch(/install the package grub-pc-bin/);
  expect(await refused(hide('/usr/lib/grub'), 'uefi')).toMatch(/install the package grub-efi-amd64-bin/);
  const nothing = there.temporary.write('nothing', '');
  const program = (await runOk('which', ['grub-mkimage'])).trim();
  expect(await refused(`mount --bind ${nothing} ${program}`, 'bios')).toMatch(
    /install the package grub-common|grub-mkimage/,
  );
});

it('a boot file that was changed or lost is an error at the read, and looking at the file still works', async () => {
  const there = place('system');
  await veneerOk('plugin', 'create', '--boot', 'bios', there.behind('system.spf'), there.behind('vm.raw'));
  const bootFile = there.behind('vm.raw.boot');
  const bytes = fs.readFileSync(bootFile);
  await there.mount('--idle', '0');
  const readFirst = async (): Promise<number | undefined> =>
    (await run('dd', [`if=${there.under('vm.raw')}`, 'of=/dev/null', 'bs=512', 'count=1', 'iflag=direct'])).status;
  bytes[1000] = (bytes[1000] ?? 0) ^ 1;
  fs.writeFileSync(bootFile, bytes);
  expect(await readFirst()).toBe(1);
  await there.expectComplaint(/vm\.raw\.boot: boot file of .*checksum/);
  fs.rmSync(bootFile);
  fs.symlinkSync('/etc/hostname', bootFile);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(await readFirst()).toBe(1);
  expect(fs.statSync(there.behind('vm.raw')).isFile()).toBe(true);
  expect((await run('stat', [there.under('vm.raw')])).status).toBe(0);
});

it('is not written back into the chain of its volume, which it is no restore point of', async () => {
  const there = place('system');
  await veneerOk('plugin', 'create', '--boot', 'bios', there.behind('system.spf'), there.behind('vm.raw'));
  await there.mount();
  const image = ['image', 'create', there.under('vm.raw')];
  expect((await veneer(...image, there.behind('x.spi'), '--parent', there.behind('system.spf'))).stderr).toMatch(
    /is a disk made around a volume.*make a full image/,
  );
  await veneerOk(...image, there.behind('full.spf'));
  await veneerOk('image', 'verify', there.behind('full.spf'));
});
