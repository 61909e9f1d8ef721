/** Empty differencing files over every native format, judged by those who open such files: QEMU and libvhdi. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { beforeAll, describe, expect, it, type TestContext } from 'vitest';
import { CapacityError, UsageError } from '../../src/base/errors.ts';
import { GiB, MiB, TiB } from '../../src/base/units.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { patchedDisk } from '../../src/disk/patched.ts';
import { zeroDisk } from '../../src/disk/zero.ts';
import { synthesizeChild } from '../../src/native/differencing.ts';
import {
  extensionOf,
  planGeometry,
  synthesizeFiles,
  type FormatName,
  type Geometry,
} from '../../src/native/formats.ts';
import type { ParentLocator } from '../../src/native/vhdx/parent-locator.ts';
import { openVhdx, type ParentFile } from '../../src/native/vhdx/read.ts';
import { segmentDisk, type SegmentMap } from '../../src/native/segment-map.ts';
import { openSource } from '../../src/source/open-source.ts';
import { covering } from '../covering.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { factsOf, materialize, readRange, writeGolden } from './golden.ts';
import { missingProgram, readWithLibvhdi, runProgram } from './judges.ts';

const identity = '5b0c9d64-1f7e-4b0a-9d3c-2a6e8f104c77';
const qemuNames = { vhdx: 'vhdx', vhd: 'vpc', vmdk: 'vmdk', vdi: 'vdi', qcow2: 'qcow2', raw: 'raw' } as const;

const pairs: ReadonlyArray<readonly [child: FormatName, parent: FormatName, layout: string]> = [
  ['vhdx', 'vhdx', 'fixed'],
  ['vhdx', 'vhdx', 'dynamic'],
  ['vhd', 'vhd', 'fixed'],
  ['vhd', 'vhd', 'dynamic'],
  ['vmdk', 'vmdk', 'flat'],
  ['vmdk', 'vmdk', 'sparse'],
  ['qcow2', 'vhdx', 'fixed'],
  ['qcow2', 'vhdx', 'dynamic'],
  ['qcow2', 'vhd', 'fixed'],
  ['qcow2', 'vhd', 'dynamic'],
  ['qcow2', 'vmdk', 'flat'],
  ['qcow2', 'vmdk', 'sparse'],
  ['qcow2', 'vdi', 'static'],
  ['qcow2', 'qcow2', 'compact'],
  ['qcow2', 'raw', 'flat'],
];
/** A soak has all of them, `npm test` each child's format, and each layout of each parent's. */
const judged = covering(pairs, ([child, parent, layout]) => [child, `${parent} ${layout}`]);
const diskBytes = 37 * MiB + 512;

function needs(context: TestContext, ...programs: readonly string[]): void {
  const missing = missingProgram(programs);
  if (missing !== undefined) context.skip(`${missing} is not installed`);
}

function child(format: FormatName, parent: Geometry, parentName: string, childName: string): Buffer {
  const map = synthesizeChild(format, { parent, parentName, childName, identity });
  const bytes = Buffer.alloc(map.sizeBytes);
  map.read(bytes, 0, () => expect.fail('an empty child asked for the disk'));
  return bytes;
}

function geometryOf(format: FormatName, disk: Disk, layout?: string): Geometry {
  return planGeometry(format, factsOf(disk), layout === undefined ? {} : { layout });
}

function digestOf(file: string): string {
  return createHash('sha256').update(fs.readFileSync(file)).digest('hex');
}

describe.each(judged)('a %s child of a %s (%s)', (format, parentFormat, layout) => {
  const parentName = `vm.${extensionOf(parentFormat)}`;
  const childName = `child.${extensionOf(format)}`;
  let folder: TempFolder;
  let golden: string;
  let childFile: string;
  let parentFiles: string[];
  /** What the child says its disk has: some formats round the disk up. */
  let virtualBytes: number;

  beforeAll(() => {
    folder = new TempFolder();
    golden = folder.file('golden.raw');
    writeGolden(golden, diskBytes, new Seeded(`${format} over ${parentFormat} ${layout}`));
    const disk = openFileDisk(golden);
    const geometry = geometryOf(parentFormat, disk, layout);
    parentFiles = synthesizeFiles(geometry, parentName).map(({ name, map }) => {
      materialize(map, disk, folder.file(name));
      return folder.file(name);
    });
    disk.close();
    virtualBytes = 'virtualSizeBytes' in geometry ? geometry.virtualSizeBytes : diskBytes;
    childFile = folder.write(childName, child(format, geometry, parentName, childName));
    return () => folder.remove();
  });

  it('is the parent’s disk to our own reader', () => {
    const disk = openSource(childFile);
    try {
      expect(disk.sizeBytes).toBe(virtualBytes);
      const [found, wanted] = [Buffer.alloc(diskBytes), readRange(golden, 0, diskBytes)];
      disk.read(found, 0);
      expect(found.equals(wanted)).toBe(true);
    } finally {
      disk.close();
    }
  });

  it.runIf(['vhdx', 'vhd'].includes(format))('is the parent’s disk to libvhdi', (context) => {
    needs(context, 'pyvhdi', 'vhdiinfo');
    expect(runProgram('vhdiinfo', [childFile])).toMatch(/Disk type\s*: Differential/);
    const pieces = Array.from({ length: Math.ceil(diskBytes / MiB) }, (_, index) => ({
      offset: index * MiB,
      length: Math.min(MiB, diskBytes - index * MiB),
    }));
    const expected = pieces.map(({ offset, length }) =>
      createHash('sha256')
        .update(readRange(golden, offset, length))
        .digest('hex'),
    );
    expect(readWithLibvhdi([childFile, parentFiles[0] ?? ''], pieces)).toEqual([String(virtualBytes), ...expected]);
  });

  it.runIf(format === 'vhd')('names its parent where libvhdi looks for it', (context) => {
    needs(context, 'vhdiinfo');
    expect(runProgram('vhdiinfo', [childFile])).toMatch(new RegExp(`Parent filename\\s*: .*${parentName}`));
  });

  it.runIf(['vmdk', 'qcow2'].includes(format))(
    'is the parent’s disk to QEMU, which writes into it alone',
    (context) => {
      needs(context, 'qemu-img', 'qemu-io');
      const before = parentFiles.map(digestOf);
      const driver = qemuNames[format];
      const compare = ['compare', '-f', driver, '-F', 'raw', childFile, golden];
      expect(runProgram('qemu-img', ['check', '-f', driver, childFile])).toContain('No errors were found');
      expect(runProgram('qemu-img', compare)).toContain('Images are identical');
      const info = JSON.parse(runProgram('qemu-img', ['info', '--output=json', '-f', driver, childFile])) as unknown;
      expect(info).toMatchObject({
        'virtual-size': virtualBytes,
        'backing-filename': expect.stringContaining(parentName) as string,
      });
      if (format === 'qcow2') expect(info).toMatchObject({ 'backing-filename-format': qemuNames[parentFormat] });
      const ranges = [`-P 7 0 4096`, `-P 8 ${MiB - 512} ${MiB}`, `-P 9 ${diskBytes - 1024} 1024`];
      for (const range of ranges) {
        runProgram('qemu-io', ['-f', driver, '-c', `write ${range}`, childFile]);
        runProgram('qemu-io', ['-f', 'raw', '-c', `write ${range}`, golden]);
      }
      expect(runProgram('qemu-img', compare)).toContain('Images are identical');
      expect(runProgram('qemu-img', ['check', '-f', driver, childFile])).toContain('No errors were found');
      expect(parentFiles.map(digestOf)).toEqual(before);
    },
  );

  it('is the same with the same identity', () => {
    const geometry = geometryOf(parentFormat, zeroDisk(diskBytes), layout);
    const first = child(format, geometry, parentName, childName);
    expect(child(format, geometry, parentName, childName).equals(first)).toBe(true);
  });
});

describe('a VHDX child', () => {
  const placed = (parent: Geometry, parentName = 'vm.vhdx'): SegmentMap =>
    synthesizeChild('vhdx', { parent, parentName, childName: 'child.vhdx', identity });

  it('names its parent by DataWriteGuid and by a relative Windows path', () => {
    const parent = geometryOf('vhdx', zeroDisk(diskBytes));
    const asked: ParentLocator[] = [];
    const openParent = (locator: ParentLocator): ParentFile => {
      asked.push(locator);
      const [file] = synthesizeFiles(parent, 'vm.vhdx');
      return { file: segmentDisk(file?.map ?? expect.fail(), zeroDisk(diskBytes)) };
    };
    const disk = openVhdx(segmentDisk(placed(parent), zeroDisk(0)), { openParent });
    expect(asked).toEqual([
      { parentLinkage: 'dataWriteGuid' in parent && parent.dataWriteGuid, relativePath: '.\\vm.vhdx' },
    ]);
    expect(disk.kind).toBe('differencing');
    expect(disk).toMatchObject({ physicalSectorBytes: 4096, payloadBlockBytes: 2 * MiB });
    expect(disk).toMatchObject({ virtualDiskId: 'virtualDiskId' in parent && parent.virtualDiskId });
    expect(disk.dataWriteGuid).not.toBe(asked[0]?.parentLinkage);
  });

  it('keeps logical sectors of 4 KiB', () => {
    const facts = { ...factsOf(zeroDisk(9 * GiB)), logicalSectorBytes: 4096 };
    const parent = planGeometry('vhdx', facts, {});
    const openParent = (): ParentFile => ({
      file: segmentDisk(synthesizeFiles(parent, 'vm.vhdx')[0]?.map ?? expect.fail(), zeroDisk(9 * GiB)),
    });
    const disk = openVhdx(segmentDisk(placed(parent), zeroDisk(0)), { openParent });
    expect(disk.logicalSectorBytes).toBe(4096);
    expect([...disk.extents(0, 9 * GiB)]).toEqual([{ offset: 0, length: 9 * GiB, kind: 'zero' }]);
  });

  it('of many chunks is the parent’s disk to libvhdi', (context) => {
    needs(context, 'pyvhdi');
    using folder = new TempFolder();
    const sizeBytes = 13 * GiB;
    const pieces = [0, 4 * GiB - MiB, 4 * GiB, 8 * GiB, 12 * GiB, sizeBytes - MiB].map((offset) => ({
      offset,
      length: MiB,
    }));
    const bytes = new Seeded('chunks').bytes(MiB);
    const disk = patchedDisk(
      zeroDisk(sizeBytes),
      pieces.map(({ offset }) => ({ offset, bytes })),
    );
    const parent = geometryOf('vhdx', disk, 'dynamic');
    for (const { name, map } of synthesizeFiles(parent, 'vm.vhdx')) materialize(map, disk, folder.file(name));
    materialize(placed(parent), zeroDisk(0), folder.file('child.vhdx'));
    const digest = createHash('sha256').update(bytes).digest('hex');
    const found = readWithLibvhdi([folder.file('child.vhdx'), folder.file('vm.vhdx')], pieces);
    expect(found).toEqual([String(sizeBytes), ...pieces.map(() => digest)]);
  });

  it('of a disk of 60 TiB is no larger than its BAT makes it', () => {
    const parent = geometryOf('vhdx', zeroDisk(60 * TiB));
    expect(placed(parent).sizeBytes).toBeLessThan(256 * MiB);
    expect(placed(geometryOf('vhdx', zeroDisk(4 * TiB))).sizeBytes).toBeLessThan(1.1 * GiB);
  });
});

describe('a differencing file', () => {
  const parentOf = (format: FormatName, sizeBytes = MiB): Geometry => geometryOf(format, zeroDisk(sizeBytes));

  it.each([
    ['vhdx', 'vhd', 'over vm.vhd use .vhd or .qcow2'],
    ['vhd', 'vhdx', 'over vm.vhdx use .vhdx or .qcow2'],
    ['vmdk', 'raw', 'over vm.raw use .qcow2'],
    ['vdi', 'vdi', 'no differencing vdi files are made; over vm.vdi use .qcow2'],
    ['raw', 'raw', 'no differencing raw files are made'],
  ] as const)('of %s is refused over %s, and what fits is told', (format, parentFormat, words) => {
    const parentName = `vm.${extensionOf(parentFormat)}`;
    const make = (): Buffer => child(format, parentOf(parentFormat), parentName, `child.${extensionOf(format)}`);
    expect(make).toThrow(UsageError);
    expect(make).toThrow(words);
  });

  it('is refused where its format cannot write the parent’s name', () => {
    for (const format of ['vhdx', 'vhd'] as const) {
      for (const name of ['a\\b', 'a:b', 'a?', 'a\u0001']) {
        expect(() => child(format, parentOf(format), `${name}.${format}`, 'child')).toThrow(UsageError);
      }
    }
    expect(() => child('vmdk', parentOf('vmdk'), 'a"b.vmdk', 'child.vmdk')).toThrow(UsageError);
    expect(() => child('vmdk', parentOf('vmdk'), 'vm.vmdk', 'a"b.vmdk')).toThrow(UsageError);
  });

  it('can have a parent with the longest name of all', () => {
    for (const format of ['vhdx', 'vhd', 'vmdk', 'qcow2'] as const) {
      const name = `${'v'.repeat(250 - format.length)}.${format}`;
      expect(child(format, parentOf(format), name, 'child').length).toBeGreaterThan(0);
    }
  });

  it('of VMDK is refused over more than 2 TiB', () => {
    expect(() => child('vmdk', parentOf('vmdk', 2 * TiB + MiB), 'vm.vmdk', 'child.vmdk')).toThrow(CapacityError);
  });

  it('names a parent with a colon so that QEMU takes it for a file', (context) => {
    needs(context, 'qemu-img');
    using folder = new TempFolder();
    const parent = parentOf('raw');
    fs.writeFileSync(folder.file('nbd:1.img'), Buffer.alloc(MiB, 5));
    const file = folder.write('child.qcow2', child('qcow2', parent, 'nbd:1.img', 'child.qcow2'));
    runProgram('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', file, `file:${folder.file('nbd:1.img')}`]);
  });
});
