import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FormatError, UnavailableError, UnsupportedError, UsageError } from '../../../src/base/errors.ts';
import { GiB, MiB, TiB } from '../../../src/base/units.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { vhdx } from '../../../src/native/vhdx/format.ts';
import { openVhdx } from '../../../src/native/vhdx/read.ts';
import { addMetadataItem, editHeaders, reseal, setPayloadEntry, synthesized } from './crafted.ts';
import { materialize } from '../golden.ts';
import { soak } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { factsOf, seededDisk, seededNumbers, seededPlaces, sha256OfDisk } from './disk-file.ts';
import { hyperVFixture } from './fixture.ts';
import { bytesOf, qemuImg, qemuIo, sha256OfFile } from './judges.ts';

let folder: TempFolder;
beforeEach(() => {
  folder = new TempFolder();
});
afterEach(() => folder.remove());

/** Extents must tell the truth: what they call zero reads as zeros. */
function expectHonestExtents(disk: Disk): void {
  let end = 0;
  for (const { offset, length, kind } of disk.extents(0, disk.sizeBytes)) {
    expect(offset).toBe(end);
    end += length;
    if (kind === 'zero') expect(bytesOf(disk, offset, length).every((byte) => byte === 0)).toBe(true);
  }
  expect(end).toBe(disk.sizeBytes);
}

describe('a synthesized VHDX, read back', () => {
  it.each(['fixed', 'dynamic'] as const)('is the disk that it was made of: %s', (layout) => {
    for (const sizeBytes of [512, MiB, 5 * MiB + 512]) {
      const below = seededDisk(sizeBytes, `back ${sizeBytes}`);
      using disk = closing(openVhdx(memoryDisk(synthesized(below, layout))));
      expect(disk.opened).toMatchObject({ kind: layout, sizeBytes, payloadBlockBytes: MiB, logicalSectorBytes: 512 });
      expect(sha256OfDisk(disk.opened)).toBe(sha256OfDisk(below));
      expectHonestExtents(disk.opened);
    }
  });

  it('is the same in any piece, and has the holes of its file as zeros', () => {
    const below = seededDisk(97 * MiB, 'pieces');
    const file = folder.file('disk.vhdx');
    const geometry = vhdx.plan(factsOf(below), { layout: 'dynamic', unitBytes: MiB });
    for (const { map } of vhdx.synthesize(geometry, '')) materialize(map, below, file);
    using disk = closing(openVhdx(openFileDisk(file)));
    const number = seededNumbers('pieces');
    for (let count = 0; count < 300; count++) {
      const offset = number(97 * MiB);
      const length = Math.min(number(count % 10 === 0 ? 5 * MiB : 9000), 97 * MiB - offset);
      expect(bytesOf(disk.opened, offset, length).equals(bytesOf(below, offset, length))).toBe(true);
    }
    expectHonestExtents(disk.opened);
    const dataBytes = [...disk.opened.extents(0, 97 * MiB)].reduce(
      (sum, { kind, length }) => sum + (kind === 'data' ? length : 0),
      0,
    );
    expect(dataBytes).toBeLessThan(2 * MiB);
  });

  it('refuses ranges outside the disk', () => {
    using disk = closing(openVhdx(memoryDisk(synthesized(seededDisk(MiB, 'range'), 'fixed'))));
    expect(() => disk.opened.read(new Uint8Array(2), MiB - 1)).toThrow(UsageError);
    expect(() => [...disk.opened.extents(0, MiB + 1)]).toThrow(UsageError);
  });

  it('opens at 63 TiB with a BAT of 505 MiB, reading little of it', () => {
    const below = seededDisk(63 * TiB, 'vast');
    const [file] = vhdx.synthesize(vhdx.plan(factsOf(below), { layout: 'fixed', unitBytes: MiB }), '');
    let readBytes = 0;
    using disk = closing(
      openVhdx({
        sizeBytes: file?.map.sizeBytes ?? 0,
        read: (target, offset) => {
          readBytes += target.length;
          file?.map.read(target, offset, () => below);
        },
        extents: (offset, length) => file?.map.extents(offset, length, () => below) ?? [],
        close: () => {},
      }),
    );
    for (const { offset, length } of seededPlaces(63 * TiB, 'vast')) {
      expect(bytesOf(disk.opened, offset, length).equals(bytesOf(below, offset, length))).toBe(true);
    }
    expect(readBytes).toBeLessThan(4 * MiB);
  });
});

describe('the VHDX that Hyper-V has made', () => {
  it('is the disk with the SHA-256 that its source gives', (ctx) => {
    using disk = closing(openVhdx(memoryDisk(hyperVFixture(ctx))));
    expect(disk.opened).toMatchObject({ kind: 'dynamic', sizeBytes: 10 * MiB, payloadBlockBytes: 32 * MiB });
    expect(sha256OfDisk(disk.opened)).toMatch(/^8e2b5e92/);
  });
});

describe('a VHDX that QEMU has made', () => {
  it.for([
    ['dynamic', '1M', '97M'],
    ['dynamic', '16M', soak ? '1G' : '160M'],
    ['fixed', '1M', '97M'],
    ['fixed', '32M', '97M'],
  ] as const)('is the same disk after writes: %s, blocks of %s, %s', ([layout, blockSize, size], ctx) => {
    const file = folder.file('qemu.vhdx');
    qemuImg(ctx, ['create', '-q', '-f', 'vhdx', '-o', `subformat=${layout},block_size=${blockSize}`, file, size]);
    const number = seededNumbers(`${layout} ${blockSize}`);
    const writes = Array.from({ length: 12 }, (_, index) => {
      return `write -P ${index + 1} ${number(90 * 2048) * 512} ${512 * (1 + number(4096))}`;
    });
    qemuIo(ctx, 'vhdx', file, [...writes, 'write -z 3M 2M', 'discard 8M 4M'], false);
    const golden = folder.file('golden.raw');
    qemuImg(ctx, ['convert', '-f', 'vhdx', '-O', 'raw', file, golden]);
    using disk = closing(openVhdx(openFileDisk(file)));
    expect(disk.opened.kind).toBe(layout);
    expect(sha256OfDisk(disk.opened)).toBe(sha256OfFile(ctx, golden));
    if (size !== '1G') expectHonestExtents(disk.opened);
  });
});

describe('headers', () => {
  const good = (): Buffer => synthesized(seededDisk(2 * MiB, 'headers'), 'dynamic');
  const opens = (file: Buffer): string => openVhdx(memoryDisk(file)).dataWriteGuid;

  it('count by their sequence number, whichever comes first', () => {
    const file = good();
    const guids = ['aaaaaaaa-0000-4000-8000-000000000001', 'bbbbbbbb-0000-4000-8000-000000000002'];
    editHeaders(file, (_, index) => ({
      dataWriteGuid: guids[index] ?? '',
      sequenceNumber: index === 0 ? 2n ** 63n : 7n,
    }));
    expect(opens(file)).toBe(guids[0]);
    editHeaders(file, (_, index) => ({ sequenceNumber: index === 0 ? 6n : 7n }));
    expect(opens(file)).toBe(guids[1]);
  });

  it('that are torn leave the other one to count', () => {
    const guid = opens(good());
    for (const at of [64, 128]) {
      const file = good();
      file.writeUInt8(file.readUInt8(at * 1024 + 300) ^ 1, at * 1024 + 300);
      expect(opens(file)).toBe(guid);
    }
  });

  it('are refused when neither is valid, and when two that differ have the same number', () => {
    const torn = good();
    for (const at of [64, 128]) torn.writeUInt8(1, at * 1024 + 300);
    expect(() => opens(torn)).toThrow(/neither is valid.*/);
    const twins = good();
    editHeaders(twins, (_, index) => ({
      sequenceNumber: 5n,
      dataWriteGuid: `aaaaaaaa-0000-4000-8000-00000000000${index}`,
    }));
    expect(() => opens(twins)).toThrow(FormatError);
    const version = good();
    editHeaders(version, () => ({ version: 2 }));
    expect(() => opens(version)).toThrow(FormatError);
  });
});

describe('a VHDX that breaks the specification', () => {
  const metadata = 2 * MiB;
  const cases: ReadonlyArray<readonly [string, (file: Buffer) => void]> = [
    ['another file type', (file) => file.write('vhdxfilf', 0, 'latin1')],
    [
      'a region beyond the end of the file',
      (file) => both(file, 16 + 16, (at) => file.writeBigUInt64LE(2n ** 50n, at)),
    ],
    [
      'a region that is not at a whole MiB',
      (file) => both(file, 16 + 16, (at) => file.writeUInt32LE(3 * MiB + 4096, at)),
    ],
    ['regions that overlap', (file) => both(file, 16 + 16, (at) => file.writeUInt32LE(2 * MiB, at))],
    ['a region in the header section', (file) => both(file, 16 + 16, (at) => file.writeUInt32LE(0, at))],
    ['too many regions', (file) => both(file, 8, (at) => file.writeUInt32LE(2048, at))],
    ['no BAT', (file) => both(file, 8, (at) => file.writeUInt32LE(0, at))],
    ['the same region twice', (file) => both(file, 48, (at) => file.copy(file, at, at - 32, at))],
    ['too many metadata items', (file) => file.writeUInt16LE(2048, metadata + 10)],
    ['a missing item', (file) => file.writeUInt16LE(4, metadata + 10)],
    ['an item in the metadata table', (file) => file.writeUInt32LE(100, metadata + 32 + 16)],
    ['an item behind the region', (file) => file.writeUInt32LE(MiB, metadata + 32 + 16)],
    ['an item that is too short', (file) => file.writeUInt32LE(4, metadata + 32 + 20)],
    ['the same item twice', (file) => file.copy(file, metadata + 64, metadata + 32, metadata + 48)],
    ['a block size that is no power of two', (file) => file.writeUInt32LE(3 * MiB, metadata + 65536)],
    ['a block size of 512 MiB', (file) => file.writeUInt32LE(512 * MiB, metadata + 65536)],
    ['a disk of 64 TiB and a sector', (file) => file.writeBigUInt64LE(BigInt(64 * TiB + 512), metadata + 65536 + 8)],
    ['a disk that is no whole number of sectors', (file) => file.writeBigUInt64LE(513n, metadata + 65536 + 8)],
    ['a disk of nothing', (file) => file.writeBigUInt64LE(0n, metadata + 65536 + 8)],
    ['sectors of 520 bytes', (file) => file.writeUInt32LE(520, metadata + 65536 + 16)],
    ['a BAT too short for the disk', (file) => file.writeBigUInt64LE(BigInt(1024 * GiB), metadata + 65536 + 8)],
    ['no parent locator in a differencing file', (file) => file.writeUInt32LE(2, metadata + 65536 + 4)],
    [
      'a log that must be replayed and is empty',
      (file) => editHeaders(file, () => ({ logGuid: 'aaaaaaaa-0000-4000-8000-000000000001' })),
    ],
    [
      'a log outside the file',
      (file) => editHeaders(file, () => ({ logGuid: 'aaaaaaaa-0000-4000-8000-000000000001', logOffset: 2n ** 62n })),
    ],
  ];
  it.each(cases)('is refused: %s', (_, damage) => {
    const file = synthesized(seededDisk(2 * MiB, 'broken'), 'dynamic');
    damage(file);
    reseal(file);
    expect(() => openVhdx(memoryDisk(file))).toThrow(FormatError);
  });

  it('is refused when it is cut off', () => {
    const file = synthesized(seededDisk(2 * MiB, 'broken'), 'dynamic');
    for (const length of [0, 8, 300_000, MiB, 3 * MiB]) {
      expect(() => openVhdx(memoryDisk(file.subarray(0, length)))).toThrow(FormatError);
    }
  });

  it('is refused when it requires what this reader does not know, and read when it only has it', () => {
    const unknown = 'aaaaaaaa-0000-4000-8000-00000000000a';
    for (const [flags, refused] of [
      [4, true],
      [6, true],
      [5, true],
      [0, false],
      [1, false],
    ] as const) {
      const file = synthesized(seededDisk(2 * MiB, 'unknown'), 'dynamic');
      addMetadataItem(file, unknown, flags, new Uint8Array(8));
      if (refused) expect(() => openVhdx(memoryDisk(file))).toThrow(UnsupportedError);
      else openVhdx(memoryDisk(file));
    }
    for (const required of [0, 1]) {
      const file = synthesized(seededDisk(2 * MiB, 'unknown'), 'dynamic');
      both(file, 8, (at) => file.writeUInt32LE(3, at));
      both(file, 16 + 64, (at) => file.writeUInt32LE(0xabcdef, at));
      both(file, 16 + 64 + 28, (at) => file.writeUInt32LE(required, at));
      reseal(file);
      if (required === 1) expect(() => openVhdx(memoryDisk(file))).toThrow(UnsupportedError);
      else openVhdx(memoryDisk(file));
    }
  });

  it('is refused where a block is read that cannot be, and read elsewhere', () => {
    const entries: ReadonlyArray<readonly [state: number, offset: number]> = [
      [6, 0],
      [6, 2 * MiB],
      [6, 3 * MiB],
      [6, 2 ** 50],
      [6, 5 * MiB + 4096],
      [7, 4 * MiB],
      [4, 0],
      [5, 0],
    ];
    for (const [state, offset] of entries) {
      const below = seededDisk(2 * MiB, 'blocks');
      const file = synthesized(below, 'fixed');
      setPayloadEntry(file, 1, state, offset);
      const disk = openVhdx(memoryDisk(file));
      expect(bytesOf(disk, 0, MiB).equals(bytesOf(below, 0, MiB))).toBe(true);
      expect(() => bytesOf(disk, MiB - 1, 2)).toThrow(FormatError);
      expect(() => [...disk.extents(0, 2 * MiB)]).toThrow(FormatError);
    }
  });

  it('reads as zeros where blocks are undefined, zero or unmapped', () => {
    for (const state of [0, 1, 2, 3]) {
      const file = synthesized(seededDisk(2 * MiB, 'absent'), 'fixed');
      setPayloadEntry(file, 1, state, state === 0 ? 0 : 5 * MiB);
      const disk = openVhdx(memoryDisk(file));
      expect(bytesOf(disk, MiB, MiB).every((byte) => byte === 0)).toBe(true);
    }
  });

  it('may end with the disk instead of with its last block', () => {
    const below = seededDisk(2 * MiB + 512, 'short');
    const file = synthesized(below, 'fixed');
    const disk = openVhdx(memoryDisk(file.subarray(0, file.length - MiB + 512)));
    expect(sha256OfDisk(disk)).toBe(sha256OfDisk(below));
    const shorter = openVhdx(memoryDisk(file.subarray(0, file.length - MiB + 511)));
    expect(() => bytesOf(shorter, 2 * MiB, 1)).toThrow(FormatError);
  });

  it('passes on that the file cannot be read, and does not take it for a torn header', () => {
    const file = memoryDisk(synthesized(seededDisk(2 * MiB, 'failing'), 'fixed'));
    const failing: Disk = {
      ...file,
      read: (target, offset) => {
        if (offset === 65536) throw new UnavailableError('bad sector');
        file.read(target, offset);
      },
    };
    expect(() => openVhdx(failing)).toThrow('bad sector');
  });
});

/** Changes the same place in both region tables. */
function both(file: Buffer, within: number, change: (at: number) => void): void {
  for (const at of [192 * 1024, 256 * 1024]) change(at + within);
  reseal(file);
}

function closing<T extends Disk>(opened: T): { opened: T } & Disposable {
  return { opened, [Symbol.dispose]: () => opened.close() };
}
