/** qcow2 files from elsewhere. */
import path from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { FormatError, UnsupportedError } from '../../../src/base/errors.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { openQcow2 } from '../../../src/native/qcow2/read.ts';
import { qcow2 } from '../../../src/native/qcow2/format.ts';
import type { ParentReference } from '../../../src/native/reader.ts';
import { convertedBytes, convertGolden, readsWhatQemuMade, writeThroughQemu, type Foreign } from '../foreign.ts';
import { tinyDisk, wholeFile } from '../golden.ts';
import { runProgram } from '../judges.ts';
import { survivesMutants } from '../mutants.ts';

const sizeBytes = 9 * MiB + 512;

/** What a caller does with a reference: the format is qcow2, the name relative to the folder. */
const openIn =
  (folder: string) =>
  (reference: ParentReference): ReturnType<typeof openQcow2> =>
    openQcow2(openFileDisk(path.join(folder, reference.names[0] ?? '')), {
      openParent: openIn(folder),
      depth: reference.depth,
    });

describe('files that QEMU made', () => {
  const variants: ReadonlyArray<readonly [string, string[], string[]]> = [
    ['version 3', [], []],
    ['version 2', ['compat=0.10'], []],
    ['clusters of 512 bytes', ['cluster_size=512'], []],
    ['clusters of 2 MiB', ['cluster_size=2M'], []],
    ['lazy reference counts of one bit', ['refcount_bits=1', 'lazy_refcounts=on'], []],
    ['metadata allocated', ['preallocation=metadata'], []],
    ['all allocated', ['preallocation=full'], []],
    ['compressed with deflate', [], ['-c']],
    ['compressed with deflate, version 2', ['compat=0.10'], ['-c']],
    ['compressed with deflate, clusters of 4 KiB', ['cluster_size=4K'], ['-c']],
    ['compressed with zstd', ['compression_type=zstd'], ['-c']],
    ['compressed with zstd, clusters of 2 MiB', ['compression_type=zstd', 'cluster_size=2M'], ['-c']],
    ['subclusters', ['extended_l2=on', 'cluster_size=128k'], []],
    ['subclusters, compressed', ['extended_l2=on', 'cluster_size=128k'], ['-c']],
  ];
  for (const [title, options, flags] of variants) {
    readsWhatQemuMade(`qcow2, ${title}`, sizeBytes, (foreign) =>
      openQcow2(openFileDisk(convertGolden(foreign, 'qcow2', options, flags))),
    );
  }

  readsWhatQemuMade('qcow2, clusters of zeros', sizeBytes, (foreign) => {
    const file = convertGolden(foreign, 'qcow2');
    writeThroughQemu(foreign, 'qcow2', file, 0, MiB, 2 * MiB);
    writeThroughQemu(foreign, 'qcow2', file, 0x5a, 2 * MiB - 700, 1400);
    return openQcow2(openFileDisk(file));
  });

  readsWhatQemuMade('qcow2 with a snapshot, its active state', sizeBytes, (foreign) => {
    const file = convertGolden(foreign, 'qcow2');
    runProgram('qemu-img', ['snapshot', '-c', 'before', file]);
    writeThroughQemu(foreign, 'qcow2', file, 0x77, 3 * MiB - 512, 128 * KiB);
    return openQcow2(openFileDisk(file));
  });

  const overBacking = (foreign: Foreign, options: string, overlayBytes: number): ReturnType<typeof openQcow2> => {
    convertGolden(foreign, 'qcow2');
    const overlay = foreign.folder.file('overlay.qcow2');
    const set = `backing_file=vm.qcow2,backing_fmt=qcow2${options}`;
    runProgram('qemu-img', ['create', '-f', 'qcow2', '-o', set, overlay, String(overlayBytes)]);
    foreign.model.resize(overlayBytes);
    writeThroughQemu(foreign, 'qcow2', overlay, 0x11, 512, 3 * KiB);
    writeThroughQemu(foreign, 'qcow2', overlay, 0x22, 2 * MiB - KiB, 150 * KiB);
    writeThroughQemu(foreign, 'qcow2', overlay, 0, MiB, 256 * KiB);
    return openQcow2(openFileDisk(overlay), { openParent: openIn(foreign.folder.path) });
  };
  readsWhatQemuMade('qcow2 over a backing file', sizeBytes, (foreign) => overBacking(foreign, '', sizeBytes));
  readsWhatQemuMade('qcow2 over a longer backing file', sizeBytes, (foreign) => overBacking(foreign, '', 5 * MiB));
  readsWhatQemuMade('qcow2 over a shorter backing file', sizeBytes, (foreign) => overBacking(foreign, '', 20 * MiB));
  readsWhatQemuMade('qcow2 with subclusters over a backing file', sizeBytes, (foreign) =>
    overBacking(foreign, ',extended_l2=on,cluster_size=128k', sizeBytes),
  );
});

describe('files that are refused', () => {
  const good = (): Buffer => wholeFile(qcow2, 'compact', tinyDisk());
  const openChanged = (change: (file: Buffer) => void): (() => unknown) => {
    const file = good();
    change(file);
    return () => openQcow2(memoryDisk(file));
  };
  /** Puts a backing file's name behind the header. */
  const withBacking = (name: string) => (file: Buffer) => {
    file.writeBigUInt64BE(512n, 8);
    file.writeUInt32BE(Buffer.byteLength(name), 16);
    file.write(name, 512);
  };

  it.each([
    ['encryption', 32, 1],
    ['an unknown incompatible feature', 72, 0x8000_0000],
    ['an external data file', 76, 4],
    ['a mark of corruption', 76, 2],
    ['version 4', 4, 4],
  ])('%s is not supported', (_, offset, value) => {
    expect(openChanged((file) => file.writeUInt32BE(value, offset))).toThrow(UnsupportedError);
  });

  it.each([
    ['clusters of 4 GiB', 20, 32],
    ['an L1 table of 16 GiB', 36, 0x7fff_ffff],
    ['an L1 table outside the file', 44, 0x7fff_0000],
    ['an L1 table that does not start on a cluster', 44, 0x1_0200],
    ['an L1 table on the header', 44, 0],
    ['a disk of 2^63 bytes', 24, 0x8000_0000],
    ['a header of 16 bytes', 100, 16],
  ])('%s breaks the format', (_, offset, value) => {
    expect(openChanged((file) => file.writeUInt32BE(value, offset))).toThrow(FormatError);
  });

  it.each(['json:{"driver":"nbd"}', 'nbd://host/export', 'file:/etc/passwd', 'https://host/disk'])(
    'a backing file by protocol is not opened: %s',
    (name) => {
      const file = good();
      withBacking(name)(file);
      const openParent = (): never => expect.fail('the parent was opened');
      expect(() => openQcow2(memoryDisk(file), { openParent })).toThrow(UnsupportedError);
    },
  );

  it('a backing file is needed, and nobody can open it', () => {
    expect(openChanged(withBacking('base.qcow2'))).toThrow(/holds only changes over its parent \(base.qcow2\)/);
  });

  it('a name with a zero byte, an empty one, and one outside the first cluster', () => {
    expect(openChanged(withBacking('base\0.qcow2'))).toThrow(FormatError);
    expect(openChanged((file) => file.writeBigUInt64BE(512n, 8))).toThrow(FormatError);
    expect(openChanged((file) => file.writeBigUInt64BE(70_000n, 8))).toThrow(FormatError);
  });

  it('a file that names itself as its parent ends in an error', () => {
    const file = good();
    withBacking('itself.qcow2')(file);
    let opened = 0;
    const openParent = ({ depth }: ParentReference): ReturnType<typeof openQcow2> => {
      opened++;
      return openQcow2(memoryDisk(file), { openParent, depth });
    };
    expect(() => openQcow2(memoryDisk(file), { openParent })).toThrow(FormatError);
    expect(opened).toBeLessThan(100);
  });

  it('L2 tables and clusters outside the file are met by the reads that need them', () => {
    for (const [offset, value] of [
      [64 * KiB + 4, 0x7fff_0000],
      [4 * 64 * KiB + 4, 0x7fff_0000],
      [4 * 64 * KiB + 4, 0x0001_0200],
    ] as const) {
      const file = good();
      file.writeUInt32BE(value, offset);
      const disk = openQcow2(memoryDisk(file));
      expect(() => disk.read(new Uint8Array(512), 0)).toThrow(FormatError);
      expect(() => [...disk.extents(0, disk.sizeBytes)]).toThrow(FormatError);
    }
  });

  it('a compressed cluster that expands without end, or to less than a cluster, is refused', () => {
    for (const [expandedBytes, message] of [
      [64 * MiB, /does not decompress/],
      [1000, /decompresses to 1000 bytes/],
    ] as const) {
      const plain = good();
      const packed = deflateRawSync(Buffer.alloc(expandedBytes));
      const file = Buffer.concat([plain, packed]);
      const sectors = Math.ceil(packed.length / 512);
      expect(sectors).toBeLessThan(256);
      // A compressed cluster of 64 KiB: its length in bits 54 to 61.
      file.writeBigUInt64BE(2n ** 62n + BigInt(sectors) * 2n ** 54n + BigInt(plain.length), 4 * 64 * KiB);
      expect(() => openQcow2(memoryDisk(file)).read(new Uint8Array(512), 0)).toThrow(message);
    }
  });
});

describe('mutants are refused or read', () => {
  it('of a plain file', { timeout: 120_000 }, () => {
    const file = wholeFile(qcow2, 'compact', tinyDisk());
    const structures = [
      [0, 112],
      [64 * KiB, 64 * KiB + 64],
      [4 * 64 * KiB, 4 * 64 * KiB + 256],
    ] as const;
    survivesMutants('qcow2 mutants', { file, structures, open: (disk) => openQcow2(disk) });
  });

  const variants: ReadonlyArray<readonly [string, string[]]> = [
    ['deflate', ['-c']],
    ['zstd', ['-c', '-o', 'compression_type=zstd']],
    ['subclusters', ['-o', 'extended_l2=on']],
  ];
  it.for(variants)('of a file with %s', { timeout: 120_000 }, ([title, flags], context) => {
    const file = convertedBytes(context, 'qcow2', flags);
    const l1 = Number(file.readBigUInt64BE(40));
    const l2 = Number(file.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
    const structures: Array<readonly [number, number]> = [
      [0, 112],
      [l1, l1 + 16],
      [l2, l2 + 400],
      [Math.min(l2 + 64 * KiB, file.length - 1), file.length],
    ];
    survivesMutants(`qcow2 mutants, ${title}`, { file, structures, open: (disk) => openQcow2(disk) });
  });
});
