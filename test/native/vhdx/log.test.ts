import fs from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, type TestContext } from 'vitest';
import { FormatError } from '../../../src/base/errors.ts';
import { MiB } from '../../../src/base/units.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { batOffset, header, headerOffsets, logOffset } from '../../../src/native/vhdx/layout.ts';
import { logEntryHeader } from '../../../src/native/vhdx/log.ts';
import { overlaidDisk, type Overlay } from '../../../src/native/vhdx/overlay.ts';
import { openVhdx } from '../../../src/native/vhdx/read.ts';
import { TempFolder } from '../../temp-folder.ts';
import { editHeaders, encodeLogEntry, makeDirty, putLogEntry, synthesized, type LogWrite } from './crafted.ts';
import { seededBytes, seededDisk, seededNumbers, sha256OfDisk } from './disk-file.ts';
import { bytesOf, qemuImg, qemuIo, sha256OfFile } from './judges.ts';

let folder: TempFolder;
beforeEach(() => {
  folder = new TempFolder();
});
afterEach(() => folder.remove());

const diskBytes = 5 * MiB + 512;
const below = seededDisk(diskBytes, 'log');
const clean = (): Buffer => synthesized(below, 'fixed');
/** Where the disk's bytes lie in the fixed file: its last block ends the file. */
const payloadOffset = clean().length - 6 * MiB;
const sector = (seed: string): Buffer => seededBytes(seed, 4096);
const at = (diskOffset: number): number => payloadOffset + diskOffset;

interface Entry {
  readonly writes: readonly LogWrite[];
  readonly tail?: number;
  readonly sequenceNumber?: bigint;
  readonly lastFileOffset?: number;
  readonly flushedFileOffset?: number;
}

/** Writes entries one behind the other from `start` on; each one's tail is the first unless given. */
function withLog(file: Buffer, entries: readonly Entry[], start = 0): number[] {
  const places: number[] = [];
  let place = start;
  for (const [index, entry] of entries.entries()) {
    places.push(place);
    const encoded = encodeLogEntry({
      sequenceNumber: BigInt(index + 1),
      tail: start,
      flushedFileOffset: file.length,
      ...entry,
    });
    place = putLogEntry(file, place, encoded);
  }
  makeDirty(file);
  return places;
}

/** QEMU repairs a copy; then both readers must see the same disk. */
function expectAsQemuRepairs(ctx: TestContext, file: Buffer, disk: Disk): void {
  const copy = folder.file('repaired.vhdx');
  const golden = folder.file('golden.raw');
  fs.writeFileSync(copy, file);
  expect(qemuImg(ctx, ['check', '-r', 'all', '-f', 'vhdx', copy])).toContain('No errors were found');
  qemuImg(ctx, ['convert', '-f', 'vhdx', '-O', 'raw', copy, golden]);
  expect(sha256OfDisk(disk)).toBe(sha256OfFile(ctx, golden));
}

describe('a log that was not replayed', () => {
  it('is replayed for the reader, and the file stays as it is', (ctx) => {
    const file = clean();
    withLog(file, [
      {
        writes: [
          { offset: at(MiB), data: sector('a') },
          { offset: at(8192), data: sector('b') },
        ],
      },
    ]);
    const before = Buffer.from(file);
    const disk = openVhdx(memoryDisk(file));
    expect(bytesOf(disk, MiB, 4096)).toEqual(sector('a'));
    expect(bytesOf(disk, 8192, 4096)).toEqual(sector('b'));
    expect(bytesOf(disk, MiB + 4096, 65536)).toEqual(bytesOf(below, MiB + 4096, 65536));
    expect(file.equals(before)).toBe(true);
    expectAsQemuRepairs(ctx, file, disk);
  });

  it('is replayed in order, data and zeros: what is later wins', (ctx) => {
    const file = clean();
    withLog(file, [
      {
        writes: [
          { offset: at(MiB), data: sector('a') },
          { offset: at(MiB + 4096), data: sector('b') },
        ],
      },
      {
        writes: [
          { offset: at(MiB), zeroBytes: 65536 },
          { offset: at(MiB + 8192), data: sector('c') },
        ],
      },
      { writes: [{ offset: at(MiB + 16384), data: sector('d') }] },
    ]);
    const disk = openVhdx(memoryDisk(file));
    expect(bytesOf(disk, MiB, 8192).every((byte) => byte === 0)).toBe(true);
    expect(bytesOf(disk, MiB + 8192, 4096)).toEqual(sector('c'));
    expect(bytesOf(disk, MiB + 16384, 4096)).toEqual(sector('d'));
    expectAsQemuRepairs(ctx, file, disk);
  });

  it('may change the BAT and make the file longer, by whole MiB', (ctx) => {
    const file = synthesized(seededDisk(97 * MiB, 'grow'), 'dynamic');
    const entries = Buffer.from(file.subarray(batOffset, batOffset + 4096));
    entries.writeBigUInt64LE(BigInt(file.length + 6), 8 * 90);
    withLog(file, [{ writes: [{ offset: batOffset, data: entries }], lastFileOffset: file.length + 4096 }]);
    const disk = openVhdx(memoryDisk(file));
    expect(bytesOf(disk, 90 * MiB, MiB).every((byte) => byte === 0)).toBe(true);
    expect([...disk.extents(90 * MiB, MiB)]).toEqual([{ offset: 90 * MiB, length: MiB, kind: 'zero' }]);
    expectAsQemuRepairs(ctx, file, disk);
  });

  // From here QEMU 7.2 is no judge: it replays what lies before the tail, stops at the ring's end, and reads one sector of descriptors.
  it('is replayed from its tail on: what lies before is on disk already', () => {
    const file = clean();
    const writes = (seed: string): LogWrite[] => [{ offset: at(MiB), data: sector(seed) }];
    // The second entry takes two sectors of log behind the first's two.
    withLog(file, [{ writes: writes('old') }, { writes: [{ offset: at(0), data: sector('new') }], tail: 8192 }]);
    const disk = openVhdx(memoryDisk(file));
    expect(bytesOf(disk, MiB, 4096)).toEqual(bytesOf(below, MiB, 4096));
    expect(bytesOf(disk, 0, 4096)).toEqual(sector('new'));
  });

  it('may run around the end of the ring', () => {
    for (const start of [MiB - 4096, MiB - 8192, MiB - 20480]) {
      const file = clean();
      withLog(
        file,
        ['a', 'b', 'c'].map((seed, index) => ({ writes: [{ offset: at(index * MiB), data: sector(seed) }] })),
        start,
      );
      const disk = openVhdx(memoryDisk(file));
      for (const [index, seed] of ['a', 'b', 'c'].entries())
        expect(bytesOf(disk, index * MiB, 4096)).toEqual(sector(seed));
    }
  });

  it('has descriptors in more than one sector', () => {
    const file = clean();
    const writes = Array.from({ length: 200 }, (_, index) => ({
      offset: at(index * 8192),
      data: sector(`many ${index}`),
    }));
    withLog(file, [{ writes }]);
    const disk = openVhdx(memoryDisk(file));
    for (const index of [0, 125, 126, 127, 199]) {
      expect(bytesOf(disk, index * 8192, 4096)).toEqual(sector(`many ${index}`));
    }
  });
});

describe('in a log', () => {
  const writes = (seed: string, diskOffset = MiB): LogWrite[] => [{ offset: at(diskOffset), data: sector(seed) }];

  it.for([
    ['a torn record', (file: Buffer, place: number) => file.writeUInt8(file.readUInt8(place + 5000) ^ 1, place + 5000)],
    ['a record with a wrong mark', (file: Buffer, place: number) => file.write('lugg', place, 'latin1')],
    ['a record of another log', (file: Buffer, place: number) => file.writeUInt8(0x77, place + 32)],
    ['a record longer than the log', (file: Buffer, place: number) => file.writeUInt32LE(2 * MiB, place + 8)],
    ['a record of no length', (file: Buffer, place: number) => file.writeUInt32LE(0, place + 8)],
    [
      'a record with more descriptors than bytes',
      (file: Buffer, place: number) => file.writeUInt32LE(2 ** 31, place + 24),
    ],
  ] as const)('%s is ignored, and those before it are replayed', ([, damage], ctx) => {
    const file = clean();
    const places = withLog(file, [{ writes: writes('good') }, { writes: writes('torn') }]);
    damage(file, logOffset + (places[1] ?? 0));
    const disk = openVhdx(memoryDisk(file));
    expect(bytesOf(disk, MiB, 4096)).toEqual(sector('good'));
    expectAsQemuRepairs(ctx, file, disk);
  });

  it('a record with a wrong sequence number ends the sequence', () => {
    const file = clean();
    withLog(file, [{ writes: writes('good') }, { writes: writes('later'), sequenceNumber: 9n, tail: 0 }]);
    expect(bytesOf(openVhdx(memoryDisk(file)), MiB, 4096)).toEqual(sector('good'));
  });

  it('the sequence with the newest end counts, wherever it lies', () => {
    for (const [first, second] of [
      [5n, 20n],
      [20n, 5n],
    ] as const) {
      const file = clean();
      withLog(file, [{ writes: writes(`${first}`), sequenceNumber: first }]);
      const entry = {
        writes: writes(`${second}`),
        sequenceNumber: second,
        tail: 65536,
        flushedFileOffset: file.length,
      };
      putLogEntry(file, 65536, encodeLogEntry(entry));
      expect(bytesOf(openVhdx(memoryDisk(file)), MiB, 4096)).toEqual(sector('20'));
    }
  });

  it('a write that cannot be makes its record invalid', () => {
    for (const offset of [2 ** 50, 2 ** 63, at(MiB) + 512]) {
      const file = clean();
      withLog(file, [{ writes: writes('good') }, { writes: [{ offset, data: sector('outside') }] }]);
      expect(bytesOf(openVhdx(memoryDisk(file)), MiB, 4096)).toEqual(sector('good'));
    }
  });

  it('the last record alone says how long the file was: it may have become shorter on the way', () => {
    const file = clean();
    const longer = file.length + 8 * MiB;
    withLog(file, [{ writes: writes('good'), flushedFileOffset: longer }, { writes: writes('last') }]);
    expect(bytesOf(openVhdx(memoryDisk(file)), MiB, 4096)).toEqual(sector('last'));
  });

  it('no valid record at all means that the file is refused', () => {
    const file = clean();
    makeDirty(file);
    expect(() => openVhdx(memoryDisk(file))).toThrow(FormatError);
    withLog(file, [{ writes: writes('x'), sequenceNumber: 0n }]);
    expect(() => openVhdx(memoryDisk(file))).toThrow(FormatError);
    withLog(file, [{ writes: writes('x'), tail: 65536 }]);
    expect(() => openVhdx(memoryDisk(file))).toThrow(FormatError);
  });

  it('a file that is shorter than its log knows is refused', () => {
    const file = clean();
    withLog(file, [{ writes: writes('x'), flushedFileOffset: file.length + MiB }]);
    expect(() => openVhdx(memoryDisk(file))).toThrow('truncated');
  });

  it('of another version nothing is replayed, and a log over a region is refused', () => {
    const version = clean();
    withLog(version, [{ writes: writes('x') }]);
    editHeaders(version, () => ({ logVersion: 1 }));
    expect(() => openVhdx(memoryDisk(version))).toThrow(FormatError);
    const over = clean();
    withLog(over, [{ writes: writes('x') }]);
    over.copy(over, 2 * MiB, MiB, 2 * MiB);
    editHeaders(over, () => ({ logOffset: BigInt(2 * MiB) }));
    expect(() => openVhdx(memoryDisk(over))).toThrow(FormatError);
  });

  it('records that all claim the whole log cost no more than some scans of it', () => {
    const file = Buffer.concat([clean(), Buffer.alloc(15 * MiB)]);
    const log = file.length - 16 * MiB;
    const claim = encodeLogEntry({ sequenceNumber: 1n, tail: 0, writes: [], flushedFileOffset: 0 });
    claim.writeUInt32LE(16 * MiB, logEntryHeader.offsetOf('entryBytes'));
    for (let place = log; place < file.length; place += 4096) claim.copy(file, place, 0, 64);
    makeDirty(file);
    editHeaders(file, () => ({ logOffset: BigInt(log), logLengthBytes: 16 * MiB }));
    const started = performance.now();
    expect(() => openVhdx(memoryDisk(file))).toThrow('too many of them overlap');
    expect(performance.now() - started).toBeLessThan(5000);
  });
});

describe("QEMU's own log", () => {
  it('is replayed when QEMU was stopped between its log and its BAT', (ctx) => {
    const name = folder.file('qemu.vhdx');
    qemuImg(ctx, ['create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', name, '64M']);
    qemuIo(ctx, 'vhdx', name, ['write -P 7 3M 1M'], false);
    const bat = Number(fs.readFileSync(name).readBigUInt64LE(192 * 1024 + 16 + 16));
    const before = fs.readFileSync(name).subarray(bat, bat + 4096);
    qemuIo(ctx, 'vhdx', name, ['write -P 9 40M 1M'], false);
    // What QEMU writes last: its BAT, and headers that say that the log is empty.
    const file = fs.readFileSync(name);
    const log = Number(header.parse(file, headerOffsets[0]).logOffset);
    before.copy(file, bat);
    const { logGuid } = logEntryHeader.parse(file, log);
    editHeaders(file, () => ({ logGuid }));
    fs.writeFileSync(name, file);
    const disk = openVhdx(openFileDisk(name));
    expect(bytesOf(disk, 40 * MiB, MiB).every((byte) => byte === 9)).toBe(true);
    expectAsQemuRepairs(ctx, file, disk);
    disk.close();
  });
});

describe('an overlaid file', () => {
  it('reads as its writes leave it, done one after the other', () => {
    const number = seededNumbers('overlay');
    for (let round = 0; round < 30; round++) {
      const base = seededBytes(`base ${round}`, 50_000);
      const expected = Buffer.concat([base, Buffer.alloc(10_000)]);
      const writes: Overlay[] = [];
      for (let count = number(40); count > 0; count--) {
        const offset = number(59_000);
        const lengthBytes = 1 + number(Math.min(5000, 60_000 - offset));
        const bytes = number(3) === 0 ? undefined : seededBytes(`${round} ${count}`, lengthBytes);
        writes.push({ offset, lengthBytes, ...(bytes === undefined ? {} : { bytes }) });
        expected.set(bytes ?? Buffer.alloc(lengthBytes), offset);
      }
      const disk = overlaidDisk(memoryDisk(base), 60_000, writes);
      expect(bytesOf(disk, 0, 60_000).equals(expected)).toBe(true);
      let end = 0;
      for (const extent of disk.extents(0, 60_000)) {
        expect(extent.offset).toBe(end);
        end += extent.length;
        if (extent.kind === 'zero')
          expect(expected.subarray(extent.offset, end).every((byte) => byte === 0)).toBe(true);
      }
      expect(end).toBe(60_000);
      for (let count = 0; count < 50; count++) {
        const offset = number(60_000);
        const length = number(60_000 - offset + 1);
        expect(bytesOf(disk, offset, length).equals(expected.subarray(offset, offset + length))).toBe(true);
      }
    }
  });
});
