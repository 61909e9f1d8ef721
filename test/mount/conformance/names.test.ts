/** What lies under a mount, and what stat, statfs and readdir say of it. */
import fs from 'node:fs';
import { beforeAll, expect, it } from 'vitest';
import { run, runOk } from '../../cli/veneer.ts';
import { eventually, MountPlace, placeForTest } from '../mounted.ts';
import { mapOf, writeGuest } from '../guest-disk.ts';
import { covering } from '../../covering.ts';
import { describeTransports, type Transport } from '../transports.ts';

const { lstat, readdir, statfs } = fs.promises;

/** What stat says, but for the time of last access, which a look may change. */
async function shownStat(file: string): Promise<Partial<fs.BigIntStats>> {
  const { mode, nlink, uid, gid, size, blocks, mtimeNs } = await lstat(file, { bigint: true });
  return { mode, nlink, uid, gid, size, blocks, mtimeNs: mtimeNs / 1_000_000n };
}

describeTransports('names and attributes', (transport) => {
  let place: MountPlace;
  const oddNames = [
    'with space',
    'quote\'s "double"',
    'comma,equals=1',
    'back\\slash',
    'new\nline',
    '-rf',
    '.hidden',
    'Überänderung ñ 日本 🙂',
    'decomposed u\u0308',
    'x'.repeat(255),
  ];

  beforeAll(async () => {
    place = new MountPlace();
    await writeGuest(place.folder, place.temporary.file('disk.raw'));
    fs.mkdirSync(place.behind('many'));
    for (let number = 0; number < 1000; number++) fs.writeFileSync(place.behind(`many/file ${number}`), `${number}`);
    fs.mkdirSync(place.behind('odd'));
    for (const name of oddNames) fs.writeFileSync(place.behind(`odd/${name}`), name);
    fs.writeFileSync(place.behind('notes.txt'), 'notes', { mode: 0o640 });
    fs.writeFileSync(place.behind('sparse.raw'), 'x');
    fs.truncateSync(place.behind('sparse.raw'), 6 * 2 ** 30);
    fs.chownSync(place.behind('notes.txt'), 1234, 5678);
    fs.linkSync(place.behind('notes.txt'), place.behind('second name.txt'));
    fs.symlinkSync('notes.txt', place.behind('link.txt'));
    fs.mkdirSync(place.behind('folder'), { mode: 0o750 });
    await place.mount(...transport.options);
    return () => place.end();
  });

  it.each(['vm.vhdx', 'thin.vhdx'])(
    '%s has the size of its native file, all of it allocated, and the mode of its plugin file',
    async (name) => {
      const { sizeBytes } = mapOf(place.behind(name));
      const shown = await lstat(place.under(name), { bigint: true });
      const behind = fs.lstatSync(place.behind(name), { bigint: true });
      expect(shown.size).toBe(BigInt(sizeBytes));
      expect(shown.blocks).toBe(BigInt(sizeBytes / 512));
      expect(shown.mode.toString(8)).toBe('100644');
      expect(shown.mtimeMs).toBe(behind.mtimeMs);
      expect(shown.nlink).toBe(1n);
    },
  );

  it('an image has its own size and no permission to write', async () => {
    const behind = await shownStat(place.behind('vm.spf'));
    expect(await shownStat(place.under('vm.spf'))).toEqual({ ...behind, mode: 0o100444n });
  });

  it.each(['notes.txt', 'second name.txt', 'link.txt', 'sparse.raw', 'folder', 'many'])(
    '%s looks as it does behind the mount',
    async (name) => {
      expect(await shownStat(place.under(name))).toEqual(await shownStat(place.behind(name)));
    },
  );

  it('two names of one file are one file', async () => {
    const [first, second] = [await lstat(place.under('notes.txt')), await lstat(place.under('second name.txt'))];
    expect(first.ino).toBe(second.ino);
  });

  it('a folder of 1,000 files lists each of them once', async () => {
    const names = await readdir(place.under('many'));
    expect(names.sort()).toEqual(fs.readdirSync(place.behind('many')).sort());
    expect(names).toHaveLength(1000);
  });

  it('a listing tells files, folders and links apart, and has the folder itself and its parent', async () => {
    const entries = await readdir(place.mountpoint, { withFileTypes: true });
    const kinds = new Map(
      entries.map((entry) => [entry.name, entry.isDirectory() ? 'folder' : entry.isSymbolicLink() ? 'link' : 'file']),
    );
    expect(kinds.get('vm.vhdx')).toBe('file');
    expect(kinds.get('many')).toBe('folder');
    expect(kinds.get('link.txt')).toBe('link');
    expect([...kinds.keys()].sort()).toEqual(fs.readdirSync(place.folder).sort());
    expect((await runOk('ls', ['-a', place.under('folder')])).trim()).toBe('.\n..');
  });

  it.each(oddNames)('the name %j is listed, found and read', async (name) => {
    expect(await readdir(place.under('odd'))).toContain(name);
    expect(await fs.promises.readFile(place.under(`odd/${name}`), 'utf8')).toBe(name);
  });

  it('says in the system’s own words what is wrong with a name', async () => {
    await expect(lstat(place.under('nothing'))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(lstat(place.under('folder/nothing'))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(lstat(place.under('notes.txt/x'))).rejects.toMatchObject({ code: 'ENOTDIR' });
    await expect(lstat(place.under('x'.repeat(256)))).rejects.toMatchObject({ code: 'ENAMETOOLONG' });
    await expect(readdir(place.under('notes.txt'))).rejects.toMatchObject({ code: 'ENOTDIR' });
  });

  it('statfs tells of the file system behind', async () => {
    await eventually(async () => {
      const [shown, behind] = [await statfs(place.mountpoint), fs.statfsSync(place.folder)];
      expect(shown.blocks * shown.bsize).toBe(behind.blocks * behind.bsize);
      expect(Math.abs(shown.bavail * shown.bsize - behind.bavail * behind.bsize)).toBeLessThan(64 * 2 ** 20);
      expect(shown.files).toBe(Math.min(behind.files, 2 ** 32 - 1));
    });
  });

  it('a tree walk finds all that lies behind', async () => {
    const walk = async (folder: string): Promise<string[]> =>
      (await runOk('find', ['.', '-print0'], folder)).split('\0').sort();
    expect(await walk(place.mountpoint)).toEqual(await walk(place.folder));
  });
});

/** Every name, and over each transport one at least: a soak has every name over each. */
const mountpointNames = ['with space', "quote's, comma", 'tab\tand\\backslash', 'ünï 日本'];

const mountpoints = covering(
  mountpointNames.flatMap((name) => ['kernel', 'fuse-native'].map((transport) => ({ name, transport }))),
  ({ name, transport }) => [name, transport],
);
const namesFor = ({ name: chosen }: Transport): string[] =>
  mountpoints.filter(({ transport }) => transport === chosen).map(({ name }) => name);

describeTransports('odd mountpoints', (transport) => {
  it.each(namesFor(transport))('%j can be mounted on', async (name) => {
    const odd = placeForTest(name);
    fs.writeFileSync(odd.behind('file'), 'here');
    await odd.mount(...transport.options);
    expect(odd.isMounted).toBe(true);
    expect(await fs.promises.readFile(odd.under('file'), 'utf8')).toBe('here');
    expect((await odd.status()).mountpoint).toBe(odd.mountpoint);
    await odd.unmount();
    expect(odd.isMounted).toBe(false);
    expect((await run('ls', [odd.mountpoint])).stdout).toBe('');
  });
});
