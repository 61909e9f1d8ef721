/** Files that are neither plugin files nor images: a hypervisor keeps its own beside them, as in any folder. */
import fs from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { run, runOk } from '../../cli/veneer.ts';
import { expectSameBytes } from '../../disk/model-disk.ts';
import { Seeded } from '../../seeded.ts';
import { readPart } from '../guest-disk.ts';
import { eventually, MountPlace } from '../mounted.ts';
import { describeTransports } from '../transports.ts';

const { appendFile, chmod, link, lstat, mkdir, open, readdir, readFile, readlink, rename, rmdir, stat, symlink } =
  fs.promises;
const { lutimes, truncate, unlink, utimes, writeFile } = fs.promises;
/** Attributes and pages may be a second old. */
const seenWithinMs = 3000;

/** Runs Python, which shows the system's calls as they are; returns what it printed. */
async function python(program: string, ...args: string[]): Promise<string> {
  return (await runOk('/usr/bin/python3', ['-c', `import os, sys\n${program}`, ...args])).trim();
}

describeTransports('files that pass through', (transport) => {
  let place: MountPlace;
  let count = 0;

  beforeAll(async () => {
    place = new MountPlace();
    await place.mount(...transport.options);
    return () => place.end();
  });

  /** A file of its own for each test. */
  function fresh(contents?: string | Uint8Array): { under: string; behind: string; name: string } {
    const name = `file ${++count}`;
    if (contents !== undefined) fs.writeFileSync(place.behind(name), contents);
    return { name, under: place.under(name), behind: place.behind(name) };
  }

  describe('contents', () => {
    it('a file is created, written and read back', async () => {
      const file = fresh();
      const bytes = new Seeded('pass-through').bytes(3 * MiB + 77);
      await writeFile(file.under, bytes);
      expectSameBytes(fs.readFileSync(file.behind), bytes, 'the file behind');
      expectSameBytes(await readFile(file.under), bytes, 'the file under the mount');
      expect((await stat(file.under)).size).toBe(bytes.length);
    });

    it('writes go where they are meant, at any offset, past the end and past 4 GiB too', async () => {
      const file = fresh('0123456789');
      const handle = await open(file.under, 'r+');
      await handle.write('XY', 3);
      await handle.write('end', 100);
      await handle.write('far', 5 * 2 ** 30 + 1);
      await handle.close();
      const at = async (offset: number, length: number): Promise<string> =>
        (await readPart(file.under, offset, length)).toString();
      expect(await at(0, 10)).toBe('012XY56789');
      expect(await at(10, 93)).toBe(`${'\0'.repeat(90)}end`);
      expect(await at(5 * 2 ** 30, 10)).toBe('\0far');
      expect(fs.statSync(file.behind).size).toBe(5 * 2 ** 30 + 4);
      expect((await readPart(file.behind, 5 * 2 ** 30 + 1, 3)).toString()).toBe('far');
    });

    it('appending writes at the end, from several programs in turn', async () => {
      const file = fresh('a');
      const [first, second] = [await open(file.under, 'a'), await open(file.under, 'a')];
      await first.write('b');
      await second.write('c');
      await first.write('d', 0); // O_APPEND: the position asked for does not matter
      await first.close();
      await second.close();
      await appendFile(file.under, 'e');
      expect(fs.readFileSync(file.behind, 'utf8')).toBe('abcde');
    });

    it('a file is truncated and extended, by name, by descriptor and by opening it', async () => {
      const file = fresh('0123456789');
      await truncate(file.under, 4);
      expect(fs.readFileSync(file.behind, 'utf8')).toBe('0123');
      const handle = await open(file.under, 'r+');
      await handle.truncate(6 * 2 ** 30);
      expect((await handle.stat()).size).toBe(6 * 2 ** 30);
      await handle.truncate(6);
      await handle.close();
      expect(await readFile(file.under, 'utf8')).toBe('0123\0\0');
      await writeFile(file.under, 'new');
      expect(fs.readFileSync(file.behind, 'utf8')).toBe('new');
    });

    it('fsync and fdatasync answer', async () => {
      const handle = await open(fresh().under, 'w');
      await handle.write('x');
      await handle.datasync();
      await handle.sync();
      await handle.close();
    });

    it('a memory-mapped file is read, and written through', async () => {
      const file = fresh(new Seeded('mapped').bytes(100_000));
      const program = [
        'import mmap',
        'f = open(sys.argv[1], "r+b")',
        'm = mmap.mmap(f.fileno(), 0)',
        'm[5000:5005] = b"hello"',
        'm.flush()',
        'print(m[99_990:].hex())',
      ].join('\n');
      const tail = await python(program, file.under);
      const behind = fs.readFileSync(file.behind);
      expect(tail).toBe(behind.subarray(99_990).toString('hex'));
      expect(behind.subarray(5000, 5005).toString()).toBe('hello');
    });

    it('what changes behind the mount is seen: contents of another size, of the same size, and new names', async () => {
      const file = fresh('before');
      expect(await readFile(file.under, 'utf8')).toBe('before');
      fs.writeFileSync(file.behind, 'quite another');
      await eventually(async () => expect(await readFile(file.under, 'utf8')).toBe('quite another'), seenWithinMs);
      fs.writeFileSync(file.behind, 'QUITE ANOTHER');
      await eventually(async () => expect(await readFile(file.under, 'utf8')).toBe('QUITE ANOTHER'), seenWithinMs);
      const other = fresh();
      await expect(stat(other.under)).rejects.toMatchObject({ code: 'ENOENT' });
      fs.writeFileSync(other.behind, 'new');
      await eventually(async () => expect(await readFile(other.under, 'utf8')).toBe('new'), seenWithinMs);
      fs.rmSync(file.behind);
      await eventually(() => expect(stat(file.under)).rejects.toMatchObject({ code: 'ENOENT' }), seenWithinMs);
    });

    it('fio writes, reads back and finds every byte', async () => {
      const file = fresh();
      const args = [
        '--name=v',
        `--filename=${file.under}`,
        '--rw=randwrite',
        '--bs=512-64k',
        '--size=8m',
        '--direct=1',
      ];
      await runOk('fio', [
        ...args,
        '--ioengine=psync',
        '--verify=crc32c',
        '--verify_fatal=1',
        '--randseed=7',
        '--verify_state_save=0',
      ]);
    });
  });

  describe('names', () => {
    it('O_EXCL refuses a file that is there, and makes one that is not', async () => {
      const file = fresh('kept');
      await expect(open(file.under, 'wx')).rejects.toMatchObject({ code: 'EEXIST' });
      expect(fs.readFileSync(file.behind, 'utf8')).toBe('kept');
      await (await open(fresh().under, 'wx')).close();
    });

    it('a new file and a new folder have the mode that was asked for, whatever the umask of the mount', async () => {
      const [file, folder] = [fresh(), fresh()];
      const program =
        'os.umask(0o002)\nos.close(os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o666))\nos.mkdir(sys.argv[2], 0o777)';
      await python(program, file.under, folder.under);
      expect(fs.statSync(file.behind).mode.toString(8)).toBe('100664');
      expect(fs.statSync(folder.behind).mode.toString(8)).toBe('40775');
    });

    it('a file that is made read-only can be written by who made it', async () => {
      const file = fresh();
      const handle = await open(file.under, 'wx', 0o400);
      await handle.write('written');
      await handle.close();
      expect(fs.readFileSync(file.behind, 'utf8')).toBe('written');
    });

    it('a file is renamed, over another one too', async () => {
      const [from, to] = [fresh('moved'), fresh('in the way')];
      expect(await readFile(to.under, 'utf8')).toBe('in the way');
      await rename(from.under, to.under);
      expect(await readFile(to.under, 'utf8')).toBe('moved');
      expect(fs.existsSync(from.behind)).toBe(false);
      expect(await readdir(place.mountpoint)).not.toContain(from.name);
    });

    it('folders are made, renamed and removed, but not while something is in them', async () => {
      const folder = fresh();
      await mkdir(folder.under);
      await writeFile(`${folder.under}/inside`, 'x');
      await expect(rmdir(folder.under)).rejects.toMatchObject({ code: 'ENOTEMPTY' });
      await rename(folder.under, `${folder.under} moved`);
      expect(await readFile(`${folder.under} moved/inside`, 'utf8')).toBe('x');
      await unlink(`${folder.under} moved/inside`);
      await rmdir(`${folder.under} moved`);
      expect(fs.existsSync(`${folder.behind} moved`)).toBe(false);
    });

    it('links of both kinds', async () => {
      const file = fresh('linked');
      await link(file.under, `${file.under} hard`);
      await symlink(file.name, `${file.under} soft`);
      expect(fs.statSync(file.behind).nlink).toBe(2);
      expect(await readFile(`${file.under} hard`, 'utf8')).toBe('linked');
      expect(await readlink(`${file.under} soft`)).toBe(file.name);
      expect(await readFile(`${file.under} soft`, 'utf8')).toBe('linked');
      await eventually(async () => expect((await lstat(file.under)).nlink).toBe(2), seenWithinMs);
      await unlink(file.under);
      expect(fs.readFileSync(`${file.behind} hard`, 'utf8')).toBe('linked');
    });

    it('mode, owner and times are changed', async () => {
      const file = fresh('x');
      await chmod(file.under, 0o751);
      await runOk('chown', ['1234:5678', file.under]);
      await runOk('chgrp', ['4321', file.under]);
      expect([fs.statSync(file.behind).uid, fs.statSync(file.behind).gid]).toEqual([1234, 4321]);
      await runOk('touch', [file.under]);
      expect(Date.now() - fs.statSync(file.behind).mtimeMs).toBeLessThan(60_000);
    });

    it('times are set, of a link itself and not of what it leads to', async () => {
      const file = fresh('x');
      await symlink(file.name, `${file.under} soft`);
      const [ofFile, ofLink] = [new Date('2001-02-03T04:05:06.789Z'), new Date('1999-12-31T23:59:58.001Z')];
      await utimes(file.under, ofFile, ofFile);
      await lutimes(`${file.under} soft`, ofLink, ofLink);
      for (const [name, time] of [
        ['', ofFile],
        [' soft', ofLink],
      ] as const) {
        const behind = fs.lstatSync(file.behind + name);
        expect([behind.atime, behind.mtime]).toEqual([time, time]);
        expect((await lstat(file.under + name)).mtime).toEqual(time);
      }
    });

    // fuse-native passes the time of access for both; and libfuse 2 passes nothing when only one is given.
    it.skipIf(transport.name === 'fuse-native')(
      'the times of access and of change are set apart, and alone',
      async () => {
        const file = fresh('x');
        await utimes(file.under, 1000, 2000);
        expect([fs.statSync(file.behind).atimeMs, fs.statSync(file.behind).mtimeMs]).toEqual([1_000_000, 2_000_000]);
        await runOk('touch', ['-m', '-d', '2011-12-13T14:15:16Z', file.under]);
        expect([fs.statSync(file.behind).atimeMs, fs.statSync(file.behind).mtimeMs]).toEqual([
          1_000_000, 1_323_785_716_000,
        ]);
        await runOk('touch', ['-a', '-d', '2001-01-01T00:00:00Z', file.under]);
        expect([fs.statSync(file.behind).atimeMs, fs.statSync(file.behind).mtimeMs]).toEqual([
          978_307_200_000, 1_323_785_716_000,
        ]);
      },
    );

    it('cp -a, mv and rm -r work on trees', async () => {
      const tree = place.temporary.file('tree');
      fs.mkdirSync(`${tree}/a/b`, { recursive: true });
      fs.writeFileSync(`${tree}/a/one`, '1');
      fs.writeFileSync(`${tree}/a/b/two`, '2', { mode: 0o600 });
      fs.symlinkSync('one', `${tree}/a/link`);
      const name = fresh().name;
      await runOk('cp', ['-a', tree, place.under(name)]);
      await runOk('mv', [place.under(name), place.under(`${name} moved`)]);
      await runOk('diff', ['-r', '--no-dereference', tree, place.behind(`${name} moved`)]);
      await runOk('rm', ['-r', place.under(`${name} moved`)]);
      expect(fs.existsSync(place.behind(`${name} moved`))).toBe(false);
    });
  });

  describe('while a file is open', () => {
    it('it is renamed, and the open file goes on', async () => {
      const file = fresh('first');
      const handle = await open(file.under, 'r+');
      await rename(file.under, `${file.under} renamed`);
      await handle.write('F', 0);
      await handle.truncate(3);
      expect((await handle.stat()).size).toBe(3);
      await handle.close();
      expect(fs.readFileSync(`${file.behind} renamed`, 'utf8')).toBe('Fir');
    });

    it('it is deleted, and the open file goes on until it is closed', async () => {
      const file = fresh('deleted');
      const handle = await open(file.under, 'r+');
      await unlink(file.under);
      await expect(stat(file.under)).rejects.toMatchObject({ code: 'ENOENT' });
      await handle.write('D', 0);
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(20), 0, 20, 0);
      expect(buffer.subarray(0, bytesRead).toString()).toBe('Deleted');
      expect((await handle.stat()).size).toBe(7);
      await handle.truncate(2);
      expect((await handle.stat()).size).toBe(2);
      await handle.close();
      await eventually(() =>
        expect(fs.readdirSync(place.folder).filter((name) => name.includes('fuse_hidden'))).toEqual([]),
      );
    });

    it('another file is renamed over it, and the open file goes on', async () => {
      const [file, other] = [fresh('old'), fresh('new')];
      const handle = await open(file.under, 'r');
      await rename(other.under, file.under);
      const { buffer } = await handle.read(Buffer.alloc(3), 0, 3, 0);
      expect(buffer.toString()).toBe('old');
      expect(await readFile(file.under, 'utf8')).toBe('new');
      await handle.close();
      await eventually(() =>
        expect(fs.readdirSync(place.folder).filter((name) => name.includes('fuse_hidden'))).toEqual([]),
      );
    });

    it('it is deleted behind the mount, and the open file goes on', async () => {
      const file = fresh('gone');
      const handle = await open(file.under, 'r+');
      fs.rmSync(file.behind);
      await handle.write('G', 0);
      const { buffer } = await handle.read(Buffer.alloc(4), 0, 4, 0);
      expect(buffer.toString()).toBe('Gone');
      await handle.close();
    });
  });

  it('a lock on a file holds another program off', async () => {
    const file = fresh('locked');
    const program = [
      'import fcntl, subprocess',
      'f = open(sys.argv[1], "r+b")',
      'fcntl.lockf(f, fcntl.LOCK_EX)',
      'other = "import fcntl,sys; fcntl.lockf(open(sys.argv[1], \'r+b\'), fcntl.LOCK_EX | fcntl.LOCK_NB)"',
      'print(subprocess.run([sys.executable, "-c", other, sys.argv[1]], stderr=subprocess.DEVNULL).returncode)',
    ].join('\n');
    expect(await python(program, file.under)).toBe('1');
  });

  it('QEMU makes a disk of its own, writes it and finds it sound', async () => {
    const file = fresh().under;
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', file, '64M']);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 1M 3M', '-c', 'flush', '-c', 'read -P 7 1M 3M', file]);
    expect(await runOk('qemu-img', ['check', file])).toContain('No errors');
  });

  it('a program killed in the middle of its writes leaves the mount in order', async () => {
    const file = fresh();
    await run('timeout', ['-s', 'KILL', '0.5', 'dd', 'if=/dev/zero', `of=${file.under}`, 'bs=4k']);
    await unlink(file.under);
    await eventually(async () => expect((await place.status()).pid).toBeGreaterThan(0));
    expect(await readdir(place.mountpoint)).not.toContain(file.name);
  });
});
