import { describe, expect, it } from 'vitest';
import { VeneerError } from '../../../src/base/errors.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { sealCrc32c } from '../../../src/bytes/checksum.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { header, headerOffsets, logOffset } from '../../../src/native/vhdx/layout.ts';
import { logEntryHeader } from '../../../src/native/vhdx/log.ts';
import { openVhdx, type OpenParent, type VhdxDisk } from '../../../src/native/vhdx/read.ts';
import { seededTest, soak, type Seeded } from '../../seeded.ts';
import { differencing, encodeLogEntry, makeDirty, putLogEntry, reseal, synthesized } from './crafted.ts';
import { seededBytes, seededDisk } from './disk-file.ts';

const mutantCount = soak ? 2000 : 300;
/** What an open may read of a file: tables, metadata and a log. */
const maxOpenBytes = 8 * MiB;
const mutantTimeoutMs = 5000;
const refusals = ['FORMAT', 'INTEGRITY', 'UNSUPPORTED', 'UNAVAILABLE'];

const below = seededDisk(5 * MiB + 512, 'hostile');
const parent = synthesized(below, 'dynamic', 'eeeeeeee-0000-4000-8000-000000000001');
const openParent: OpenParent = () => ({ file: memoryDisk(parent), openParent });

function dirty(): Buffer {
  const file = synthesized(below, 'dynamic');
  let place = 0;
  for (const sequenceNumber of [1n, 2n, 3n]) {
    const data = Buffer.from(file.subarray(3 * MiB, 3 * MiB + 4 * KiB));
    const writes = [
      { offset: 3 * MiB, data },
      { offset: file.length - MiB, zeroBytes: 8 * KiB },
      { offset: 2 * MiB + 8 * KiB, data: seededBytes(`${sequenceNumber}`, 4 * KiB) },
    ];
    place = putLogEntry(
      file,
      place,
      encodeLogEntry({ sequenceNumber, tail: 0, writes, flushedFileOffset: file.length }),
    );
  }
  makeDirty(file);
  return file;
}

function child(): Buffer {
  return differencing(below, {
    parentLinkage: header.parse(parent, headerOffsets[1]).dataWriteGuid,
    parentPath: 'parent.vhdx',
    identity: 'eeeeeeee-0000-4000-8000-000000000002',
    blocks: [
      { block: 0, contents: seededBytes('full', MiB) },
      { block: 2, contents: seededBytes('partial', MiB), sectors: [0, 3, 4, 5, 1000, 2047] },
    ],
  });
}

/** Where fields lie that a reader believes: start and length. */
const fieldPlaces = [
  [0, 16],
  [64 * KiB, 80],
  [128 * KiB, 80],
  [192 * KiB, 16 + 2 * 32],
  [256 * KiB, 16 + 2 * 32],
  [MiB, 256],
  [MiB + 4 * KiB, 16],
  [MiB + 12 * KiB, 256],
  [2 * MiB, 32 + 6 * 32],
  [2 * MiB + 64 * KiB, 48],
  [2 * MiB + 84 * KiB, 256],
  [3 * MiB, 64],
  [3 * MiB + 4096 * 8, 8],
] as const;

/** Changes one to six things; offsets, counts and sizes become extreme, near to right, or another field's. */
function mutate(file: Buffer, random: Seeded): Buffer {
  for (let count = random.between(1, 6); count > 0; count--) {
    const [start, lengthBytes] = random.oneIn(8) ? ([0, file.length - 8] as const) : random.pick(fieldPlaces);
    const at = start + random.below(lengthBytes);
    const aligned = at - (at % 8);
    const extreme = random.pick([
      0n,
      1n,
      2n ** 31n,
      2n ** 32n - 1n,
      2n ** 63n,
      2n ** 64n - 1n,
      BigInt(MiB),
      BigInt(file.length),
    ]);
    switch (random.below(6)) {
      case 0:
        file.writeUInt8(random.below(256), at);
        break;
      case 1:
        file.writeUInt8(file.readUInt8(at) ^ (1 << random.below(8)), at);
        break;
      case 2:
        file.writeBigUInt64LE(extreme, aligned);
        break;
      case 3:
        file.writeUInt32LE(Number(extreme % 2n ** 32n), aligned + 4 * random.below(2));
        break;
      case 4:
        file.writeBigUInt64LE(BigInt(random.below(16)) * BigInt(MiB) + BigInt(random.below(8)), aligned);
        break;
      default:
        file.copy(file, at, random.pick(fieldPlaces)[0], random.pick(fieldPlaces)[0] + 32);
    }
  }
  // Mutants that fail at a checksum would test nothing else.
  if (!random.oneIn(6)) reseal(file);
  if (!random.oneIn(6)) resealLog(file);
  return random.oneIn(12) ? file.subarray(0, random.below(file.length)) : file;
}

function resealLog(file: Buffer): void {
  for (let at = logOffset; at < logOffset + 64 * KiB; at += 4 * KiB) {
    if (file.toString('latin1', at, at + 4) !== 'loge') continue;
    const entryBytes = file.readUInt32LE(at + logEntryHeader.offsetOf('entryBytes'));
    if (entryBytes < 64 || entryBytes > MiB) continue;
    sealCrc32c(file.subarray(at, at + entryBytes), logEntryHeader.offsetOf('checksum'));
  }
}

/** Fails the test where a reader leaves the file. */
function watched(bytes: Buffer): Disk & { readBytes: number } {
  const disk = memoryDisk(bytes);
  const guard = {
    ...disk,
    readBytes: 0,
    read(target: Uint8Array, offset: number): void {
      guard.readBytes += target.length;
      if (!(offset >= 0 && offset + target.length <= bytes.length))
        throw new Error(`read ${target.length} at ${offset}`);
      disk.read(target, offset);
    },
  };
  return guard;
}

/** Runs what may be refused; anything but a refusal is an error of ours. */
function refusable(action: () => void): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (error instanceof VeneerError && refusals.includes(error.code)) return false;
    throw error;
  }
}

function exercise(disk: VhdxDisk, random: Seeded): void {
  const { sizeBytes } = disk;
  for (let count = 0; count < 12; count++) {
    const length = Math.min(random.below(300_000), sizeBytes);
    const offset = count === 0 ? 0 : count === 1 ? sizeBytes - length : random.below(sizeBytes - length + 1);
    refusable(() => disk.read(new Uint8Array(length), offset));
  }
  refusable(() => {
    let end = 0;
    for (const extent of disk.extents(0, sizeBytes)) {
      expect(extent.offset).toBe(end);
      end += extent.length;
    }
    expect(end).toBe(sizeBytes);
  });
}

describe('a hostile VHDX', () => {
  it.each([
    ['dynamic', () => synthesized(below, 'dynamic')],
    ['fixed', () => synthesized(below, 'fixed')],
    ['with a log', dirty],
    ['differencing', child],
  ])('is refused, or is a disk whose reads end: %s', (name, make) => {
    const random = seededTest(`hostile vhdx ${name}`);
    const original = make();
    refusable(() => exercise(openVhdx(memoryDisk(original), { openParent }), random));
    const before = process.memoryUsage().rss;
    let opened = 0;
    for (let count = 0; count < mutantCount / 4; count++) {
      const started = performance.now();
      const file = watched(mutate(Buffer.from(original), random));
      refusable(() => {
        const disk = openVhdx(file, { openParent });
        expect(file.readBytes).toBeLessThan(maxOpenBytes);
        opened++;
        exercise(disk, random);
        disk.close();
      });
      expect(performance.now() - started, `mutant ${count}`).toBeLessThan(mutantTimeoutMs);
    }
    // Else the mutants are too broken to test what comes behind the open.
    expect(opened).toBeGreaterThan(mutantCount / 40);
    expect(process.memoryUsage().rss - before).toBeLessThan(512 * MiB);
  });
});
