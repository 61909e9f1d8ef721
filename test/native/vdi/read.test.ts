/** VDI files from elsewhere. */
import { describe, expect, it } from 'vitest';
import { FormatError, UnsupportedError } from '../../../src/base/errors.ts';
import { MiB } from '../../../src/base/units.ts';
import { guidToBytes } from '../../../src/bytes/guid.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import type { ParentReference } from '../../../src/native/reader.ts';
import { openVdi } from '../../../src/native/vdi/read.ts';
import { vdi } from '../../../src/native/vdi/format.ts';
import { convertGolden, readsWhatQemuMade, writeThroughQemu } from '../foreign.ts';
import { tinyDisk, wholeFile } from '../golden.ts';
import { survivesMutants } from '../mutants.ts';

const sizeBytes = 9 * MiB + 512;
const mapOffset = 512;

readsWhatQemuMade('VDI, dynamic', sizeBytes, (foreign) => openVdi(openFileDisk(convertGolden(foreign, 'vdi'))));

readsWhatQemuMade('VDI, static', sizeBytes, (foreign) =>
  openVdi(openFileDisk(convertGolden(foreign, 'vdi', ['static=on']))),
);

readsWhatQemuMade('VDI, blocks out of order', 20 * MiB, (foreign) => {
  const file = convertGolden(foreign, 'vdi');
  for (const block of [17, 3, 11]) writeThroughQemu(foreign, 'vdi', file, block, block * MiB - 512, 1024);
  return openVdi(openFileDisk(file));
});

/** A child that has block 1 of three, all of it 0x33, whose block 2 was discarded. */
function childOf(parent: Buffer): Buffer {
  const child = Buffer.concat([parent.subarray(0, MiB), Buffer.alloc(MiB, 0x33)]);
  child.writeUInt32LE(4, 76);
  child.writeUInt32LE(1, 388);
  parent.copy(child, 424, 392, 408);
  child.set(guidToBytes('c0ffee00-0000-4000-8000-000000000001'), 392);
  for (const [block, entry] of [0xffff_ffff, 0, 0xffff_fffe].entries()) {
    child.writeUInt32LE(entry, mapOffset + block * 4);
  }
  return child;
}

describe('a differencing VDI', () => {
  const parent = wholeFile(vdi, 'dynamic', tinyDisk());
  const openParent = (): ReturnType<typeof openVdi> => openVdi(memoryDisk(parent));

  it('has free blocks from its parent, its own, and zeros where a block was discarded', () => {
    const disk = openVdi(memoryDisk(childOf(parent)), { openParent });
    const bytes = Buffer.alloc(3 * MiB);
    disk.read(bytes, 0);
    const expected = Buffer.alloc(3 * MiB);
    tinyDisk().read(expected.subarray(0, MiB), 0);
    expected.fill(0x33, MiB, 2 * MiB);
    expect(bytes.equals(expected)).toBe(true);
    expect([...disk.extents(2 * MiB, MiB)]).toEqual([{ offset: 2 * MiB, length: MiB, kind: 'zero' }]);
  });

  it('names its parent by the id that the parent has', () => {
    let reference: ParentReference | undefined;
    openVdi(memoryDisk(childOf(parent)), {
      openParent: (asked) => {
        reference = asked;
        return openParent();
      },
    });
    expect(reference?.identity).toBe(openParent().identity);
  });

  it('is refused over another parent', () => {
    const other = Buffer.from(parent);
    other.fill(7, 392, 408);
    const openOther = (): ReturnType<typeof openVdi> => openVdi(memoryDisk(other));
    expect(() => openVdi(memoryDisk(childOf(parent)), { openParent: openOther })).toThrow(FormatError);
  });

  it('is refused when nobody can open its parent', () => {
    expect(() => openVdi(memoryDisk(childOf(parent)))).toThrow(UnsupportedError);
  });
});

describe('files that are refused', () => {
  const openChanged = (offset: number, value: number): (() => unknown) => {
    const file = wholeFile(vdi, 'dynamic', tinyDisk());
    file.writeUInt32LE(value, offset);
    return () => openVdi(memoryDisk(file));
  };

  it.each([
    ['version 2', 68, 0x0002_0000],
    ['an unknown type', 76, 9],
    ['blocks of 2 MiB', 376, 2 * MiB],
    ['bytes between blocks', 380, 512],
  ])('%s is not supported', (_, offset, value) => {
    expect(openChanged(offset, value)).toThrow(UnsupportedError);
  });

  it.each([
    ['another signature', 64, 0],
    ['a short header', 72, 100],
    ['a map on the header', 340, 0],
    ['a map outside the file', 340, 0x7fff_fe00],
    ['blocks in the map', 344, 512],
    ['a disk larger than its map', 368, 100 * MiB],
    ['4 billion blocks', 384, 0xffff_ffff],
    ['a block outside the file', mapOffset, 100],
    ['a block that is used twice', mapOffset, 1],
  ])('%s breaks the format', (_, offset, value) => {
    expect(openChanged(offset, value)).toThrow(FormatError);
  });

  it('a file that ends inside a block is read up to there', () => {
    const file = wholeFile(vdi, 'static', tinyDisk());
    const disk = openVdi(memoryDisk(file.subarray(0, file.length - 512)));
    expect(() => disk.read(new Uint8Array(MiB), MiB)).not.toThrow();
    expect(() => disk.read(new Uint8Array(512), 3 * MiB - 512)).toThrow(FormatError);
  });
});

it.each(['static', 'dynamic'])('mutants of a file are refused or read: %s', { timeout: 120_000 }, (layout) => {
  const structures = [
    [64, 472],
    [340, 392],
    [mapOffset, mapOffset + 12],
  ] as const;
  survivesMutants(`VDI mutants, ${layout}`, {
    file: wholeFile(vdi, layout, tinyDisk()),
    structures,
    open: (disk) => openVdi(disk),
  });
});
