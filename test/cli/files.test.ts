/** `veneer files` on every kind of source that it takes, and what it refuses. */
import fs from 'node:fs';
import { spawnSync } from 'node:child_process';
import { expect, it, onTestFinished } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { run as runJudge } from '../filesystem/trees.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { veneer, veneerOk, veneerPath, veneerRefuses } from './veneer.ts';

const large = new Seeded('a file to read').bytes(3 * MiB + 7);

/** A raw file of an ext4 without a system, and a chain over it: `vm.spf` has `old`, `vm.spi` has `new` as well. */
async function sources(): Promise<{ folder: TempFolder; file: (name: string) => string }> {
  const folder = new TempFolder();
  onTestFinished(() => folder.remove());
  const tree = folder.file('tree');
  fs.mkdirSync(`${tree}/data`, { recursive: true });
  fs.writeFileSync(`${tree}/data/large`, large);
  fs.writeFileSync(`${tree}/data/old`, 'of the first day', { mode: 0o600 });
  fs.symlinkSync('old', `${tree}/data/link`);
  runJudge('mke2fs', '-q', '-F', '-t', 'ext4', '-d', tree, folder.file('disk.raw'), '24M');
  await veneerOk('image', 'create', folder.file('disk.raw'), folder.file('vm.spf'));
  fs.writeFileSync(folder.file('new'), 'of the second day');
  runJudge('debugfs', '-w', '-R', `write ${folder.file('new')} data/new`, folder.file('disk.raw'));
  await veneerOk('image', 'create', folder.file('disk.raw'), folder.file('vm.spi'), '--parent', folder.file('vm.spf'));
  return { folder, file: (name) => folder.file(name) };
}

/** The bytes that it prints, as they are. */
function cat(...args: readonly string[]): Buffer {
  const { status, stdout, stderr } = spawnSync(process.execPath, [veneerPath, 'files', 'cat', ...args], {
    maxBuffer: 16 * MiB,
  });
  expect(stderr.toString()).toBe('');
  expect(status).toBe(0);
  return stdout;
}

it('reads a restore point, a plugin file and disk files of other formats alike', async () => {
  const { file } = await sources();
  createPluginFile(file('vm.spi'), file('vm.vhdx'), {});
  runJudge('qemu-img', 'convert', '-O', 'qcow2', '-c', file('disk.raw'), file('disk.qcow2'));
  for (const source of ['vm.spi', 'vm.vhdx', 'disk.raw', 'disk.qcow2']) {
    expect(
      cat(file(source), '/data/large', '/data/new').equals(Buffer.concat([large, Buffer.from('of the second day')])),
      source,
    ).toBe(true);
    expect(await veneerOk('files', 'find', file(source), '--type', 'file', '--name', '*e*')).toBe(
      '/data/large\n/data/new\n',
    );
  }
  // That point of the chain, and no later one.
  expect(await veneerOk('files', 'find', file('vm.spf'), '/data')).toBe('/data/large\n/data/link\n/data/old\n');
  expect(await veneerOk('files', 'ls', file('vm.spf'), '/data')).toMatch(
    /^-rw-r--r-- +1 0:0 +3145735 \S+ large\nlrwxrwxrwx +1 0:0 +3 \S+ link -> old\n-rw------- +1 0:0 +16 \S+ old\n$/,
  );
  expect(await veneerOk('files', 'stat', file('vm.spf'), '/data/link')).toMatch(/^l.* \/data\/link -> old\n$/);
  expect(await veneerOk('files', 'volumes', file('vm.spf'))).toMatch(/^the volume +24 MiB {2}ext4\n$/);
});

it('needs the key of an encrypted chain, and has it from the same options as other commands', async () => {
  const { folder, file } = await sources();
  const key = folder.write('key', new Seeded('a key').bytes(32));
  fs.chmodSync(key, 0o600);
  await veneerOk('image', 'create', '--encrypt', '--key-file', key, file('disk.raw'), file('sealed.spf'));
  expect(await veneerRefuses('files', 'cat', file('sealed.spf'), '/data/old')).toMatch(/sealed\.spf.*encrypted/);
  expect(cat('--key-file', key, file('sealed.spf'), '/data/old').toString()).toBe('of the first day');
});

it('refuses in one line what is not there, is no file, or is not the disk as the guest has it', async () => {
  const { folder, file } = await sources();
  expect(await veneerRefuses('files', 'cat', file('vm.spf'), '/data/old', '/data/new')).toBe(
    'veneer: /data/new: /data has no new',
  );
  expect(await veneerRefuses('files', 'cat', file('vm.spf'), '/data')).toBe('veneer: /data: is a folder, and no file');
  expect(await veneerRefuses('files', 'ls', file('vm.spf'), '/', '--volume', '3')).toMatch(
    /--volume 3: is none of the disk's; the volume \(ext4\)/,
  );
  expect(await veneerRefuses('files', 'ls', folder.write('noise.raw', new Seeded('noise').bytes(MiB)))).toMatch(
    /no volume of the disk is read/,
  );
  expect(await veneerRefuses('files', 'ls', file('none'))).toMatch(/none: is not there; name an image/);
  expect(await veneerRefuses('files', 'ls', file('tree'))).toMatch(/tree: is a folder; name an image, .* in it/);
  expect(await veneerRefuses('files', 'ls', '/dev/null')).toMatch(/\/dev\/null: is no file; name an image/);
  createPluginFile(file('vm.spi'), file('vm.raw'), {});
  for (const name of ['vm.raw.replacement', 'vm.raw.replacement-map']) folder.write(name, 'what a guest wrote');
  expect(await veneerRefuses('files', 'ls', file('vm.raw'))).toMatch(
    /vm\.raw: what a guest wrote .*; mount its folder/,
  );
});

it('ends without a word when nobody reads on, whatever it prints', async () => {
  const { file } = await sources();
  const small = Array.from({ length: 400 }, (_, index) => `${'x'.repeat(200)}-${index}`);
  const tree = file('many');
  fs.mkdirSync(tree);
  for (const name of small) fs.writeFileSync(`${tree}/${name}`, '');
  runJudge('mke2fs', '-q', '-F', '-t', 'ext4', '-d', tree, file('many.raw'), '32M');
  for (const args of [
    ['cat', file('vm.spf'), '/data/large'],
    ['find', file('many.raw')],
    ['find', file('many.raw'), '--json'],
    ['ls', file('many.raw')],
  ]) {
    const { status, stderr } = spawnSync('bash', [
      '-c',
      `set -o pipefail; "$0" "$@" | head -c 5`,
      process.execPath,
      veneerPath,
      'files',
      ...args,
    ]);
    expect([status, stderr.toString()], args.join(' ')).toEqual([0, '']);
  }
  expect((await veneer('files', '--help')).stdout).toContain('cat');
});
