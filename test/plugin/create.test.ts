/** `veneer plugin create` and `show`, as a user meets them. */
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { createImage } from '../../src/backup/write/create.ts';
import { parsePluginFile, type PluginFile } from '../../src/plugin/plugin-file.ts';
import { run, veneer, veneerOk, veneerPath, veneerRefuses } from '../cli/veneer.ts';
import { writeDisk } from '../mount/guest-disk.ts';
import { TempFolder } from '../temp-folder.ts';

let folder: TempFolder;
let image: string;

beforeAll(async () => {
  folder = new TempFolder();
  const raw = folder.file('disk.raw');
  image = folder.file('vm.spf');
  writeDisk(raw, 'plugin create');
  await createImage(raw, image);
  fs.rmSync(raw);
  return () => folder.remove();
});

const made = (name: string): PluginFile => parsePluginFile(fs.readFileSync(folder.file(name)), name);

it('says what the plugin file stands for, and show explains it', async () => {
  const file = folder.file('said.vhdx');
  expect(await veneerOk('plugin', 'create', image, file)).toBe(
    `${file}: stands for a vhdx file (fixed) of a disk of 24 MiB, from vm.spf\n`,
  );
  const shown = await veneerOk('plugin', 'show', file);
  expect(shown).toMatch(/^reads as +said\.vhdx, \d+/m);
  expect(shown).toMatch(/^format +vhdx, fixed$/m);
  expect(shown).toMatch(/^disk +24 MiB \(25166336 bytes\), a disk$/m);
  expect(shown).toMatch(/^image +vm\.spf, made \d{4}-/m);
  expect(JSON.parse(await veneerOk('plugin', 'show', '--json', file))).toEqual(
    JSON.parse(fs.readFileSync(file, 'utf8')),
  );
});

it('the extension chooses the format, and --format does where there is none', async () => {
  for (const [name, options, format] of [
    ['a.vhdx', [], 'vhdx'],
    ['a.VHD', [], 'vhd'],
    ['a.qcow2', [], 'qcow2'],
    ['a.disk', ['--format', 'vdi'], 'vdi'],
    ['b.vhdx', ['--format', 'raw'], 'raw'],
  ] as const) {
    await veneerOk('plugin', 'create', ...options, image, folder.file(name));
    expect(made(name).native.format, name).toBe(format);
  }
});

it('layout and payload block size are taken as asked', async () => {
  await veneerOk('plugin', 'create', '--layout', 'dynamic', '--payload-block-size', '2M', image, folder.file('c.vhdx'));
  expect(made('c.vhdx').native).toMatchObject({ layout: 'dynamic', payloadBlockBytes: 2 * 2 ** 20 });
});

it('two plugin files over one image are two disks', async () => {
  for (const name of ['one.vhdx', 'two.vhdx']) await veneerOk('plugin', 'create', image, folder.file(name));
  const [one, two] = [made('one.vhdx'), made('two.vhdx')];
  expect(one.id).not.toBe(two.id);
  expect(one.source).toEqual(two.source);
  expect(JSON.stringify(one.native)).not.toBe(JSON.stringify(two.native));
});

it('the pointer is relative to the plugin file, wherever the tool is run', async () => {
  fs.mkdirSync(folder.file('sub'));
  const run1 = await run(
    process.execPath,
    [veneerPath, 'plugin', 'create', '../vm.spf', 'up.vhdx'],
    folder.file('sub'),
  );
  expect(run1.status, run1.stderr).toBe(0);
  expect(made('sub/up.vhdx').source.path).toBe('../vm.spf');
  expect(run1.stderr).toMatch(/the image lies outside its folder; mount with --allow-path/);
  const sideways = path.join('/proc/self/cwd', 'vm.spf');
  const run2 = await run(process.execPath, [veneerPath, 'plugin', 'create', './vm.spf', 'down.vhdx'], folder.path);
  expect(run2.status, sideways).toBe(0);
  expect(made('down.vhdx').source.path).toBe('vm.spf');
  expect(run2.stderr).toBe('');
});

const refusals: ReadonlyArray<readonly [why: string, args: () => readonly string[], says: RegExp]> = [
  [
    'an extension of no format',
    () => [image, folder.file('x.iso')],
    /x\.iso: its extension names no disk format; use \.vhdx/,
  ],
  ['no extension', () => [image, folder.file('x')], /its extension names no disk format/],
  ['a file that is there', () => [image, folder.write('there.vhdx', 'mine')], /there\.vhdx: exists already; .*--force/],
  [
    'an image that is missing',
    () => [folder.file('away.spf'), folder.file('x.vhdx')],
    /away\.spf: the image cannot be opened.*ENOENT/,
  ],
  [
    'what is no image',
    () => [folder.write('no.spf', 'x'.repeat(20_000)), folder.file('x.vhdx')],
    /no\.spf: magic.*is not a Veneer image/,
  ],
  [
    'an image too short',
    () => [folder.write('short.spf', 'x'), folder.file('x.vhdx')],
    /short\.spf: .*too few for an image/,
  ],
  ['a folder for an image', () => [folder.path, folder.file('x.vhdx')], /is not a regular file|EISDIR/],
  ['an unknown layout', () => ['--layout', 'round', image, folder.file('x.vhdx')], /layout "?round/],
  ['an unknown format', () => ['--format', 'iso', image, folder.file('x.vhdx')], /'iso' is invalid/],
  [
    'a payload block of no size',
    () => ['--payload-block-size', 'big', image, folder.file('x.vhdx')],
    /--payload-block-size: "big" is not a size/,
  ],
  [
    'a payload block out of bounds',
    () => ['--payload-block-size', '3M', image, folder.file('x.vhdx')],
    /payload block/,
  ],
  ['a folder that is missing', () => [image, folder.file('nowhere/x.vhdx')], /nowhere\/x\.vhdx.*ENOENT/],
];

it.each(refusals)('refuses %s, in one line, and makes nothing', async (_why, args, says) => {
  const given = args();
  const before = folder.names();
  expect(await veneerRefuses('plugin', 'create', ...given)).toMatch(says);
  expect(folder.names()).toEqual(before);
  if (fs.existsSync(folder.file('there.vhdx'))) expect(fs.readFileSync(folder.file('there.vhdx'), 'utf8')).toBe('mine');
});

it('a file that holds no disk is refused by its name', async () => {
  for (const [name, contents, why] of [
    ['notes.txt', 'no disk', 'has 7 bytes, which are no whole sectors of 512; give a file that holds a disk'],
    ['nothing.raw', '', 'raw: the file is empty'],
  ] as const) {
    const source = folder.write(name, contents);
    expect(await veneerRefuses('plugin', 'create', source, folder.file(`${name}.vhdx`))).toBe(
      `veneer: ${source}: ${why}`,
    );
  }
});

it('--force replaces a plugin file, and nothing else', async () => {
  await veneerOk('plugin', 'create', image, folder.file('old.vhdx'));
  const { id } = made('old.vhdx');
  await veneerOk('plugin', 'create', '--force', image, folder.file('old.vhdx'));
  expect(made('old.vhdx').source.path).toBe('vm.spf');
  expect(made('old.vhdx').id).not.toBe(id);
  folder.write('other.vhdx', 'mine');
  expect(await veneerRefuses('plugin', 'create', '--force', image, folder.file('other.vhdx'))).toMatch(
    /other\.vhdx: is no plugin file/,
  );
  expect(fs.readFileSync(folder.file('other.vhdx'), 'utf8')).toBe('mine');
  const before = fs.readFileSync(image);
  expect(await veneerRefuses('plugin', 'create', '--force', '--format', 'vhdx', image, image)).toMatch(
    /vm\.spf: is an image, which is never changed/,
  );
  expect(fs.readFileSync(image).equals(before)).toBe(true);
});

it('show refuses what is no plugin file, in one line', async () => {
  expect(
    await veneerRefuses('plugin', 'show', folder.write('image', fs.readFileSync(image).subarray(0, 60_000))),
  ).toMatch(/is not a plugin file/);
  expect(await veneerRefuses('plugin', 'show', folder.write('text.vhdx', 'hello'))).toMatch(/is not a plugin file/);
  expect(await veneerRefuses('plugin', 'show', folder.file('missing.vhdx'))).toMatch(/ENOENT/);
});

it('show does not read a file of any size into memory', async () => {
  const huge = folder.write('huge.vhdx', '');
  fs.truncateSync(huge, 2 ** 40);
  expect((await veneer('plugin', 'show', huge)).stderr).toMatch(
    /^veneer: [^\n]*more bytes than a plugin file may have[^\n]*\n$/,
  );
});
