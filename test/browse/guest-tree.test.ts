/**
 * A guest's files by its own paths: what the kernel finds when the guest's volumes are mounted as its fstab says, `chroot` for its links. And what no
 * guest should be asked for: paths that lead out, round in circles, or nowhere.
 */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { findIn } from '../../src/browse/find.ts';
import { GuestTree } from '../../src/browse/guest-tree.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { memoryDisk } from '../../src/disk/memory.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { run, whyNoMounts, withMounted } from '../filesystem/trees.ts';

const homeUuid = '11111111-2222-3333-4444-555555555555';
const folder = new TempFolder();
const [root, home, disk] = ['root.raw', 'home.raw', 'disk.raw'].map((name) => folder.file(name)) as [
  string,
  string,
  string,
];
const missing = whyNoMounts();

function writeTree(
  files: Readonly<Record<string, string | Uint8Array>>,
  links: Readonly<Record<string, string>>,
): string {
  const tree = fs.mkdtempSync(folder.file('tree-'));
  const made = (name: string): string => {
    fs.mkdirSync(path.join(tree, path.dirname(name)), { recursive: true });
    return path.join(tree, name);
  };
  for (const [name, contents] of Object.entries(files)) fs.writeFileSync(made(name), contents);
  for (const [name, target] of Object.entries(links)) fs.symlinkSync(target, made(name));
  return tree;
}

beforeAll(() => {
  const random = new Seeded('two volumes');
  const rootTree = writeTree(
    {
      'etc/os-release': 'PRETTY_NAME="Test"\n',
      'etc/fstab': `UUID=${homeUuid} /home ext4 defaults 0 2\nLABEL=away /mnt/away ext4 nofail 0 2\n`,
      'etc/motd': 'hello\n',
      'home/hidden': 'what the mountpoint hides',
      'var/large': random.bytes(700 * KiB + 1),
    },
    {
      'etc/to-home': '/home/alice/x',
      'var/circle': 'circle',
      'var/out': '../../../../../../etc/motd',
      lost: '/no/where',
    },
  );
  const homeTree = writeTree(
    { 'alice/x': 'hi\n', 'bob/deep/er/y': 'y' },
    { 'alice/back': '/etc/motd', 'alice/up': '../../etc/motd' },
  );
  for (const [image, size, tree, ...options] of [
    [root, '64M', rootTree, '-L', 'root'],
    [home, '32M', homeTree, '-U', homeUuid],
  ] as const)
    run('mke2fs', '-q', '-F', '-t', 'ext4', ...options, '-d', tree, image, size);
  fs.writeFileSync(disk, '');
  fs.truncateSync(disk, 100 * MiB);
  fs.writeFileSync(folder.file('table'), 'label: gpt\nstart=2048,size=131072\nstart=133120,size=65536\n');
  run('sh', '-c', `sfdisk -q ${disk} < ${folder.file('table')}`);
  for (const [image, sector] of [
    [root, 2048],
    [home, 133120],
  ] as const)
    run('dd', `if=${image}`, `of=${disk}`, 'bs=512', `seek=${sector}`, 'conv=notrunc', 'status=none');
});
afterAll(() => folder.remove());

function expectNoComplaint(text: string): void {
  expect.fail(text);
}

function withTree<T>(use: (tree: GuestTree) => T): T {
  const opened = openFileDisk(disk);
  try {
    return use(new GuestTree(opened));
  } finally {
    opened.close();
  }
}

function textOf(tree: GuestTree, asked: string, volume?: string): string {
  const { fileSystem, node } = tree.find(asked, volume === undefined ? {} : { volume });
  const file = fileSystem.open(node);
  const bytes = Buffer.alloc(file.sizeBytes);
  file.read(bytes, 0);
  return bytes.toString('latin1');
}

it('finds every file where the kernel has it with the volumes mounted as fstab says', (context) => {
  if (missing !== undefined) context.skip(missing);
  withMounted(root, ['ro'], (mountpoint) => {
    run('mount', '-o', 'loop,ro', home, `${mountpoint}/home`);
    try {
      const told = run('find', mountpoint, '-mindepth', '1', '-printf', '/%P %y %s %m %U %G %n %T@\n')
        .trimEnd()
        .split('\n')
        .sort();
      const found = withTree((tree) =>
        Array.from(
          findIn(tree, [tree.find('/')], { name: undefined, type: undefined, largerBytes: undefined }, (text) =>
            expect.fail(text),
          ),
          (one) => {
            const { type, sizeBytes, permissions, owner, links, modifiedNs = 0n } = one.stat;
            const time = `${modifiedNs / 1_000_000_000n}.${String(modifiedNs % 1_000_000_000n).padStart(9, '0')}0`;
            const letter = { file: 'f', folder: 'd', link: 'l' }[type as 'file' | 'folder' | 'link'];
            return `${one.path} ${letter} ${sizeBytes} ${permissions?.toString(8) ?? ''} ${owner?.uid ?? ''} ${owner?.gid ?? ''} ${links} ${time}`;
          },
        ).sort(),
      );
      expect(found).toEqual(told);
      expect(found.some((line) => line.startsWith('/home/bob/deep/er/y f'))).toBe(true);
      expect(found.some((line) => line.includes('hidden'))).toBe(false);
    } finally {
      run('umount', `${mountpoint}/home`);
    }
  });
});

it('follows links as the guest does: from volume to volume, and never above its root', () => {
  withTree((tree) => {
    for (const asked of ['/etc/motd', '/home/alice/back', '/home/alice/up', '/var/out', '/etc/../../..//etc/./motd'])
      expect(textOf(tree, asked), asked).toBe('hello\n');
    expect(textOf(tree, '/etc/to-home')).toBe('hi\n');
    expect(tree.find('/etc/to-home').path).toBe('/home/alice/x');
    expect(tree.find('/etc/to-home', { follow: false }).stat.type).toBe('link');
    expect(textOf(tree, '/var/large')).toHaveLength(700 * KiB + 1);
  });
});

it('says in one line what is not there', () => {
  withTree((tree) => {
    const refused =
      (asked: string, volume?: string): (() => unknown) =>
      () =>
        tree.find(asked, volume === undefined ? {} : { volume });
    expect(refused('/etc/none')).toThrow('/etc/none: /etc has no none');
    expect(refused('/etc/motd/under')).toThrow('/etc/motd/under: /etc/motd is no folder');
    expect(refused('/var/circle')).toThrow(/leads through more than 40 links/);
    expect(refused('/lost')).toThrow('/lost: / has no no');
    expect(refused('/x', 'none')).toThrow(
      /--volume none: is none of the disk's; partition 1 \(ext4\), partition 2 \(ext4\)/,
    );
  });
});

it('reads a volume by its number, name, label or UUID, and its links within it', () => {
  withTree((tree) => {
    for (const name of ['2', 'partition 2', homeUuid, homeUuid.toUpperCase()])
      expect(textOf(tree, '/alice/x', name)).toBe('hi\n');
    expect(textOf(tree, '/home/hidden', 'root')).toBe('what the mountpoint hides');
    // There is no /etc in that volume.
    expect(() => tree.find('/alice/back', { volume: '2' })).toThrow('/alice/back: / has no etc');
    expect(
      tree.list(tree.find('/', { volume: 'root' }), expectNoComplaint).find(({ name }) => name === 'home')?.found
        .fileSystem.label,
    ).toBe('root');
  });
});

it('says which volume of its fstab is not read, and which of several a name may mean', () => {
  withTree((tree) => {
    expect(tree.warnings).toEqual(['/mnt/away is on LABEL=away, which is not read']);
    expect(tree.roots().map(({ path: at }) => at)).toEqual(['/']);
  });
  const labelled = folder.file('labelled.raw');
  fs.copyFileSync(home, labelled);
  run('e2label', labelled, 'root');
  const twice = fs.readFileSync(disk);
  fs.readFileSync(labelled).copy(twice, 133120 * 512);
  const tree = new GuestTree(memoryDisk(twice));
  expect(() => tree.find('/', { volume: 'root' })).toThrow(
    '--volume root: may be partition 1, partition 2; give the name or the UUID of one',
  );
});

it('leaves out and names what of a folder is broken, and tells the others', () => {
  const broken = fs.readFileSync(disk);
  const number = withTree((tree) => tree.find('/etc/motd').node);
  const said = run('debugfs', '-R', `imap <${number}>`, root);
  const [, block = '', offset = ''] = /located at block (\d+), offset (0x[0-9a-f]+)/.exec(said) ?? [];
  const blockBytes = Number(/Block size: +(\d+)/.exec(run('dumpe2fs', '-h', root))?.[1]);
  const at = 2048 * 512 + Number(block) * blockBytes + Number(offset);
  broken[at + 8] = (broken[at + 8] ?? 0) ^ 0xff;
  const tree = new GuestTree(memoryDisk(broken));
  const complaints: string[] = [];
  const names = tree.list(tree.find('/etc'), (text) => complaints.push(text)).map(({ name }) => name);
  expect(names.sort()).toEqual(['fstab', 'os-release', 'to-home']);
  expect(complaints).toEqual([expect.stringMatching(/^\/etc\/motd: is not read: .*checksum/)]);
});
