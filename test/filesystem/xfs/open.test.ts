/** XFS that the kernel filled: every name and byte is read, a log is judged, and xfs_repair finds patched volumes sound. */
import fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { openXfs } from '../../../src/filesystem/xfs/open.ts';
import { TempFolder } from '../../temp-folder.ts';
import {
  applyTo,
  copyTree,
  differences,
  expectTree,
  label,
  prototypeOf,
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
if (noMounts !== undefined) console.log(`XFS is not tested: ${noMounts}`);

beforeAll(() => writeTree(tree, 'xfs', 6000));
afterAll(() => folder.remove());

const kinds: readonly (readonly [string, readonly string[]])[] = [
  ['XFS', []],
  ['XFS of 1 KiB blocks', ['-b', 'size=1024']],
  ['XFS with folder blocks of 16 KiB and nrext64', ['-n', 'size=16384', '-i', 'nrext64=1']],
];

function make(name: string, fill: ((mountpoint: string) => void) | undefined, ...options: readonly string[]): string {
  const image = folder.file(name);
  fs.writeFileSync(image, '');
  fs.truncateSync(image, 320 * MiB);
  run('mkfs.xfs', '-q', '-f', '-L', label, '-m', `uuid=${uuid}`, ...options, image);
  if (fill !== undefined) withMounted(image, [], fill);
  return image;
}

describe.skipIf(noMounts !== undefined)('XFS', () => {
  it.each(kinds)('%s is read to the last name and byte', (title, options) => {
    const image = make(title.replaceAll(' ', '-'), (mountpoint) => copyTree(tree, mountpoint), ...options);
    withFileSystem(openXfs, image, (fileSystem) => {
      expectTree(tree, 'xfs', fileSystem);
    });
  });

  it('version 4, which mkfs.xfs fills by itself, is read to the last name and byte', () => {
    const image = make(
      'version-4',
      undefined,
      '-m',
      'crc=0,finobt=0',
      '-n',
      'ftype=0',
      '-p',
      folder.write('proto', prototypeOf(tree)),
    );
    withFileSystem(openXfs, image, (fileSystem) => expect(differences(tree, fileSystem)).toEqual([]));
  });

  it('a patched file reads as patched by the kernel, and xfs_repair finds the volume sound', () => {
    const image = make('patched', (mountpoint) => copyTree(tree, mountpoint));
    const edits = [{ path: '/etc/fstab', fileOffset: 5, after: Buffer.from('vda') }];
    applyTo(
      image,
      withFileSystem(openXfs, image, (fileSystem) => fileSystem.replace(edits)),
    );
    run('xfs_repair', '-n', image);
    withMounted(image, ['ro'], (mountpoint) => {
      expect(fs.readFileSync(`${mountpoint}/etc/fstab`, 'utf8')).toMatch(/^\/dev\/vda1 \//);
    });
  });

  it('a log that was not replayed is said, and nothing is patched', () => {
    const dirty = folder.file('dirty');
    make('busy', (mountpoint) => {
      fs.writeFileSync(`${mountpoint}/fstab`, 'contents');
      run('sync', '-f', mountpoint);
      fs.renameSync(`${mountpoint}/fstab`, `${mountpoint}/fstab-2`);
      run('xfs_io', '-c', 'fsync', mountpoint);
      fs.copyFileSync(folder.file('busy'), dirty);
    });
    withFileSystem(openXfs, dirty, (fileSystem) => {
      expect(fileSystem.warnings).toEqual([expect.stringContaining('log was not replayed')]);
      const { volume } = fileSystem;
      const edit = { node: volume.root, path: '/fstab', fileOffset: 0, after: Buffer.from('x') };
      expect(() => volume.replace([edit])).toThrow(/replayed/);
    });
    withFileSystem(openXfs, folder.file('busy'), (fileSystem) => expect(fileSystem.warnings).toEqual([]));
  });
});
