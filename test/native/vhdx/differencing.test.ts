import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FormatError, UnavailableError, UnsupportedError } from '../../../src/base/errors.ts';
import { MiB } from '../../../src/base/units.ts';
import type { Guid } from '../../../src/bytes/guid.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { header, headerOffsets } from '../../../src/native/vhdx/layout.ts';
import { parseParentLocator } from '../../../src/native/vhdx/parent-locator.ts';
import { openVhdx, type OpenParent, type ParentLocator } from '../../../src/native/vhdx/read.ts';
import { TempFolder } from '../../temp-folder.ts';
import {
  differencing,
  editHeaders,
  encodeParentLocator,
  setBitmapEntry,
  setPayloadEntry,
  synthesized,
} from './crafted.ts';
import { seededBytes, seededDisk } from './disk-file.ts';
import { bytesOf, libvhdiHashes, libvhdiInfo } from './judges.ts';

let folder: TempFolder;
beforeEach(() => {
  folder = new TempFolder();
});
afterEach(() => folder.remove());

const sizeBytes = 8 * MiB;
const below = seededDisk(sizeBytes, 'parent');
const identities = [1, 2, 3].map((number): Guid => `cccccccc-0000-4000-8000-00000000000${number}`);
const dataGuid = (file: Buffer): Guid => header.parse(file, headerOffsets[1]).dataWriteGuid;

const partialSectors = [0, 1, 2, 7, 8, 100, 1000, 2046, 2047];
const full = seededBytes('full block', MiB);
const partial = seededBytes('partial block', MiB);

/** A parent of eight blocks; a child with a full, a partial and a zero block; a grandchild with a partial one over the partial. */
function family(zeroBlock = true): { parent: Buffer; child: Buffer; grandchild: Buffer; expected: Buffer } {
  const parent = synthesized(below, 'dynamic', identities[0]);
  const child = differencing(below, {
    parentLinkage: dataGuid(parent),
    parentPath: '.\\parent.vhdx',
    blocks: [
      { block: 0, contents: full },
      { block: 2, contents: partial, sectors: partialSectors },
    ],
    identity: identities[1] ?? '',
  });
  if (zeroBlock) setPayloadEntry(child, 7, 2, 0);
  const grandchild = differencing(below, {
    parentLinkage: dataGuid(child),
    parentPath: '.\\child.vhdx',
    blocks: [{ block: 2, contents: full, sectors: [1, 5] }],
    identity: identities[2] ?? '',
  });
  const expected = bytesOf(below, 0, sizeBytes);
  full.copy(expected, 0);
  for (const sector of partialSectors) partial.copy(expected, 2 * MiB + sector * 512, sector * 512, sector * 512 + 512);
  if (zeroBlock) expected.fill(0, 7 * MiB);
  for (const sector of [1, 5]) full.copy(expected, 2 * MiB + sector * 512, sector * 512, sector * 512 + 512);
  return { parent, child, grandchild, expected };
}

/** Opens parents among files in memory by the name in the locator. */
function among(files: Readonly<Record<string, Buffer>>, asked: ParentLocator[] = []): OpenParent {
  const openParent: OpenParent = (locator) => {
    asked.push(locator);
    const file = files[locator.relativePath ?? ''];
    if (file === undefined) throw new UnavailableError('no such file');
    return { file: memoryDisk(file), openParent };
  };
  return openParent;
}

describe('a differencing VHDX', () => {
  it('reads as its own blocks and sectors over those of its parents', () => {
    const { parent, child, grandchild, expected } = family();
    const asked: ParentLocator[] = [];
    const openParent = among({ '.\\parent.vhdx': parent, '.\\child.vhdx': child }, asked);
    const disk = openVhdx(memoryDisk(grandchild), { openParent });
    expect(disk.kind).toBe('differencing');
    expect(bytesOf(disk, 0, sizeBytes).equals(expected)).toBe(true);
    expect(bytesOf(disk, 2 * MiB + 300, 70_000).equals(expected.subarray(2 * MiB + 300, 2 * MiB + 70_300))).toBe(true);
    expect(asked).toEqual([
      { parentLinkage: dataGuid(child), relativePath: '.\\child.vhdx', absoluteWin32Path: 'C:\\.\\child.vhdx' },
      { parentLinkage: dataGuid(parent), relativePath: '.\\parent.vhdx', absoluteWin32Path: 'C:\\.\\parent.vhdx' },
    ]);
    let end = 0;
    for (const { offset, length, kind } of disk.extents(0, sizeBytes)) {
      expect(offset).toBe(end);
      end += length;
      if (kind === 'zero') expect(expected.subarray(offset, end).every((byte) => byte === 0)).toBe(true);
    }
    expect(end).toBe(sizeBytes);
    expect([...disk.extents(7 * MiB, MiB)]).toEqual([{ offset: 7 * MiB, length: MiB, kind: 'zero' }]);
  });

  it('is the same disk to libvhdi', (ctx) => {
    // Without the zero block: there libvhdi shows the parent, against [MS-VHDX] 2.5.1.1.
    const { parent, child, grandchild, expected } = family(false);
    const names = ['grandchild', 'child', 'parent'].map((name) => folder.file(`${name}.vhdx`));
    for (const [index, file] of [grandchild, child, parent].entries()) fs.writeFileSync(names[index] ?? '', file);
    expect(libvhdiInfo(ctx, names[0] ?? '')).toMatch(/Disk type\s*: Differential/);
    const ranges = Array.from({ length: 8 }, (_, block) => ({ offset: block * MiB, length: MiB }));
    const hashes = ranges.map(({ offset, length }) => {
      return createHash('sha256')
        .update(expected.subarray(offset, offset + length))
        .digest('hex');
    });
    expect(libvhdiHashes(ctx, names[0] ?? '', ranges, names.slice(1))).toEqual(hashes);
  });

  it('has zeros behind the end of a parent that is smaller', () => {
    const parent = synthesized(seededDisk(MiB + 512, 'small'), 'fixed', identities[0]);
    const small = bytesOf(seededDisk(MiB + 512, 'small'), 0, MiB + 512);
    const options = { parentLinkage: dataGuid(parent), parentPath: 'p', blocks: [], identity: identities[1] ?? '' };
    const disk = openVhdx(memoryDisk(differencing(below, options)), { openParent: among({ p: parent }) });
    expect(bytesOf(disk, 0, 3 * MiB).equals(Buffer.concat([small, Buffer.alloc(2 * MiB - 512)]))).toBe(true);
    expect([...disk.extents(MiB + 512, 4 * MiB)]).toEqual([{ offset: MiB + 512, length: 4 * MiB, kind: 'zero' }]);
  });

  it('is refused without anybody to open its parent, and when the parent is not there', () => {
    const { child } = family();
    expect(() => openVhdx(memoryDisk(child))).toThrow(UnsupportedError);
    expect(() => openVhdx(memoryDisk(child), { openParent: among({}) })).toThrow('no such file');
  });

  it('is refused over a parent that was written to since, and closes that', () => {
    const { parent, child } = family();
    editHeaders(parent, () => ({ dataWriteGuid: 'dddddddd-0000-4000-8000-000000000001' }));
    let closed = 0;
    const file = { ...memoryDisk(parent), close: () => (closed += 1) };
    expect(() => openVhdx(memoryDisk(child), { openParent: () => ({ file }) })).toThrow(UnavailableError);
    expect(closed).toBe(1);
    file.close();
    expect(() => openVhdx(memoryDisk(child), { openParent: () => ({ file: { ...file, sizeBytes: 100 } }) })).toThrow(
      FormatError,
    );
    expect(closed).toBe(3);
  });

  it('is refused when files name each other as parents', () => {
    const { child } = family();
    editHeaders(child, () => ({ dataWriteGuid: identities[2] ?? '' }));
    const loop = differencing(below, {
      parentLinkage: identities[2] ?? '',
      parentPath: 'loop',
      blocks: [],
      identity: identities[1] ?? '',
    });
    editHeaders(loop, () => ({ dataWriteGuid: identities[2] ?? '' }));
    let open = 0;
    const openParent: OpenParent = () => {
      open++;
      return { file: { ...memoryDisk(loop), close: () => (open -= 1) }, openParent };
    };
    expect(() => openVhdx(memoryDisk(loop), { openParent })).toThrow(FormatError);
    expect(open).toBe(0);
  });

  it('closes its parents with itself', () => {
    const { parent, child } = family();
    const closed: string[] = [];
    const file = { ...memoryDisk(parent), close: () => void closed.push('parent') };
    const own = { ...memoryDisk(child), close: () => void closed.push('child') };
    openVhdx(own, { openParent: () => ({ file }) }).close();
    expect(closed.sort()).toEqual(['child', 'parent']);
  });

  it('opens its files as they are found: from their real names', () => {
    const { parent, child, expected } = family();
    fs.writeFileSync(folder.file('parent.vhdx'), parent);
    fs.writeFileSync(folder.file('child.vhdx'), child);
    const openParent: OpenParent = ({ relativePath = '' }) => {
      return { file: openFileDisk(folder.file(relativePath.replaceAll('\\', '/'))), openParent };
    };
    const disk = openVhdx(openFileDisk(folder.file('child.vhdx')), { openParent });
    expect(bytesOf(disk, 0, 2 * MiB).equals(expected.subarray(0, 2 * MiB))).toBe(true);
    disk.close();
  });

  it('is refused where a partial block has no sector bitmap', () => {
    const { parent, child } = family();
    setBitmapEntry(child, 0, 0, 0);
    const disk = openVhdx(memoryDisk(child), { openParent: among({ '.\\parent.vhdx': parent }) });
    bytesOf(disk, 0, 2 * MiB);
    expect(() => bytesOf(disk, 2 * MiB, 1)).toThrow(FormatError);
    setBitmapEntry(child, 0, 6, 2 ** 45);
    const other = openVhdx(memoryDisk(child), { openParent: among({ '.\\parent.vhdx': parent }) });
    expect(() => bytesOf(other, 2 * MiB, 1)).toThrow(FormatError);
  });
});

describe('a parent locator', () => {
  const linkage = '{aaaaaaaa-0000-4000-8000-000000000001}';

  it('gives its second linkage and its paths where it has them', () => {
    const second = '{AAAAAAAA-0000-4000-8000-000000000002}';
    const item = encodeParentLocator({
      parent_linkage: linkage,
      parent_linkage2: second,
      volume_path: '\\\\?\\v',
      other: 'x',
    });
    expect(parseParentLocator(item, 0)).toEqual({
      parentLinkage: 'aaaaaaaa-0000-4000-8000-000000000001',
      parentLinkage2: 'aaaaaaaa-0000-4000-8000-000000000002',
      volumePath: '\\\\?\\v',
    });
  });

  it('is refused when it breaks the specification', () => {
    expect(() => parseParentLocator(encodeParentLocator({ relative_path: 'x' }), 0)).toThrow('is missing');
    expect(() => parseParentLocator(encodeParentLocator({ parent_linkage: 'x' }), 0)).toThrow('is not a GUID');
    expect(() => parseParentLocator(encodeParentLocator({ parent_linkage: linkage }, identities[0]), 0)).toThrow(
      UnsupportedError,
    );
    expect(() => parseParentLocator(new Uint8Array(10), 0)).toThrow(FormatError);
    for (const [at, value] of [
      [18, 65],
      [18, 2],
      [20, 5000],
      [28, 0],
      [28, 3],
      [30, 65534],
    ] as const) {
      const item = Buffer.from(encodeParentLocator({ parent_linkage: linkage }));
      item.writeUInt16LE(value, at);
      expect(() => parseParentLocator(item, 0), `${value} at ${at}`).toThrow(FormatError);
    }
  });
});
