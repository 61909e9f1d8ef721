/** Encrypted images as a user has them: keys from files and descriptors, a mount with the key and one without. */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { SourceDisk } from '../backup/source-disk.ts';
import { run, veneer, veneerOk, veneerPath, veneerRefuses, type Ran } from './veneer.ts';

const secret = 'a passphrase that nobody may ever see';
const canMount = spawnSync('fusermount3', ['--version']).status === 0 && fs.existsSync('/dev/fuse');

let folder: TempFolder;
let source: SourceDisk;
let images: string;
let key: string;
let other: string;

beforeAll(async () => {
  folder = new TempFolder();
  const random = new Seeded('encrypted at the command line');
  source = new SourceDisk(folder.file('source.raw'), 2 * MiB);
  source.write(MiB, random.bytes(300 * KiB));
  images = folder.file('images');
  fs.mkdirSync(images);
  fs.mkdirSync(folder.file('mounted'));
  key = folder.write('key', random.bytes(32));
  other = folder.write('other', random.bytes(32));
  for (const file of [key, other]) fs.chmodSync(file, 0o600);
  await veneerOk('image', 'create', source.path, `${images}/0.spf`, '--encrypt', '--key-file', key);
  await veneerOk('plugin', 'create', `${images}/0.spf`, `${images}/vm.raw`, '--replacement', 'sealed');
});
afterAll(() => folder.remove());

let passphrase: Promise<{ file: string; added: Ran }> | undefined;

/** The chain with a passphrase beside its key file: added once, since its derivation takes a while. */
function withPassphrase(): Promise<{ file: string; added: Ran }> {
  passphrase ??= (async () => {
    const file = folder.write('passphrase', `${secret}\n`);
    fs.chmodSync(file, 0o600);
    const added = await veneer(
      ...['key', 'add', `${images}/0.spf`, '--key-file', key],
      ...['--new-passphrase-file', file, '--label', 'second'],
    );
    expect(added).toMatchObject({ status: 0 });
    return { file, added };
  })();
  return passphrase;
}

function expectExtracted(file: string): void {
  expect(fs.readFileSync(file).equals(fs.readFileSync(source.path))).toBe(true);
}

/** Runs the tool at a terminal of its own where `typed` is the answer to its question; prints its exit status, then what the terminal showed. */
async function onTerminal(typed: string, ...args: readonly string[]): Promise<Ran> {
  const terminal = [
    'import os, pty, sys',
    'pid, fd = pty.fork()',
    'if pid == 0: os.execv(sys.argv[2], sys.argv[2:])',
    'shown = b""',
    'while b"passphrase" not in shown: shown += os.read(fd, 1024)',
    'os.write(fd, sys.argv[1].encode() + b"\\r")',
    'try:',
    '    while True: shown += os.read(fd, 1024)',
    'except OSError: pass',
    'print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown)',
  ].join('\n');
  return await run('python3', ['-c', terminal, typed, process.execPath, veneerPath, ...args]);
}

describe('a key', () => {
  it('comes from a file, and extraction, verification and the next image take it', async () => {
    await veneerOk('image', 'extract', `${images}/0.spf`, folder.file('out.raw'), '--key-file', key, '--force');
    expectExtracted(folder.file('out.raw'));
    expect(await veneerOk('image', 'verify', `${images}/0.spf`, '--key-file', key)).toMatch(/sealed and in place/);
    expect(await veneerOk('image', 'scrub', `${images}/0.spf`)).toMatch(/sound \(/);
    expect(await veneerOk('image', 'info', `${images}/0.spf`)).toMatch(/encrypted/);
    await veneerOk('image', 'create', source.path, `${images}/1.spi`, '--parent', `${images}/0.spf`, '--key-file', key);
    fs.rmSync(`${images}/1.spi`);
  });

  it('comes from a descriptor', async () => {
    const fd = fs.openSync(key, 'r');
    const out = folder.file('from-fd.raw');
    const args = [veneerPath, 'image', 'extract', `${images}/0.spf`, out, '--key-fd', '3'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit', fd] });
    const status = await new Promise((resolve) => child.on('close', resolve));
    fs.closeSync(fd);
    expect(status).toBe(0);
    expectExtracted(out);
  });

  it('in a file that others may read is refused, with what to do', async () => {
    const open = folder.write('open', Buffer.alloc(32, 1));
    fs.chmodSync(open, 0o640);
    const said = await veneerRefuses('image', 'verify', `${images}/0.spf`, '--key-file', open);
    expect(said).toMatch(/others than its owner may use it \(mode 0640\); run: chmod 600 /);
  });

  it('that is wrong or missing is an error of one line', async () => {
    expect(await veneerRefuses('image', 'verify', `${images}/0.spf`, '--key-file', other)).toMatch(/does not open it/);
    const wrong = folder.write('wrong', secret);
    fs.chmodSync(wrong, 0o600);
    const verified = await veneer('--debug', 'image', 'verify', `${images}/0.spf`, '--passphrase-file', wrong);
    expect(verified.stderr).toMatch(/does not open it/);
    expect(verified.stdout + verified.stderr).not.toContain(secret);
    const without = await veneerRefuses('image', 'extract', `${images}/0.spf`, folder.file('none.raw'));
    expect(without).toMatch(/is encrypted; give its key with --key-file/);
  });

  it('is added as a passphrase that no message shows', async () => {
    const { file, added } = await withPassphrase();
    expect(await veneerOk('key', 'list', `${images}/0.spf`)).toMatch(
      /^0 {2}key file .*\n1 {2}passphrase .* {2}second\n$/,
    );
    const verified = await veneer('--debug', 'image', 'verify', `${images}/0.spf`, '--passphrase-file', file);
    expect(verified.status).toBe(0);
    for (const { stdout, stderr } of [added, verified]) expect(stdout + stderr).not.toContain(secret);
  });

  it('is asked for at a terminal that does not show it', async (ctx) => {
    if (spawnSync('python3', ['--version']).status !== 0)
      ctx.skip('python3, whose pty module is the terminal, is not here');
    await withPassphrase();
    const asked = await onTerminal(secret, 'image', 'verify', `${images}/0.spf`, '--ask-passphrase');
    expect(asked.stdout).toMatch(/^0 .*sealed and in place/);
    expect(asked.stdout).not.toContain(secret);
  });
});

describe.skipIf(!canMount)(`a mount${canMount ? '' : ' (skipped: no FUSE here)'}`, () => {
  const mounted = async (
    args: readonly string[],
    use: (disk: string, mountpoint: string) => Promise<void>,
  ): Promise<void> => {
    const mountpoint = folder.file('mounted');
    await veneerOk('mount', images, mountpoint, ...args);
    try {
      await use(`${mountpoint}/vm.raw`, mountpoint);
    } finally {
      await veneerOk('unmount', mountpoint, '--lazy');
    }
  };

  it('with the key reads the disk, and neither its status nor its command line nor its log shows the key', async () => {
    const { file } = await withPassphrase();
    await mounted(['--passphrase-file', file], async (disk, mountpoint) => {
      expectExtracted(disk);
      const status = await veneerOk('status', mountpoint, '--json');
      const [{ pid, log }] = [JSON.parse(status)].flat() as [{ pid: number; log: string }];
      const seen = [status, fs.readFileSync(`/proc/${pid}/cmdline`), fs.readFileSync(`/proc/${pid}/environ`)];
      for (const text of [...seen, fs.readFileSync(log)]) expect(String(text)).not.toContain(secret);
    });
  });

  it('takes the key from a descriptor', async () => {
    const fd = fs.openSync(key, 'r');
    const args = [veneerPath, 'mount', images, folder.file('mounted'), '--key-fd', '3'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit', fd] });
    const status = await new Promise((resolve) => child.on('close', resolve));
    fs.closeSync(fd);
    expect(status).toBe(0);
    try {
      expectExtracted(`${folder.file('mounted')}/vm.raw`);
    } finally {
      await veneerOk('unmount', folder.file('mounted'), '--lazy');
    }
  });

  it('asks for the passphrase at a terminal, and serves when that is gone', async (ctx) => {
    if (spawnSync('python3', ['--version']).status !== 0)
      ctx.skip('python3, whose pty module is the terminal, is not here');
    await withPassphrase();
    const asked = await onTerminal(secret, 'mount', images, folder.file('mounted'), '--ask-passphrase');
    try {
      expect(asked.stdout).toMatch(/^0 .*is mounted at/);
      expect(asked.stdout).not.toContain(secret);
      expectExtracted(`${folder.file('mounted')}/vm.raw`);
    } finally {
      await veneerOk('unmount', folder.file('mounted'), '--lazy');
    }
  });

  it('without a key serves metadata and other images, and refuses data with a line in its log', async () => {
    await veneerOk('image', 'create', source.path, `${images}/plain.spf`);
    await veneerOk('plugin', 'create', `${images}/plain.spf`, `${images}/plain.raw`);
    await mounted([], async (disk, mountpoint) => {
      expect(fs.statSync(disk).size).toBe(2 * MiB);
      expectExtracted(`${mountpoint}/plain.raw`);
      const fd = fs.openSync(disk, 'r');
      try {
        expect(() => fs.readSync(fd, Buffer.alloc(4096), 0, 4096, MiB)).toThrow(/EACCES/);
      } finally {
        fs.closeSync(fd);
      }
      const [{ log }] = [JSON.parse(await veneerOk('status', mountpoint, '--json'))].flat() as [{ log: string }];
      expect(fs.readFileSync(log, 'utf8')).toMatch(
        /vm\.raw: read of \d+ bytes at \d+ failed: .*is encrypted; give its key/,
      );
    });
  });

  it('with a wrong key is refused at once, and nothing is mounted', async () => {
    const said = await veneerRefuses('mount', images, folder.file('mounted'), '--key-file', other);
    expect(said).toMatch(/opens none of its encrypted images/);
    expect(fs.readdirSync(folder.file('mounted'))).toEqual([]);
  });
});

it('a passphrase is removed, and the last key is not', async () => {
  await withPassphrase();
  await veneerOk('key', 'remove', `${images}/0.spf`, '--slot', '1', '--key-file', key);
  passphrase = undefined;
  expect(await veneerOk('key', 'list', `${images}/0.spf`)).toMatch(/^0 {2}key file .*\n$/);
  await veneerRefuses('key', 'remove', `${images}/0.spf`, '--slot', '0', '--key-file', key);
});

it.skipIf(!canMount)('a chain in use by a mount is neither pruned nor consolidated away under it', async () => {
  const place = folder.file('used');
  const mountpoint = folder.file('mounted');
  fs.mkdirSync(place);
  await veneerOk('image', 'create', source.path, `${place}/0.spf`, '--encrypt', '--key-file', key);
  source.write(4000, Buffer.from('a change'));
  await veneerOk('image', 'create', source.path, `${place}/1.spi`, '--parent', `${place}/0.spf`, '--key-file', key);
  await veneerOk('plugin', 'create', `${place}/1.spi`, `${place}/vm.raw`, '--replacement', 'sealed');
  await veneerOk('mount', place, mountpoint, '--key-file', key);
  try {
    expectExtracted(`${mountpoint}/vm.raw`);
    const pruned = await veneer('chain', 'prune', place, '--keep-last', '1');
    expect(pruned).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/1\.spi: is in use, by a mount/) as string,
    });
    expect(await veneerRefuses('image', 'consolidate', `${place}/1.spi`, `${place}/1.spi`, '--replace')).toMatch(
      /1\.spi: is in use, by a mount/,
    );
    expect(fs.readdirSync(place).sort()).toEqual(['0.spf', '1.spi', 'vm.raw']);
    expectExtracted(`${mountpoint}/vm.raw`);
  } finally {
    await veneerOk('unmount', mountpoint, '--lazy');
  }
  await veneerOk('chain', 'prune', place, '--keep-last', '1');
  expect(fs.readdirSync(place).sort()).toEqual(['1.spi', 'vm.raw']);
});

it('a chain is consolidated and pruned at the command line, and what a plugin file points to stays', async () => {
  const place = folder.file('chain');
  fs.mkdirSync(place);
  const names = ['0.spf', '1.spi', '2.spi', '3.spi'];
  for (const [step, name] of names.entries()) {
    source.write(step * 1000, Buffer.from(`change ${step}`));
    const parent = step === 0 ? ['--encrypt'] : ['--parent', `${place}/${names[step - 1] ?? ''}`];
    await veneerOk('image', 'create', source.path, `${place}/${name}`, '--key-file', key, ...parent);
  }
  const part = ['image', 'consolidate', `${place}/3.spi`, `${place}/part.spi`, '--from', '2', '--to', '3'];
  expect(await veneerOk(...part)).toMatch(/part\.spi: 2 images in one/);
  expect(await veneerOk('image', 'info', `${place}/part.spi`)).toMatch(/part\.spi: consolidated/);
  await veneerOk('image', 'extract', `${place}/part.spi`, folder.file('part.raw'), '--key-file', key);
  expectExtracted(folder.file('part.raw'));
  fs.rmSync(`${place}/part.spi`);
  await veneerOk('plugin', 'create', `${place}/1.spi`, `${place}/old.vhdx`, '--replacement', 'sealed');
  expect(await veneerOk('chain', 'list', place)).toMatch(/4 images.*encrypted\n {2}3 .*3\.spi: incremental/);
  const refused = await veneerRefuses('image', 'consolidate', `${place}/3.spi`, `${place}/3.spi`, '--replace');
  expect(refused).toMatch(/1\.spi: old\.vhdx points to it/);
  const plan = await veneerOk('chain', 'prune', place, '--keep-last', '1', '--dry-run');
  expect(plan).toMatch(
    /depth 4, then 2\n {2}stays {4}3\.spi.*\(last\)\n {2}stays {4}1\.spi.*\(old\.vhdx points to it\)/,
  );
  expect(fs.readdirSync(place)).toHaveLength(5);
  await veneerOk('chain', 'prune', place, '--keep-last', '1');
  expect(fs.readdirSync(place).sort()).toEqual(['1.spi', '3.spi', 'old.vhdx']);
  await veneerOk('image', 'consolidate', `${place}/1.spi`, `${place}/3.spi`, `${place}/all.spf`);
  await veneerOk('image', 'extract', `${place}/all.spf`, folder.file('all.raw'), '--key-file', key);
  expectExtracted(folder.file('all.raw'));
  expect(await veneerOk('image', 'verify', `${place}/3.spi`, '--key-file', key)).toMatch(/sealed and in place/);
});
