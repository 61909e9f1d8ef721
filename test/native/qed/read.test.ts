/** QED files from elsewhere. */
import { describe, expect, it } from 'vitest';
import { FormatError, UnsupportedError } from '../../../src/base/errors.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { openQed } from '../../../src/native/qed/read.ts';
import type { ParentReference } from '../../../src/native/reader.ts';
import { convertedBytes, convertGolden, readsWhatQemuMade, writeThroughQemu } from '../foreign.ts';
import { tinyDisk } from '../golden.ts';
import { missingProgram, runProgram } from '../judges.ts';
import { survivesMutants } from '../mutants.ts';
import { TempFolder } from '../../temp-folder.ts';

const sizeBytes = 9 * MiB + 512;
const noQemu = missingProgram(['qemu-img', 'qemu-io']);

readsWhatQemuMade('QED', sizeBytes, (foreign) => openQed(openFileDisk(convertGolden(foreign, 'qed'))));

readsWhatQemuMade('QED, small clusters and tables', sizeBytes, (foreign) =>
  openQed(openFileDisk(convertGolden(foreign, 'qed', ['cluster_size=4096', 'table_size=2']))),
);

readsWhatQemuMade('QED, clusters out of order, and zeroed', 20 * MiB, (foreign) => {
  const file = convertGolden(foreign, 'qed');
  for (const block of [17, 3, 11]) writeThroughQemu(foreign, 'qed', file, block, block * MiB - 512, KiB);
  writeThroughQemu(foreign, 'qed', file, 0, 5 * MiB, 192 * KiB);
  return openQed(openFileDisk(file));
});

describe('a QED file over another', () => {
  it.each(['raw', 'qed'] as const)('%s', (format) => {
    if (noQemu !== undefined) return;
    using folder = new TempFolder();
    const base = folder.write('base', Buffer.alloc(MiB, 7));
    if (format === 'qed') runProgram('qemu-img', ['convert', '-f', 'raw', '-O', 'qed', base, folder.file('base.qed')]);
    const name = format === 'qed' ? 'base.qed' : 'base';
    const child = folder.file('child.qed');
    runProgram('qemu-img', ['create', '-q', '-f', 'qed', '-b', name, '-F', format, child, '2M']);
    runProgram('qemu-io', ['-f', 'qed', '-c', 'write -P 9 64k 64k', '-c', 'write -z 128k 64k', child]);
    let asked: ParentReference | undefined;
    const disk = openQed(openFileDisk(child), {
      openParent: (reference) => {
        asked = reference;
        const file = openFileDisk(folder.file(name));
        return format === 'qed' ? openQed(file) : file;
      },
    });
    const bytes = Buffer.alloc(2 * MiB);
    disk.read(bytes, 0);
    disk.close();
    const expected = Buffer.alloc(2 * MiB);
    expected
      .fill(7, 0, MiB)
      .fill(9, 64 * KiB, 128 * KiB)
      .fill(0, 128 * KiB, 192 * KiB);
    expect(bytes.equals(expected)).toBe(true);
    expect(asked?.names).toEqual([name]);
    expect(asked?.format).toBe(format === 'raw' ? 'raw' : undefined);
  });

  it('is refused when nobody can open its parent, and when the parent is no plain file', () => {
    if (noQemu !== undefined) return;
    using folder = new TempFolder();
    folder.write('base', Buffer.alloc(MiB));
    const child = folder.file('child.qed');
    runProgram('qemu-img', ['create', '-q', '-f', 'qed', '-b', 'base', '-F', 'raw', child]);
    expect(() => openQed(openFileDisk(child))).toThrow(UnsupportedError);
    runProgram('qemu-img', ['rebase', '-q', '-u', '-f', 'qed', '-b', 'nbd:localhost:10809', '-F', 'raw', child]);
    expect(() => openQed(openFileDisk(child), { openParent: () => tinyDisk() })).toThrow(/is not a plain file/);
  });
});

describe('files that are refused', () => {
  const changed = (file: Buffer, offset: number, value: number): (() => unknown) => {
    const bytes = Buffer.from(file);
    bytes.writeUInt32LE(value, offset);
    return () => openQed(memoryDisk(bytes));
  };

  it.each([
    ['clusters of 3 KiB', 4, 3 * KiB],
    ['clusters of 128 MiB', 4, 128 * MiB],
    ['tables of 3 clusters', 8, 3],
    ['tables of 32 clusters', 8, 32],
    ['no header', 12, 0],
    ['a table on the header', 40, 0],
    ['a table outside the file', 40, 0x7fff_0000],
    ['a table that begins inside a cluster', 40, 65_537],
    ['a disk of more than 64 TiB', 52, 0x10_0000],
  ])('%s breaks the format', (_, offset, value) => {
    const file = convertedBytesOrSkip();
    if (file !== undefined) expect(changed(file, offset, value)).toThrow(FormatError);
  });

  it('an unknown feature is not supported', () => {
    const file = convertedBytesOrSkip();
    if (file !== undefined) expect(changed(file, 16, 8)).toThrow(UnsupportedError);
  });

  function convertedBytesOrSkip(): Buffer | undefined {
    return noQemu === undefined ? qedOf() : undefined;
  }
});

let kept: Buffer | undefined;
function qedOf(): Buffer {
  if (kept !== undefined) return kept;
  using folder = new TempFolder();
  const disk = tinyDisk();
  const bytes = Buffer.alloc(disk.sizeBytes);
  disk.read(bytes, 0);
  runProgram('qemu-img', ['convert', '-f', 'raw', '-O', 'qed', folder.write('raw', bytes), folder.file('qed')]);
  const size = openFileDisk(folder.file('qed'));
  kept = Buffer.alloc(size.sizeBytes);
  size.read(kept, 0);
  size.close();
  return kept;
}

it('mutants of a file are refused or read', { timeout: 120_000 }, (context) => {
  const file = convertedBytes(context, 'qed', []);
  survivesMutants('QED mutants', {
    file,
    structures: [
      [0, 64],
      [65_536, 65_536 + 64],
      [5 * 65_536, 5 * 65_536 + 512],
    ],
    open: (disk) => openQed(disk),
  });
});
