/** The NTFS reader against volumes that ntfs-3g wrote, and patches as ntfs-3g reads them. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { UnsupportedError } from '../../../src/base/errors.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import type { FileEdit } from '../../../src/filesystem/by-path.ts';
import { isNtfs } from '../../../src/filesystem/ntfs/geometry.ts';
import { FilesByPath } from '../../../src/filesystem/by-path.ts';
import { NtfsVolume } from '../../../src/filesystem/ntfs/volume.ts';
import { Seeded, seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { applyTo } from '../trees.ts';
import { catFile, faultsOf, makeVolume } from './made-volume.ts';

function withVolume<T>(image: string, use: (volume: FilesByPath, ntfs: NtfsVolume) => T): T {
  const disk = openFileDisk(image);
  try {
    expect(isNtfs(disk)).toBe(true);
    const ntfs = new NtfsVolume(disk);
    return use(new FilesByPath(ntfs), ntfs);
  } finally {
    disk.close();
  }
}

/** A file on a volume that is full but for single clusters. */
function writeScattered(folder: string, name: string, clusters: number, random: Seeded): void {
  const small = (index: number): string => path.join(folder, `small${index}`);
  for (let index = 0; index < clusters * 2; index++) fs.writeFileSync(small(index), Buffer.alloc(4 * KiB, index));
  const filler = fs.openSync(path.join(folder, 'filler'), 'w');
  try {
    for (;;) fs.writeSync(filler, Buffer.alloc(64 * KiB, 1));
  } catch {
    // The volume is full: as it is meant.
  }
  fs.closeSync(filler);
  for (let index = 0; index < clusters * 2; index += 2) fs.rmSync(small(index));
  fs.writeFileSync(path.join(folder, name), random.bytes((clusters - 300) * 4 * KiB));
}

for (const clusterBytes of [512, 4096, 65_536]) {
  it(`reads what ntfs-3g wrote: clusters of ${clusterBytes}`, (context) => {
    using folder = new TempFolder();
    const random = seededTest('ntfs contents');
    const files: Record<string, Uint8Array> = {
      'Windows/System32/config/SYSTEM': random.bytes(3 * MiB + 77),
      'resident.txt': random.bytes(300),
      empty: new Uint8Array(0),
      'a/b/c/d/deep.bin': random.bytes(70 * KiB),
      'Größe-漢字-ß.txt': random.bytes(5000),
    };
    for (let index = 0; index < 1500; index++)
      files[`many/Name ${index} ${'x'.repeat(index % 60)}.dll`] = random.bytes(index % 9);
    const { image } = makeVolume(context, folder, {
      clusterBytes,
      files,
      sizeBytes: 192 * MiB,
      fill: (mountpoint) => {
        const sparse = fs.openSync(path.join(mountpoint, 'sparse'), 'w');
        for (let piece = 0; piece < 40; piece++)
          fs.writeSync(sparse, random.bytes(4 * KiB), 0, 4 * KiB, piece * 512 * KiB);
        fs.ftruncateSync(sparse, 30 * MiB);
        fs.closeSync(sparse);
      },
    });
    withVolume(image, (volume) => {
      expect(volume.label).toBe('Windows');
      expect(volume.warnings).toEqual([]);
      for (const [name, contents] of Object.entries(files)) {
        expect(volume.stat(`/${name}`)).toMatchObject({ type: 'file', sizeBytes: contents.length });
        expect(Buffer.from(contents).equals(volume.readFile(`/${name}`, contents.length))).toBe(true);
      }
      expect(Buffer.from(volume.readFile('/sparse', 30 * MiB)).equals(catFile(image, 'sparse'))).toBe(true);
      expect(volume.list('/many')).toHaveLength(1500);
      expect(volume.list('/').filter((name) => !name.startsWith('$'))).toEqual(
        ['Windows', 'resident.txt', 'empty', 'a', 'Größe-漢字-ß.txt', 'many', 'sparse'].sort(),
      );
      for (const name of [
        '/wINDOWS/system32/CONFIG/system',
        '/GRÖSSE-漢字-ß.TXT',
        '/MANY/NAME 777 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.DLL',
      ])
        expect(volume.stat(name)?.type, name).toBe(name.includes('GRÖSSE') ? undefined : 'file');
      expect(volume.stat('/größE-漢字-ß.TXT')?.type).toBe('file');
      for (const name of ['/nothing', '/resident.txt/below', '/many/Name']) expect(volume.stat(name)).toBeUndefined();
    });
  });
}

it('a file of thousands of runs, which need an attribute list, is read and patched anywhere', (context) => {
  using folder = new TempFolder();
  const random = seededTest('ntfs runs');
  const { image } = makeVolume(context, folder, {
    files: { two: random.bytes(9000) },
    fill: (mountpoint) => writeScattered(mountpoint, 'one', 2500, random),
  });
  const before = catFile(image, 'one');
  const other = catFile(image, 'two');
  const edits: FileEdit[] = [];
  const after = Buffer.from(before);
  for (let index = 0; index < 50; index++) {
    const fileOffset = Math.floor((before.length / 50) * index) + random.below(1000);
    const bytes = random.bytes(1 + random.below(9000)).subarray(0, Math.floor(before.length / 50) - 1000);
    edits.push({ path: '/one', fileOffset, after: bytes });
    bytes.copy(after, fileOffset);
  }
  const patches = withVolume(image, (volume) => {
    expect(volume.locate('/one').length).toBeGreaterThan(1000);
    expect(Buffer.from(volume.readFile('/one', MiB * 64)).equals(before)).toBe(true);
    return volume.replace(edits);
  });
  applyTo(image, patches);
  expect(catFile(image, 'one').equals(after.subarray(0, before.length))).toBe(true);
  expect(catFile(image, 'two').equals(other)).toBe(true);
  expect(faultsOf(image)).toBe('');
});

it('data inside a file record is patched under its protection, over the ends of its sectors too', (context) => {
  using folder = new TempFolder();
  const random = seededTest('ntfs resident');
  const contents = random.bytes(600);
  const { image } = makeVolume(context, folder, { files: { small: contents, other: contents } });
  const after = Buffer.from(contents);
  random.bytes(600).copy(after);
  const patches = withVolume(image, (volume) => {
    expect(() => volume.locate('/small')).toThrow(UnsupportedError);
    expect(() => volume.replace([{ path: '/small', fileOffset: 590, after: new Uint8Array(11) }])).toThrow(
      'cannot become longer',
    );
    return volume.replace([
      { path: '/small', fileOffset: 0, after: after.subarray(0, 400) },
      { path: '/small', fileOffset: 400, after: after.subarray(400) },
    ]);
  });
  applyTo(image, patches);
  expect(catFile(image, 'small').equals(after)).toBe(true);
  expect(catFile(image, 'other').equals(contents)).toBe(true);
  expect(faultsOf(image)).toBe('');
});

it('a file becomes longer in its last cluster, and not by a byte more', (context) => {
  using folder = new TempFolder();
  const { image } = makeVolume(context, folder, { files: { file: Buffer.alloc(10_000, 1) } });
  const added = Buffer.alloc(2_288, 2);
  const patches = withVolume(image, (volume) => {
    expect(volume.roomOf('/file')).toBe(12_288);
    expect(() => volume.replace([{ path: '/file', fileOffset: 9_000, after: Buffer.alloc(3_289) }])).toThrow(
      'room for 12288',
    );
    expect(() => volume.replace([{ path: '/file', fileOffset: 10_001, after: Buffer.alloc(1) }])).toThrow(
      UnsupportedError,
    );
    return volume.replace([{ path: '/file', fileOffset: 10_000, after: added }]);
  });
  applyTo(image, patches);
  expect(catFile(image, 'file').equals(Buffer.concat([Buffer.alloc(10_000, 1), added]))).toBe(true);
  expect(faultsOf(image)).toBe('');
});

it('compressed files and what has no clusters are refused with the reason', (context) => {
  using folder = new TempFolder();
  const random = seededTest('ntfs compressed');
  const { image } = makeVolume(context, folder, {
    fill: (mountpoint) => {
      fs.mkdirSync(path.join(mountpoint, 'packed'));
      // The attribute FILE_ATTRIBUTE_COMPRESSED, which files in the folder inherit.
      const set = 'import os, sys; os.setxattr(sys.argv[1], "system.ntfs_attrib", bytes([0, 8, 0, 0]))';
      execFileSync('python3', ['-c', set, path.join(mountpoint, 'packed')]);
      fs.writeFileSync(path.join(mountpoint, 'packed/file'), random.compressibleBytes(200 * KiB));
      fs.writeFileSync(path.join(mountpoint, 'holes'), '');
      fs.truncateSync(path.join(mountpoint, 'holes'), MiB);
    },
  });
  withVolume(image, (volume) => {
    expect(() => volume.readFile('/packed/file', MiB)).toThrow(/compressed by NTFS/);
    expect(() => volume.replace([{ path: '/packed/file', fileOffset: 0, after: Buffer.alloc(1) }])).toThrow(
      /compressed by NTFS/,
    );
    expect(() => volume.replace([{ path: '/holes', fileOffset: 5, after: Buffer.alloc(1) }])).toThrow(UnsupportedError);
    expect(() => volume.readFile('/packed', MiB)).toThrow(/is no file/);
    expect(() => volume.readFile('/holes', 1000)).toThrow(/at most 1000/);
  });
});

it('a volume that Windows would check and a journal without an end are said', (context) => {
  using folder = new TempFolder();
  const { image } = makeVolume(context, folder, { files: { file: 'x' } });
  execFileSync('ntfsfix', ['-n', image]);
  const disk = fs.readFileSync(image);
  // $Volume is record 3; ntfsfix without -n sets the dirty flag in it.
  execFileSync('ntfsfix', [image], { stdio: 'pipe' });
  withVolume(image, (_, ntfs) => expect(ntfs.state.dirty).toBe(true));
  fs.writeFileSync(image, disk);
  withVolume(image, (volume, ntfs) => {
    expect(ntfs.state).toEqual({ version: '3.1', dirty: false, journalOpen: false });
    const [log] = volume.locate('/$LogFile');
    // A restart page of a client that was in use.
    const page = Buffer.alloc(4096);
    page.write('RSTR');
    page.writeUInt16LE(0x30, 24);
    page.writeUInt16LE(0, 0x30 + 12);
    applyTo(image, [{ offsetBytes: log?.volumeOffset ?? 0, before: page, after: page }]);
  });
  withVolume(image, (volume, ntfs) => {
    expect(ntfs.state.journalOpen).toBe(true);
    expect(volume.warnings).toHaveLength(1);
  });
});

it('a record that was not written whole is refused', (context) => {
  using folder = new TempFolder();
  const { image } = makeVolume(context, folder, { files: { file: Buffer.alloc(300, 7) } });
  const at = withVolume(
    image,
    (volume) => volume.replace([{ path: '/file', fileOffset: 0, after: Buffer.alloc(300, 8) }])[0]?.offsetBytes ?? 0,
  );
  const end = at - (at % 1024) + 510;
  applyTo(image, [{ offsetBytes: end, before: Buffer.alloc(2), after: Buffer.from([0xaa, 0x55]) }]);
  withVolume(image, (volume) => expect(() => volume.readFile('/file', 300)).toThrow(/not written whole/));
});
