/** btrfs that the kernel filled: every name and byte is read, compressed or not, and btrfs check finds patched volumes sound. */
import fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { openBtrfs } from '../../../src/filesystem/btrfs/open.ts';
import { TempFolder } from '../../temp-folder.ts';
import {
  applyTo,
  copyTree,
  differences,
  expectTree,
  label,
  run,
  uuid,
  whyNoMounts,
  withFileSystem,
  withMounted,
  writeTree,
} from '../trees.ts';

const folder = new TempFolder();
const tree = folder.file('tree');
const noMounts = whyNoMounts();
if (noMounts !== undefined) console.log(`btrfs is not tested: ${noMounts}`);

beforeAll(() => writeTree(tree, 'btrfs'));
afterAll(() => folder.remove());

function make(
  name: string,
  options: readonly string[],
  mountOptions: readonly string[],
  fill: (mountpoint: string) => void,
): string {
  const image = folder.file(name);
  fs.writeFileSync(image, '');
  fs.truncateSync(image, 256 * MiB);
  run('mkfs.btrfs', '-q', '-f', '-L', label, '-U', uuid, ...options, image);
  withMounted(image, mountOptions, fill);
  return image;
}

const filled = (mountpoint: string): void => copyTree(tree, mountpoint);

const kinds: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ['btrfs', [], []],
  ['btrfs with data kept twice', ['-d', 'dup'], []],
  ['btrfs of one profile with small nodes', ['-m', 'single', '-n', '4096'], []],
  ['btrfs compressed by zstd', [], ['compress-force=zstd']],
  ['btrfs compressed by zlib', [], ['compress-force=zlib']],
  ['btrfs with sha256', ['--csum', 'sha256'], []],
];

describe.skipIf(noMounts !== undefined)('btrfs', () => {
  it.each(kinds)('%s is read to the last name and byte', (title, options, mountOptions) => {
    const image = make(title.replaceAll(' ', '-'), options, mountOptions, filled);
    withFileSystem(openBtrfs, image, (fileSystem) => {
      expectTree(tree, 'btrfs', fileSystem);
    });
  });

  it('subvolumes are read where they lie, the default one as the root, the others by name', () => {
    const image = make('subvolumes', [], [], (mountpoint) => {
      run('btrfs', 'subvolume', 'create', `${mountpoint}/@`);
      run('btrfs', 'subvolume', 'create', `${mountpoint}/@home`);
      copyTree(tree, `${mountpoint}/@`);
      fs.writeFileSync(`${mountpoint}/@home/here`, 'at home');
      run('btrfs', 'subvolume', 'set-default', `${mountpoint}/@`);
    });
    withFileSystem(openBtrfs, image, (fileSystem) => {
      expect(differences(tree, fileSystem)).toEqual([]);
      const others = fileSystem.subvolumes();
      expect(others.map(({ name }) => name)).toEqual(['/', '@home']);
      expect(Buffer.from(others[0]?.files.readFile('/@home/here', 100) ?? []).toString()).toBe('at home');
      expect(others[1]?.files.list('/')).toEqual(['here']);
    });
  });

  it.each([
    ['in one copy', 'single', 'crc32c'],
    ['in two copies', 'dup', 'sha256'],
  ])(
    'a patched file %s reads as patched by the kernel, and btrfs check verifies all checksums',
    (_what, profile, csum) => {
      const image = make(`patched-${profile}`, ['-d', profile, '--csum', csum], [], filled);
      const edits = [
        { path: '/etc/fstab', fileOffset: 5, after: Buffer.from('vda') },
        { path: '/etc/fstab', fileOffset: 4090, after: Buffer.from('over a sector') },
        { path: '/usr/lib/large', fileOffset: 2 * MiB, after: Buffer.from('far away') },
      ];
      applyTo(
        image,
        withFileSystem(openBtrfs, image, (fileSystem) => fileSystem.replace(edits)),
      );
      run('btrfs', 'check', '--check-data-csum', image);
      withFileSystem(openBtrfs, image, (fileSystem) => {
        expect(
          Buffer.from(fileSystem.readFile('/usr/lib/large', 8 * MiB))
            .subarray(2 * MiB, 2 * MiB + 8)
            .toString(),
        ).toBe('far away');
      });
      withMounted(image, ['ro'], (mountpoint) => {
        const fstab = fs.readFileSync(`${mountpoint}/etc/fstab`, 'utf8');
        expect(fstab).toMatch(/^\/dev\/vda1 \//);
        expect(fstab.slice(4090, 4103)).toBe('over a sector');
      });
    },
  );

  it('compressed, inline and shared data are not patched, nor those compressed by LZO read', () => {
    const edit = (path: string) => [{ path, fileOffset: 0, after: Buffer.from('x') }];
    const compressed = make('compressed', [], ['compress-force=zstd'], filled);
    withFileSystem(openBtrfs, compressed, (fileSystem) => {
      expect(() => fileSystem.replace(edit('/usr/lib/compressible'))).toThrow(/is compressed/);
      expect(() => fileSystem.replace(edit('/tiny'))).toThrow(/inline extent/);
    });
    const shared = make('shared', [], ['compress-force=lzo'], (mountpoint) => {
      filled(mountpoint);
      run('cp', '--reflink=always', `${mountpoint}/usr/lib/large`, `${mountpoint}/copy`);
    });
    withFileSystem(openBtrfs, shared, (fileSystem) => {
      expect(() => fileSystem.replace(edit('/copy'))).toThrow(/shares its extent/);
      expect(() => fileSystem.readFile('/usr/lib/compressible', 8 * MiB)).toThrow(/LZO/);
    });
  });

  it('a damaged copy of a node is passed over, and damaged data are refused', () => {
    const image = make('damaged', [], [], filled);
    const pieces = withFileSystem(openBtrfs, image, (fileSystem) => fileSystem.locate('/usr/lib/large'));
    const bytes = fs.readFileSync(image);
    const at = (pieces[0]?.volumeOffset ?? 0) + 5;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    const root = Number(bytes.readBigUInt64LE(65536 + 0x50));
    const [first] = run('btrfs-map-logical', '-l', String(root), image).match(/(?<=physical )\d+/g) ?? [];
    bytes.fill(0, Number(first), Number(first) + 4096);
    fs.writeFileSync(image, bytes);
    withFileSystem(openBtrfs, image, (fileSystem) => {
      expect(fileSystem.list('/etc')).toContain('fstab');
      expect(() => fileSystem.readFile('/usr/lib/large', 8 * MiB)).toThrow(/btrfs data at byte/);
    });
  });
});
