/** No command takes from somebody what he needs and has not named; what is refused is refused before anything is changed. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { attachLoopDevice, whyNoLoopDevices } from '../disk/loop-device.ts';
import { change, writeDisk } from '../mount/guest-disk.ts';
import { placeForTest } from '../mount/mounted.ts';
import { covering } from '../covering.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { veneer, veneerOk, veneerRefuses } from './veneer.ts';

const sizeBytes = 6 * MiB;
let folder: TempFolder;
let raw: string;

beforeEach(() => {
  folder = new TempFolder();
  const made = folder;
  onTestFinished(() => made.remove());
  raw = folder.file('source.raw');
  writeDisk(raw, 'destroys', sizeBytes);
});

/** A chain of images in a folder below; each with its own changes. */
async function chainIn(name: string, count: number): Promise<{ place: string; images: string[] }> {
  const place = folder.file(name);
  fs.mkdirSync(place, { recursive: true });
  const images: string[] = [];
  for (let number = 0; number < count; number++) {
    const image = path.join(place, number === 0 ? '0.spf' : `${number}.spi`);
    const parent = images.at(-1);
    change(raw, number * 64 * KiB, new Seeded(`${name} ${number}`).bytes(1000));
    await createImage(raw, image, { blockBytes: 64 * KiB, ...(parent === undefined ? {} : { parent }) });
    images.push(image);
  }
  return { place, images };
}

/** Every file below, with what it holds. */
function contentsOf(root: string): string[] {
  return fs
    .readdirSync(root, { recursive: true, withFileTypes: true })
    .map((entry) => {
      const file = path.join(entry.parentPath, entry.name);
      if (!entry.isFile()) return `${file} ${entry.isSymbolicLink() ? fs.readlinkSync(file) : 'other'}`;
      return `${file} ${createHash('sha256').update(fs.readFileSync(file)).digest('hex')}`;
    })
    .sort();
}

async function refused(says: RegExp, ...args: string[]): Promise<void> {
  const before = contentsOf(folder.path);
  expect(await veneerRefuses(...args)).toMatch(says);
  expect(contentsOf(folder.path)).toEqual(before);
}

it('what stands at a place is not replaced by what is of another kind, or by what others need', async () => {
  const { place, images } = await chainIn('vm', 3);
  const [full = '', middle = '', newest = ''] = images;
  const at = (name: string): string => path.join(place, name);
  createPluginFile(newest, at('vm.vhdx'), { unitBytes: MiB });
  createPluginFile(newest, at('flat.vmdk'));
  fs.writeFileSync(at('notes.txt'), 'of value');
  fs.writeFileSync(at('real.raw'), 'a machine');
  fs.copyFileSync(at('vm.vhdx'), at('real.raw.finalized'));
  for (const name of ['kept.raw', 'kept.raw.replacement', 'kept.raw.replacement-map'])
    fs.writeFileSync(at(name), 'kept');
  fs.symlinkSync('notes.txt', at('link'));
  const create = ['image', 'create', raw];
  const force = '--force';

  const extract = ['image', 'extract', newest];
  const plugin = ['plugin', 'create', newest];
  const child = ['differencing', 'create', at('vm.vhdx')];
  const refusals: ReadonlyArray<readonly [says: RegExp, ...args: string[]]> = [
    [/0\.spf: 1\.spi is made on it/, ...create, full, force],
    [/1\.spi: \.spi is for incrementals/, ...create, middle, force],
    [/is made on it|itself in the chain/, ...create, '--parent', newest, middle, force],
    [/2\.spi: flat\.vmdk, vm\.vhdx points to it/, ...create, '--parent', middle, newest, force],
    [/vm\.vhdx: is a plugin file/, ...create, at('vm.vhdx'), force],
    [/notes\.txt: is no image/, ...create, at('notes.txt'), force],
    [/real\.raw: is the disk file of a machine/, ...create, at('real.raw'), force],
    [/kept\.raw: what a guest wrote/, ...create, at('kept.raw'), force],
    [/name for what a guest wrote/, ...create, at('new.replacement')],
    [/part of the disk that flat\.vmdk stands for/, ...create, at('flat-flat.vmdk')],
    [/link: is a symbolic link/, ...create, at('link'), force],
    [/x\.spf: \.spf is for full images/, ...create, '--parent', newest, at('x.spf')],
    [/x\.spi: \.spi is for incrementals/, ...create, at('x.spi')],
    [/holds only what a guest wrote/, 'image', 'create', at('kept.raw.replacement'), at('x.spf')],
    [/plugin file.*veneer mount/, 'image', 'create', at('vm.vhdx'), at('x.spf')],
    [/0\.spf: is an image/, ...extract, full, force],
    [/vm\.vhdx: is a plugin file/, ...extract, at('vm.vhdx'), force],
    [/real\.raw: is the disk file of a machine/, ...extract, at('real.raw'), force],
    [/kept\.raw: what a guest wrote/, ...extract, at('kept.raw'), force],
    [/part of the disk that flat\.vmdk stands for/, ...extract, at('flat-flat.vmdk'), '--format', 'raw'],
    [/link: is a symbolic link/, ...extract, at('link'), force],
    [/\/dev\/null: is a character device/, ...extract, '/dev/null', force],
    [/is an image/, ...plugin, full, '--format', 'raw', force],
    [/notes\.txt: is no plugin file/, ...plugin, at('notes.txt'), '--format', 'raw', force],
    [/real\.raw: is the disk file of a machine/, ...plugin, at('real.raw'), force],
    [/link: is (a symbolic link|no plugin file)/, ...plugin, at('link'), '--format', 'raw', force],
    [/name for what a guest wrote/, ...child, at('vm.vhdx.replacement'), '--format', 'vhdx', force],
    [/real\.raw: is the disk file of a machine/, ...child, at('real.raw'), '--format', 'qcow2', force],
    [/vm\.vhdx: is a plugin file/, 'image', 'consolidate', newest, at('vm.vhdx'), force],
    [/0\.spf: is one of the images|1\.spi is made on it/, 'image', 'consolidate', newest, full, force],
    [/part\.spf: \.spf is for images without a parent/, 'image', 'consolidate', newest, at('part.spf'), '--from', '1'],
  ];
  // Each reason once, and each command; a soak has every reason of every command.
  for (const [says, ...args] of covering(refusals, ([reason, ...command]) => [
    reason.source,
    command.slice(0, 2).join(' '),
  ]))
    await refused(says, ...args);

  // And what --force is for.
  fs.writeFileSync(at('empty'), '');
  await veneerOk(...extract, at('notes.txt'), force);
  await veneerOk(...plugin, at('flat.vmdk'), force);
  await veneerOk('image', 'create', raw, at('empty'), force);
  await veneerOk('image', 'create', raw, at('empty'), force);
});

describe('an image that a plugin file elsewhere points to', () => {
  it.each(['in a folder below', 'in the folder above', 'in another tree', 'in a copy beside one elsewhere'])(
    'stays: %s',
    async (where) => {
      const { place, images } = await chainIn('images', 3);
      const [, middle = '', newest = ''] = images;
      const home = folder.file(
        where === 'in a folder below' ? 'images/below/more' : where.includes('above') ? '.' : 'other/vms',
      );
      fs.mkdirSync(home, { recursive: true });
      await veneerOk('plugin', 'create', middle, path.join(home, 'old.raw'));
      if (where.includes('copy')) {
        fs.renameSync(path.join(home, 'old.raw'), path.join(home, 'copy.raw'));
        await veneerOk('plugin', 'create', middle, path.join(home, 'old.raw'));
        fs.rmSync(path.join(home, 'old.raw'));
        // The line of the first is dropped, and no other one knows the copy: the folder is looked at before.
        await veneerOk('plugin', 'create', newest, path.join(home, 'new.raw'));
      }
      const plan = await veneerOk('chain', 'prune', place, '--keep-last', '1', '--dry-run');
      expect(plan).toMatch(/stays {4}1\.spi.*(old|copy)\.raw points to it/);
      await refused(/1\.spi: .*(old|copy)\.raw points to it/, 'image', 'consolidate', newest, newest, '--replace');
      await veneerOk('chain', 'prune', place, '--keep-last', '1');
      expect(fs.readdirSync(place).filter((name) => /\.sp[fi]$/.test(name))).toEqual(['1.spi', '2.spi']);
    },
  );

  it('is let go when the plugin file is gone, and its line goes too; not while its file system is away', async () => {
    const { place, images } = await chainIn('images', 3);
    const [, middle = ''] = images;
    const registry = path.join(place, '.veneer-pointers');
    fs.mkdirSync(folder.file('vms'));
    await veneerOk('plugin', 'create', middle, folder.file('vms/old.raw'));
    const line = fs.readFileSync(registry, 'utf8');
    fs.rmSync(folder.file('vms'), { recursive: true });
    fs.writeFileSync(registry, line.replace(/"device":"\d+"/, '"device":"1"') + 'no line of ours\n');
    const away = await veneerOk('chain', 'prune', place, '--keep-last', '1', '--dry-run');
    expect(away).toMatch(/stays {4}1\.spi.*old\.raw \(which is away;.*\.veneer-pointers\) points to it/);
    fs.writeFileSync(registry, line);
    const gone = await veneerOk('chain', 'prune', place, '--keep-last', '1', '--dry-run');
    expect(gone).not.toMatch(/1\.spi.*points to it/);
    expect(fs.readFileSync(registry, 'utf8')).toBe('');
  });

  it('stays for a plugin file whose folder was moved, once its disk was read under a mount', async () => {
    const { place, images } = await chainIn('images', 3);
    fs.mkdirSync(folder.file('vms'));
    await veneerOk('plugin', 'create', images[1] ?? '', folder.file('vms/vm.raw'));
    fs.renameSync(folder.file('vms'), folder.file('moved'));
    const mountpoint = folder.file('mount');
    fs.mkdirSync(mountpoint);
    await veneerOk('mount', folder.file('moved'), mountpoint, '--allow-path', place);
    fs.readFileSync(path.join(mountpoint, 'vm.raw'));
    await veneerOk('unmount', mountpoint);
    expect(await veneerOk('chain', 'prune', place, '--keep-last', '1', '--dry-run')).toMatch(
      /stays {4}1\.spi.*moved\/vm\.raw points to it/,
    );
  });

  it('stays while a mount may read it from there, whoever wrote the plugin file', async () => {
    const { place, images } = await chainIn('images', 3);
    const mounted = placeForTest();
    fs.writeFileSync(folder.file('elsewhere.raw'), '');
    fs.rmSync(folder.file('elsewhere.raw'));
    createPluginFile(images[1] ?? '', mounted.behind('vm.raw'));
    fs.rmSync(path.join(place, '.veneer-pointers'));
    const prune = ['chain', 'prune', place, '--keep-last', '1', '--dry-run'];
    expect(await veneerOk(...prune)).not.toMatch(/points to it/);
    await mounted.mount('--allow-path', place);
    expect(await veneerOk(...prune)).toMatch(/stays {4}1\.spi.*vm\.raw points to it/);
    // Also where the folder is named by a mount of its own.
    const second = placeForTest();
    fs.rmdirSync(second.folder);
    fs.symlinkSync(place, second.folder);
    createPluginFile(images[0] ?? '', path.join(place, 'first.raw'));
    await second.mount();
    expect(await veneerOk('chain', 'prune', second.mountpoint, '--keep-last', '1', '--dry-run')).toMatch(
      /stays {4}1\.spi.*vm\.raw points to it\)\n {2}stays {4}0\.spf.*first\.raw points to it/,
    );
  });
});

describe('chains of a folder for each machine', () => {
  it('are listed and pruned, each for itself, and a damaged one keeps nobody from the others', async () => {
    await chainIn('all/one', 3);
    await chainIn('all/deep/er/two', 3);
    const { place } = await chainIn('all/three', 2);
    fs.symlinkSync('one', folder.file('all/link'));
    const all = folder.file('all');
    const list = await veneerOk('chain', 'list', all);
    expect(list.match(/^chain /gm)).toHaveLength(3);
    expect(list).toMatch(/^chain \S+ in deep\/er\/two: 3 images/m);
    const { images } = JSON.parse(await veneerOk('chain', 'list', all, '--json')) as { images: unknown[] };
    expect(images).toHaveLength(8);
    fs.truncateSync(path.join(place, '1.spi'), 20_000);
    const { status, stderr } = await veneer('chain', 'prune', all, '--keep-last', '1');
    expect(status).toBe(1);
    expect(stderr).toMatch(/^veneer: .*three\/1\.spi: cannot be opened/m);
    for (const name of ['one', 'deep/er/two']) expect(fs.readdirSync(path.join(all, name))).toEqual(['2.spi']);
    expect(fs.readdirSync(place)).toEqual(['0.spf', '1.spi']);
  });

  it('that holds none is an error', async () => {
    fs.mkdirSync(folder.file('none/below'), { recursive: true });
    await refused(/none: holds no images/, 'chain', 'list', folder.file('none'));
    await refused(/none: holds no images/, 'chain', 'prune', folder.file('none'), '--keep-last', '1');
  });
});

it('a file of the user’s own that is called NAME.part stays, whatever makes NAME', async () => {
  const made = ['vm.spf', 'vm.raw', 'out.raw', 'out.qcow2'];
  for (const name of made) folder.write(`${name}.part`, 'mine');
  await veneerOk('image', 'create', raw, folder.file('vm.spf'));
  await veneerOk('plugin', 'create', folder.file('vm.spf'), folder.file('vm.raw'));
  for (const name of ['out.raw', 'out.qcow2'])
    await veneerOk('image', 'extract', folder.file('vm.spf'), folder.file(name));
  for (const name of made) expect(fs.readFileSync(folder.file(`${name}.part`), 'utf8')).toBe('mine');
});

it('a wrong clock does not have the wrong end kept, and is told', async () => {
  const { place, images } = await chainIn('clock', 5);
  const out = folder.file('newest.raw');
  await veneerOk('image', 'extract', images[4] ?? '', out);
  // As if the second had been made in 2040: the kinds of images are what a clock wrote.
  const wrong = path.join(place, '2.spi');
  fs.rmSync(wrong);
  fs.rmSync(path.join(place, '3.spi'));
  fs.rmSync(path.join(place, '4.spi'));
  await makeAt(Date.UTC(2040, 0, 1), wrong, images[1] ?? '');
  await createImage(raw, path.join(place, '3.spi'), { parent: wrong });
  await createImage(raw, path.join(place, '4.spi'), { parent: path.join(place, '3.spi') });
  const said = await veneerOk('chain', 'prune', place, '--keep-last', '1');
  expect(said).toMatch(/! 2\.spi says 2040-01-01T.*, against the order of its chain; it counts as of 20/);
  expect(fs.readdirSync(place)).toEqual(['4.spi']);
  await veneerOk('image', 'extract', path.join(place, '4.spi'), out, '--force');
  expect(fs.readFileSync(out).equals(fs.readFileSync(raw))).toBe(true);
});

async function makeAt(timeMs: number, image: string, parent: string): Promise<void> {
  const { now } = Date;
  Date.now = () => timeMs;
  try {
    await createImage(raw, image, { parent });
  } finally {
    Date.now = now;
  }
}

it('a disk is extracted over a block device where --yes says so, and through a link to it', async (context) => {
  const reason = whyNoLoopDevices();
  if (reason !== undefined) context.skip(reason);
  const { images } = await chainIn('images', 2);
  const newest = images[1] ?? '';
  const backing = folder.write('device.img', Buffer.alloc(8 * MiB, 0xa5));
  using device = attachLoopDevice(backing, []);
  const inode = fs.statSync(device.path).rdev;
  await refused(/is a block device.*--yes/, 'image', 'extract', newest, device.path);
  await refused(/is a block device.*--yes/, 'image', 'extract', newest, device.path, '--force');
  await refused(
    /block device, which takes the raw disk alone/,
    'image',
    'extract',
    newest,
    device.path,
    '--format',
    'vhdx',
    '--yes',
    '--force',
  );
  await refused(/block device/, 'image', 'create', raw, device.path, '--force');
  fs.symlinkSync(device.path, folder.file('disk'));
  const said = await veneerOk('image', 'extract', newest, folder.file('disk'), '--yes');
  expect(said).toMatch(/written over the device and read back; the 2 MiB behind them are as they were/);
  expect(fs.statSync(device.path).rdev).toBe(inode);
  expect(fs.existsSync(`${device.path}.veneer-part`)).toBe(false);
  device.detach();
  const expected = Buffer.alloc(8 * MiB, 0xa5);
  fs.readFileSync(raw).copy(expected);
  expect(fs.readFileSync(backing).equals(expected)).toBe(true);
});

it('a fill is not cancelled while its image is away: what was copied may be all that is left', async () => {
  const { images } = await chainIn('images', 1);
  const place = placeForTest();
  const image = place.behind('vm.spf');
  fs.renameSync(images[0] ?? '', image);
  createPluginFile(image, place.behind('vm.raw'));
  await place.mount();
  await veneerOk('fill', 'start', place.behind('vm.raw'), '--rate', '64K');
  await veneerOk('fill', 'pause', place.behind('vm.raw'));
  await place.unmount();
  fs.renameSync(image, folder.file('away.spf'));
  const before = contentsOf(place.folder);
  const said = await veneerRefuses('fill', 'cancel', place.behind('vm.raw'));
  expect(said).toMatch(/its image cannot be opened.*put the image back first/);
  expect(contentsOf(place.folder)).toEqual(before);
  fs.renameSync(folder.file('away.spf'), image);
  await veneerOk('fill', 'cancel', place.behind('vm.raw'));
});

it('a guest that was reconfigured: --undo leaves alone what another has put in the patch set’s place', async () => {
  const { images } = await chainIn('images', 1);
  const plugin = folder.file('images/vm.raw');
  createPluginFile(images[0] ?? '', plugin);
  const text = JSON.parse(fs.readFileSync(plugin, 'utf8')) as object;
  const set = {
    target: 'qemu',
    name: 'vm.raw.patch-qemu',
    sizeBytes: 8,
    sha256: createHash('sha256').update('of ours.').digest('hex'),
  };
  for (const [contents, stays] of [
    ['of ours.', false],
    ['not ours', true],
  ] as const) {
    fs.writeFileSync(plugin, JSON.stringify({ ...text, patchSets: [set], target: 'qemu' }));
    fs.writeFileSync(`${plugin}.patch-qemu`, contents);
    await veneerOk('reconfigure', plugin, '--undo');
    expect(fs.existsSync(`${plugin}.patch-qemu`)).toBe(stays);
  }
});
