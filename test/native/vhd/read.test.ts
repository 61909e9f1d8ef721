/** VHD files from elsewhere: QEMU's, Hyper-V's, and differencing ones that libvhdi reads too. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { FormatError, IntegrityError, UnsupportedError } from '../../../src/base/errors.ts';
import { MiB } from '../../../src/base/units.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import type { ParentReference } from '../../../src/native/reader.ts';
import { openVhd } from '../../../src/native/vhd/read.ts';
import { vhd } from '../../../src/native/vhd/format.ts';
import { TempFolder } from '../../temp-folder.ts';
import { convertGolden, readsWhatQemuMade, writeThroughQemu } from '../foreign.ts';
import { tinyDisk, wholeFile } from '../golden.ts';
import { missingProgram, readWithLibvhdi } from '../judges.ts';
import { survivesMutants } from '../mutants.ts';
import { differencingChild, resealVhd, sectorsInWholeBytes } from './crafted.ts';

const sizeBytes = 9 * MiB + 512;
const hyperV = new URL('../../../../shared/fixtures/disks/hyperv-dynamic.vhd.xz', import.meta.url).pathname;

readsWhatQemuMade('VHD, dynamic', sizeBytes, (foreign) =>
  openVhd(openFileDisk(convertGolden(foreign, 'vpc', ['force_size=on']))),
);

readsWhatQemuMade('VHD, fixed', sizeBytes, (foreign) =>
  openVhd(openFileDisk(convertGolden(foreign, 'vpc', ['subformat=fixed', 'force_size=on']))),
);

readsWhatQemuMade('VHD, blocks out of order', 40 * MiB, (foreign) => {
  const file = convertGolden(foreign, 'vpc', ['force_size=on']);
  for (const block of [17, 3, 11]) writeThroughQemu(foreign, 'vpc', file, block, block * 2 * MiB - 512, 1024);
  return openVhd(openFileDisk(file));
});

it('reads the disk that Hyper-V made', (context) => {
  if (!fs.existsSync(hyperV)) context.skip('../shared/fixtures is not there');
  const unpacked = spawnSync('xz', ['-dc', hyperV], { maxBuffer: 64 * MiB });
  if (unpacked.status !== 0) context.skip('xz is not installed');
  const disk = openVhd(memoryDisk(unpacked.stdout));
  const bytes = Buffer.alloc(disk.sizeBytes);
  disk.read(bytes, 0);
  expect(createHash('sha256').update(bytes).digest('hex')).toMatch(/^ecff2ef6/);
  expect(disk.identity).toBe('4b6a0d04-f946-d74e-836f-d3dc87e1816b');
});

describe('a differencing VHD', () => {
  const parent = wholeFile(vhd, 'dynamic', tinyDisk());
  const child = differencingChild(parent);
  const openParent = (): ReturnType<typeof openVhd> => openVhd(memoryDisk(parent));

  it('has its own sectors, and all others from its parent', () => {
    const disk = openVhd(memoryDisk(child.file), { openParent });
    const expected = Buffer.alloc(disk.sizeBytes);
    tinyDisk().read(expected, 0);
    for (const { offset, bytes } of child.sectors) expected.set(bytes, offset);
    const found = Buffer.alloc(disk.sizeBytes);
    disk.read(found, 0);
    expect(found.equals(expected)).toBe(true);
    for (let offset = 0; offset < disk.sizeBytes - 3000; offset += 50_021) {
      const piece = Buffer.alloc(3000);
      disk.read(piece, offset);
      expect(piece.equals(expected.subarray(offset, offset + 3000))).toBe(true);
    }
    for (const extent of disk.extents(0, disk.sizeBytes)) {
      if (extent.kind === 'data') continue;
      expect(expected.subarray(extent.offset, extent.offset + extent.length).every((byte) => byte === 0)).toBe(true);
    }
  });

  it('reads as libvhdi reads it', (context) => {
    if (missingProgram(['pyvhdi']) !== undefined) context.skip('pyvhdi is not installed');
    using folder = new TempFolder();
    const { file } = differencingChild(parent, sectorsInWholeBytes);
    const files = [folder.write('child.vhd', file), folder.write('parent.vhd', parent)];
    const disk = openVhd(memoryDisk(file), { openParent });
    const bytes = Buffer.alloc(disk.sizeBytes);
    disk.read(bytes, 0);
    const digest = createHash('sha256').update(bytes).digest('hex');
    expect(readWithLibvhdi(files, [{ offset: 0, length: disk.sizeBytes }])).toEqual([String(disk.sizeBytes), digest]);
  });

  it('names its parent by a relative path, an absolute path, a name and its id', () => {
    let reference: ParentReference | undefined;
    openVhd(memoryDisk(child.file), {
      openParent: (asked) => {
        reference = asked;
        return openParent();
      },
    });
    expect(reference).toEqual({
      format: 'vhd',
      names: ['./parent.vhd', 'C:/vm/parent.vhd', 'parent.vhd'],
      identity: openParent().identity,
      depth: 1,
    });
  });

  it('is refused over another parent, and without one', () => {
    const openOther = (): ReturnType<typeof openVhd> => ({ ...openParent(), identity: 'another' });
    expect(() => openVhd(memoryDisk(child.file), { openParent: openOther })).toThrow(FormatError);
    expect(() => openVhd(memoryDisk(child.file))).toThrow(UnsupportedError);
  });

  it('that is its own parent ends in an error', () => {
    const own = ({ depth }: ParentReference): ReturnType<typeof openVhd> => ({
      ...openVhd(memoryDisk(child.file), { openParent: own, depth }),
      identity: openParent().identity ?? '',
    });
    expect(() => openVhd(memoryDisk(child.file), { openParent: own })).toThrow(FormatError);
  });
});

describe('damaged files', () => {
  const good = (): Buffer => wholeFile(vhd, 'dynamic', tinyDisk());

  it('without the footer at the end its copy is used', () => {
    const file = good();
    const disk = openVhd(memoryDisk(file.fill(0, file.length - 512)));
    const [found, expected] = [Buffer.alloc(disk.sizeBytes), Buffer.alloc(disk.sizeBytes)];
    disk.read(found, 0);
    tinyDisk().read(expected, 0);
    expect(found.equals(expected)).toBe(true);
  });

  it('a checksum that does not match is an error', () => {
    const file = good();
    file.writeUInt8(1, 512 + 100);
    expect(() => openVhd(memoryDisk(file))).toThrow(IntegrityError);
  });

  it.each([
    ['blocks of 3 MiB', 512 + 32, 3 * MiB],
    ['blocks of 2 GiB', 512 + 32, 0x8000_0000],
    ['a table with too few entries', 512 + 28, 1],
    ['a table outside the file', 512 + 20, 0x7fff_0000],
    ['a block outside the file', 1536, 0x7fff_0000],
    ['a block that is used twice', 1540, (4096 - 512) / 512],
    ['a block that begins inside another', 1540, (4096 - 512) / 512 + 8],
    ['a block at the start of the file', 1536, 0],
  ])('%s breaks the format', (_, offset, value) => {
    const file = good();
    file.writeUInt32BE(value, offset);
    resealVhd(file);
    expect(() => openVhd(memoryDisk(file))).toThrow(FormatError);
  });

  it('a disk of 2^63 bytes breaks the format, an unknown type is not supported', () => {
    const [vast, strange] = [good(), good()];
    vast.writeUInt32BE(0x8000_0000, vast.length - 512 + 48);
    strange.writeUInt32BE(9, strange.length - 512 + 60);
    for (const file of [vast, strange]) resealVhd(file);
    expect(() => openVhd(memoryDisk(vast))).toThrow(FormatError);
    expect(() => openVhd(memoryDisk(strange))).toThrow(UnsupportedError);
  });

  it('a fixed disk that is shorter than its footer says is refused', () => {
    const file = wholeFile(vhd, 'fixed', tinyDisk());
    expect(() => openVhd(memoryDisk(file.subarray(512)))).toThrow(FormatError);
  });

  it('a file shorter than a footer is refused', () => {
    expect(() => openVhd(memoryDisk(new Uint8Array(511)))).toThrow(FormatError);
  });
});

it.each(['fixed', 'dynamic'])('mutants of a file are refused or read: %s', { timeout: 120_000 }, (layout) => {
  const file = wholeFile(vhd, layout, tinyDisk());
  const structures: Array<readonly [number, number]> = [[file.length - 512, file.length - 427]];
  if (layout === 'dynamic') structures.push([0, 85], [512, 560], [1536, 1544]);
  survivesMutants(`VHD mutants, ${layout}`, { file, structures, reseal: resealVhd, open: (disk) => openVhd(disk) });
});

it('mutants of a differencing file are refused or read', { timeout: 120_000 }, () => {
  const parent = wholeFile(vhd, 'dynamic', tinyDisk());
  const openParent = (): ReturnType<typeof openVhd> => openVhd(memoryDisk(parent));
  const { file } = differencingChild(parent);
  const structures = [
    [512, 1536],
    [1536, 1544],
    [2048, 4096],
  ] as const;
  const open = (disk: Parameters<typeof openVhd>[0]): ReturnType<typeof openVhd> => openVhd(disk, { openParent });
  survivesMutants('VHD mutants, differencing', { file, structures, reseal: resealVhd, open });
});
