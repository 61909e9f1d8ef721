/** VMDK files from elsewhere: QEMU's of every kind, and broken ones. */
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { FormatError, UnsupportedError } from '../../../src/base/errors.ts';
import { GiB, KiB, MiB } from '../../../src/base/units.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { zeroDisk } from '../../../src/disk/zero.ts';
import type { ParentReference } from '../../../src/native/reader.ts';
import { parseDescriptor } from '../../../src/native/vmdk/descriptor.ts';
import { openVmdk } from '../../../src/native/vmdk/read.ts';
import { vmdk } from '../../../src/native/vmdk/format.ts';
import { convertedBytes, convertGolden, readsWhatQemuMade, writeThroughQemu, type Foreign } from '../foreign.ts';
import { tinyDisk, wholeFile } from '../golden.ts';
import { runProgram } from '../judges.ts';
import { survivesMutants } from '../mutants.ts';

const sizeBytes = 9 * MiB + 512;

/** Opens a VMDK whose extents and parents lie in the same folder. */
function openIn(folder: string, name: string, depth = 0): ReturnType<typeof openVmdk> {
  return openVmdk(openFileDisk(path.join(folder, name)), {
    openExtent: (extent) => openFileDisk(path.join(folder, extent)),
    openParent: (reference) => openIn(folder, path.basename(reference.names[0] ?? ''), reference.depth),
    depth,
  });
}

describe('files that QEMU made', () => {
  const variants: ReadonlyArray<readonly [string, string[], number]> = [
    ['sparse', [], sizeBytes],
    ['sparse, hardware 6', ['compat6=on'], sizeBytes],
    ['sparse, with grains of zeros', ['zeroed_grain=on'], sizeBytes],
    ['flat', ['subformat=monolithicFlat'], sizeBytes],
    ['split and flat', ['subformat=twoGbMaxExtentFlat'], 2 * GiB + 5 * MiB],
    ['split and sparse', ['subformat=twoGbMaxExtentSparse'], 2 * GiB + 5 * MiB],
    ['a compressed stream', ['subformat=streamOptimized'], sizeBytes],
  ];
  for (const [title, options, bytes] of variants) {
    readsWhatQemuMade(`VMDK, ${title}`, bytes, (foreign) => {
      convertGolden(foreign, 'vmdk', options);
      return openIn(foreign.folder.path, 'vm.vmdk');
    });
  }

  readsWhatQemuMade('VMDK, grains out of order and grains of zeros', sizeBytes, (foreign) => {
    const file = convertGolden(foreign, 'vmdk', ['zeroed_grain=on']);
    for (const place of [7, 2, 5]) writeThroughQemu(foreign, 'vmdk', file, place, place * MiB - 512, 1024);
    writeThroughQemu(foreign, 'vmdk', file, 0, 3 * MiB, 512 * KiB);
    return openIn(foreign.folder.path, 'vm.vmdk');
  });

  const overParent = (foreign: Foreign, options: string[], set: string): ReturnType<typeof openVmdk> => {
    const parent = convertGolden(foreign, 'vmdk', options);
    const child = foreign.folder.file('child.vmdk');
    runProgram('qemu-img', [
      'create',
      '-f',
      'vmdk',
      '-b',
      parent,
      '-F',
      'vmdk',
      ...(set === '' ? [] : ['-o', set]),
      child,
    ]);
    writeThroughQemu(foreign, 'vmdk', child, 0x44, MiB - 512, 70 * KiB);
    writeThroughQemu(foreign, 'vmdk', child, 0x55, 8 * MiB, 512);
    return openIn(foreign.folder.path, 'child.vmdk');
  };
  readsWhatQemuMade('VMDK over a sparse parent', sizeBytes, (foreign) => overParent(foreign, [], ''));
  readsWhatQemuMade('VMDK over a flat parent', sizeBytes, (foreign) =>
    overParent(foreign, ['subformat=monolithicFlat'], ''),
  );
});

describe('descriptors', () => {
  const describing = (...lines: string[]): string =>
    ['# Disk DescriptorFile', 'version=1', 'CID=0a0b0c0d', 'parentCID=ffffffff', 'createType="custom"', ...lines].join(
      '\n',
    );
  const openText = (text: string, openExtent?: (name: string) => Disk): (() => unknown) => {
    return () => openVmdk(memoryDisk(Buffer.from(text)), openExtent === undefined ? {} : { openExtent });
  };
  const never = (): never => expect.fail('a file was opened');

  it('extents are concatenated, of any kind', () => {
    const text = describing('RW 4 ZERO', 'RDONLY 2 VMFS "a.vmdk"', 'RW 1 FLAT "b.vmdk" 3');
    const contents = new Map([
      ['a.vmdk', Buffer.alloc(1024, 0xaa)],
      ['b.vmdk', Buffer.concat([Buffer.alloc(1536, 1), Buffer.alloc(512, 0xbb)])],
    ]);
    const openExtent = (name: string): Disk => memoryDisk(contents.get(name) ?? Buffer.alloc(0));
    const disk = openVmdk(memoryDisk(Buffer.from(text)), { openExtent });
    const bytes = Buffer.alloc(disk.sizeBytes);
    disk.read(bytes, 0);
    expect(bytes.equals(Buffer.concat([Buffer.alloc(2048), Buffer.alloc(1024, 0xaa), Buffer.alloc(512, 0xbb)]))).toBe(
      true,
    );
    expect(disk.identity).toBe('0a0b0c0d');
  });

  it.each(['../other.vmdk', '/etc/passwd', 'C:\\vm\\disk.vmdk', 'nbd:host:10809', '..'])(
    'an extent outside the folder is not opened: %s',
    (name) => expect(openText(describing(`RW 4 FLAT "${name}" 0`), never)).toThrow(UnsupportedError),
  );

  it.each([
    'RW 4 SESPARSE "a.vmdk"',
    'RW 4 VMFSSPARSE "a.vmdk"',
    'RW 4 VMFSRDM "a.vmdk"',
    'NOACCESS 4 FLAT "a.vmdk" 0',
  ])('an extent of another kind is not supported: %s', (line) =>
    expect(openText(describing(line), never)).toThrow(UnsupportedError),
  );

  it.each(['RW 0 FLAT "a.vmdk" 0', 'RW 99999999999999999 ZERO', 'RW 200000000000 ZERO', 'RW -1 ZERO', 'what is this'])(
    'a line that is none breaks the format: %s',
    (line) => {
      expect(openText(describing(line), never)).toThrow(FormatError);
    },
  );

  it('no extents, too many of them, or no content id break the format', () => {
    expect(openText(describing())).toThrow(FormatError);
    expect(openText(describing(...Array.from({ length: 5000 }, () => 'RW 1 ZERO')))).toThrow(FormatError);
    expect(openText(describing('RW 4 ZERO').replace('CID=0a0b0c0d', 'CID=hello'))).toThrow(FormatError);
  });

  it('an extent that is shorter than described is refused, and closed', () => {
    let closed = 0;
    const close = (): void => {
      closed++;
    };
    const openExtent = (): Disk => ({ ...zeroDisk(1024), close });
    expect(openText(describing('RW 2 FLAT "a.vmdk" 0', 'RW 4 FLAT "a.vmdk" 0'), openExtent)).toThrow(FormatError);
    expect(closed).toBe(2);
  });

  it('a parent by protocol is not opened', () => {
    const text = describing('RW 4 ZERO', 'parentFileNameHint="nbd:host:10809"').replace('ffffffff', '00000001');
    expect(openText(text)).toThrow(UnsupportedError);
  });

  it('a parent that was changed since is refused', () => {
    const text = describing('RW 4 ZERO', 'parentFileNameHint="p.vmdk"').replace('ffffffff', '00000001');
    const openParent = (): ReturnType<typeof openVmdk> => ({ ...zeroDisk(2048), identity: '00000002' });
    expect(() => openVmdk(memoryDisk(Buffer.from(text)), { openParent })).toThrow(/was the parent changed since/);
  });

  it('a descriptor that names itself as its parent ends in an error', () => {
    const text = describing('RW 4 ZERO', 'parentFileNameHint="p.vmdk"').replace('ffffffff', '0a0b0c0d');
    const openParent = ({ depth }: ParentReference): ReturnType<typeof openVmdk> =>
      openVmdk(memoryDisk(Buffer.from(text)), { openParent, depth });
    expect(openParent.bind(undefined, { names: [], identity: undefined, depth: 0 })).toThrow(FormatError);
  });

  it('settings are read whatever their case and quotes', () => {
    const text = describing('RW 4 ZERO').replace('createType="custom"', 'CREATETYPE = vmfs');
    expect(parseDescriptor(text.replaceAll('\n', '\r\n'))).toMatchObject({ createType: 'vmfs', parent: undefined });
  });
});

describe('sparse extents that are refused', () => {
  const openChanged = (offset: number, value: number): (() => unknown) => {
    const file = wholeFile(vmdk, 'sparse', tinyDisk());
    file.writeUInt32LE(value, offset);
    return () => openVmdk(memoryDisk(file));
  };

  it.each([
    ['version 4', 4, 4],
    ['grain tables of 100 entries', 44, 100],
    ['compression without markers', 8, 0x1_0003],
  ])('%s is not supported', (_, offset, value) => {
    expect(openChanged(offset, value)).toThrow(UnsupportedError);
  });

  it.each([
    ['another magic', 0, 0],
    ['line ends that were converted', 73, 0x0a0d_0a0a],
    ['grains of 3 sectors', 20, 3],
    ['grains of 2 TiB', 20, 0x8000_0000],
    ['a disk of 2^60 sectors', 16, 0x1000_0000],
    ['a directory outside the file', 56, 0x7fff_ffff],
    ['a directory on the header', 56, 0],
    ['a descriptor of 2 TiB', 40, 1],
    ['a descriptor outside the file', 28, 0x7fff_ffff],
  ])('%s breaks the format', (_, offset, value) => {
    expect(openChanged(offset, value)).toThrow(FormatError);
  });

  it('tables and grains outside the file, or on the header, are met by the reads that need them', () => {
    const good = wholeFile(vmdk, 'sparse', tinyDisk());
    const directory = good.readUInt32LE(56) * 512;
    const table = good.readUInt32LE(directory) * 512;
    for (const [offset, value] of [
      [directory, 0x7fff_ffff],
      [table, 0x7fff_ffff],
      [table, 1],
    ] as const) {
      const file = Buffer.from(good);
      file.writeUInt32LE(value, offset);
      const disk = openVmdk(memoryDisk(file));
      expect(() => disk.read(new Uint8Array(512), 0)).toThrow(FormatError);
      expect(() => [...disk.extents(0, disk.sizeBytes)]).toThrow(FormatError);
    }
  });

  it("ESXi's old sparse extents and files of anything else are refused", () => {
    expect(() => openVmdk(memoryDisk(Buffer.from('COWD and more')))).toThrow(UnsupportedError);
    expect(() => openVmdk(memoryDisk(Buffer.from('anything else')))).toThrow(FormatError);
    expect(() => openVmdk(memoryDisk(Buffer.alloc(3)))).toThrow(FormatError);
  });
});

describe('mutants are refused or read', () => {
  it('of a sparse file', { timeout: 120_000 }, () => {
    const file = wholeFile(vmdk, 'sparse', tinyDisk());
    const directory = file.readUInt32LE(56) * 512;
    const structures = [
      [0, 80],
      [512, 1300],
      [directory, directory + 8],
      [directory + 512, directory + 712],
    ] as const;
    survivesMutants('VMDK mutants, sparse', { file, structures, open: (disk) => openVmdk(disk) });
  });

  it('of a compressed stream', { timeout: 120_000 }, (context) => {
    const file = convertedBytes(context, 'vmdk', ['-o', 'subformat=streamOptimized']);
    const footer = file.length - 1024;
    const header = file.readBigUInt64LE(56) === 0xffff_ffff_ffff_ffffn ? footer : 0;
    const directory = Number(file.readBigUInt64LE(header + 56)) * 512;
    const table = file.readUInt32LE(directory) * 512;
    const grain = file.readUInt32LE(table) * 512;
    const structures = [
      [0, 80],
      [header, header + 80],
      [directory, directory + 8],
      [table, table + 200],
      [grain, grain + 100],
    ] as const;
    survivesMutants('VMDK mutants, stream', { file, structures, open: (disk) => openVmdk(disk) });
  });

  it('of a descriptor', { timeout: 120_000 }, () => {
    const file = wholeFile(vmdk, 'flat', tinyDisk());
    const open = (disk: Disk): Disk => openVmdk(disk, { openExtent: () => zeroDisk(3 * MiB) });
    survivesMutants('VMDK mutants, descriptor', { file, structures: [[0, file.length]], open });
  });
});
