/**
 * What is read of a file system is what the kernel tells of it: every kind of node, times before 1970 and after 2038 to the nanosecond, large owners,
 * names of any bytes, links of every length, contents with holes.
 */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { bytesOfName, nameOfBytes } from '../../src/base/names.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import type { FileSystem, NodeId, NodeType } from '../../src/filesystem/file-system.ts';
import { fileSystems } from '../../src/filesystem/registry.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { run, whyNoMounts, withMounted } from './trees.ts';

const missing = whyNoMounts();
const folder = new TempFolder();
afterAll(() => folder.remove());

/** How each is made, and what it cannot keep. */
const made: Readonly<Record<string, { make: (image: string) => void; sizeBytes: number; smallTimes?: true }>> = {
  ext4: { sizeBytes: 32 * MiB, make: (image) => run('mke2fs', '-q', '-F', '-t', 'ext4', image) },
  'ext4 with data in inodes': {
    sizeBytes: 32 * MiB,
    make: (image) => run('mke2fs', '-q', '-F', '-t', 'ext4', '-I', '1024', '-O', 'inline_data', image),
  },
  'ext2 with inodes of 128 bytes': {
    sizeBytes: 32 * MiB,
    make: (image) => run('mke2fs', '-q', '-F', '-t', 'ext2', '-I', '128', image),
    smallTimes: true,
  },
  XFS: { sizeBytes: 320 * MiB, make: (image) => run('mkfs.xfs', '-q', '-f', '-m', 'bigtime=1', image) },
  'XFS with times of 32 bits': {
    sizeBytes: 320 * MiB,
    make: (image) => run('mkfs.xfs', '-q', '-f', '-m', 'bigtime=0', image),
    smallTimes: true,
  },
  btrfs: { sizeBytes: 128 * MiB, make: (image) => run('mkfs.btrfs', '-q', '-f', image) },
};

const times = [0n, -1_000_000_001n, 981_173_106_987_654_321n, 2_000_000_000_000_000_001n];
/** Of 34 bits of seconds, or more. */
const lateTimes = [4_000_000_000_123_456_789n, 2_147_483_648_000_000_000n];

function fill(mountpoint: string, times: readonly bigint[]): void {
  const random = new Seeded('nodes of every kind');
  const at = (name: string | Buffer): Buffer => Buffer.concat([Buffer.from(`${mountpoint}/`), Buffer.from(name)]);
  fs.writeFileSync(at('empty'), '');
  fs.writeFileSync(at('small'), 'a few bytes', { mode: 0o4755 });
  fs.writeFileSync(at('large'), random.bytes(700 * KiB + 13));
  fs.writeFileSync(at(Buffer.from([0x66, 0xff, 0xfe, 0x66])), 'a name that is no UTF-8');
  fs.writeFileSync(at('x'.repeat(255)), 'a long name');
  const sparse = fs.openSync(at('sparse'), 'w');
  fs.writeSync(sparse, random.bytes(8 * KiB), 0, 8 * KiB, 256 * KiB);
  fs.ftruncateSync(sparse, 3 * MiB + 1);
  fs.closeSync(sparse);
  fs.mkdirSync(at('folder'), { mode: 0o1777 });
  fs.mkdirSync(at('folder/inner'));
  fs.linkSync(at('small'), at('folder/again'));
  for (const length of [1, 59, 60, 100, 1000]) fs.symlinkSync('l'.repeat(length), at(`link-${length}`));
  fs.symlinkSync(Buffer.from([0x6c, 0xff]), at('link-odd'));
  for (const [name, ...kind] of [
    ['pipe', 'p'],
    ['character', 'c', '5', '1'],
    ['block', 'b', '259', '70000'],
    ['character-large', 'c', '300', '300'],
  ] as const)
    run('mknod', path.join(mountpoint, name), ...kind);
  fs.chownSync(at('large'), 70_000, 123_456);
  fs.chmodSync(at('folder/inner'), 0o2750);
  for (const [index, name] of ['empty', 'small', 'large', 'folder', 'pipe', 'sparse'].entries()) {
    const told = timeText(times[index % times.length] ?? 0n);
    run('touch', '-h', '-d', told, path.join(mountpoint, name));
  }
}

/** As touch reads it. */
function timeText(ns: bigint): string {
  const rest = ns % 1_000_000_000n;
  const nanos = rest < 0n ? rest + 1_000_000_000n : rest;
  return `@${(ns - nanos) / 1_000_000_000n}.${String(nanos).padStart(9, '0')}`;
}

interface Told {
  readonly name: string;
  readonly type: NodeType;
  readonly sizeBytes: number | undefined;
  readonly links: number;
  readonly permissions: number | undefined;
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
  readonly modifiedNs: bigint | undefined;
  readonly changedNs: bigint | undefined;
  readonly device: { readonly major: number; readonly minor: number } | undefined;
  /** Of a file its bytes, of a link its target. */
  readonly holds: string | undefined;
}

function typeOf(stat: fs.BigIntStats): NodeType {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'folder';
  if (stat.isSymbolicLink()) return 'link';
  if (stat.isFIFO()) return 'pipe';
  if (stat.isSocket()) return 'socket';
  return stat.isCharacterDevice() ? 'character device' : 'block device';
}

/** As the kernel tells it. */
function* toldByKernel(mountpoint: string, below = ''): Generator<Told> {
  for (const bytes of fs.readdirSync(mountpoint + below, { encoding: 'buffer' })) {
    const at = Buffer.concat([Buffer.from(`${mountpoint}${below}/`), bytes]);
    const stat = fs.lstatSync(at, { bigint: true });
    const type = typeOf(stat);
    const name = `${below}/${nameOfBytes(bytes)}`;
    const rdev = Number(stat.rdev);
    yield {
      name,
      type,
      sizeBytes: type === 'folder' ? undefined : Number(stat.size),
      links: Number(stat.nlink),
      permissions: Number(stat.mode) & 0o7777,
      owner: { uid: Number(stat.uid), gid: Number(stat.gid) },
      modifiedNs: stat.mtimeNs,
      changedNs: stat.ctimeNs,
      device: type.endsWith('device')
        ? { major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) + ((rdev >>> 20) & 0xfff) * 0x100 }
        : undefined,
      holds:
        type === 'file'
          ? fs.readFileSync(at).toString('latin1')
          : type === 'link'
            ? fs.readlinkSync(at, { encoding: 'buffer' }).toString('latin1')
            : undefined,
    };
    if (type === 'folder') yield* toldByKernel(mountpoint, name);
  }
}

/** The same of what is read here. */
function* read(fileSystem: FileSystem, node: NodeId = fileSystem.root, below = ''): Generator<Told> {
  for (const { name: last, node: child } of fileSystem.entries(node)) {
    expect(fileSystem.lookup(node, last)).toBe(child);
    const { type, sizeBytes, links, permissions, owner, modifiedNs, changedNs, device } = fileSystem.stat(child);
    const name = `${below}/${last}`;
    yield {
      ...{ name, type, links, permissions, owner, modifiedNs, changedNs, device },
      sizeBytes: type === 'folder' ? undefined : sizeBytes,
      holds:
        type === 'file'
          ? contentsOf(fileSystem, child)
          : type === 'link'
            ? bytesOfName(fileSystem.readLink(child)).toString('latin1')
            : undefined,
    };
    if (type === 'folder') yield* read(fileSystem, child, name);
  }
}

/** In reads of odd lengths that meet every border. */
function contentsOf(fileSystem: FileSystem, node: NodeId): string {
  const file = fileSystem.open(node);
  const whole = Buffer.alloc(file.sizeBytes);
  for (let at = 0; at < whole.length; at += 77_777) file.read(whole.subarray(at, at + 77_777), at);
  let end = 0;
  for (const { offset, length, kind } of file.extents(0, file.sizeBytes)) {
    expect(offset).toBe(end);
    end += length;
    if (kind === 'zero') expect(whole.subarray(offset, end).every((byte) => byte === 0)).toBe(true);
  }
  expect(end).toBe(file.sizeBytes);
  return whole.toString('latin1');
}

function sorted(all: Iterable<Told>): Told[] {
  return [...all].filter(({ name }) => !name.startsWith('/lost+found')).sort((a, b) => (a.name < b.name ? -1 : 1));
}

describe.each(Object.entries(made))('%s', (name, { make, sizeBytes, smallTimes }) => {
  it('is read as the kernel tells it', (context) => {
    if (missing !== undefined) context.skip(missing);
    const image = folder.file(name.replaceAll(' ', '-'));
    fs.writeFileSync(image, '');
    fs.truncateSync(image, sizeBytes);
    make(image);
    withMounted(image, [], (mountpoint) => fill(mountpoint, smallTimes === true ? times : [...times, ...lateTimes]));
    let told: Told[] = [];
    withMounted(image, ['ro'], (mountpoint) => {
      told = sorted(toldByKernel(mountpoint));
    });
    const disk = openFileDisk(image);
    try {
      const fileSystem = fileSystems.map((reader) => reader.open(disk)).find((found) => found !== undefined);
      if (fileSystem === undefined) expect.fail('it is not known');
      expect(sorted(read(fileSystem))).toEqual(told);
      expect(told).toHaveLength(19);
    } finally {
      disk.close();
    }
  });
});
