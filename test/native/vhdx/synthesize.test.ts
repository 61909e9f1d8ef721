import { describe, expect, it } from 'vitest';
import { CapacityError, FormatError, UsageError } from '../../../src/base/errors.ts';
import { GiB, KiB, MiB, TiB } from '../../../src/base/units.ts';
import { checkCrc32c } from '../../../src/bytes/checksum.ts';
import { zeroDisk } from '../../../src/disk/zero.ts';
import { allocatedCount, decodeRuns, type AllocatedRun } from '../../../src/native/allocation.ts';
import type { DiskFacts, PlanOptions } from '../../../src/native/format.ts';
import type { DiskSource, SegmentMap } from '../../../src/native/segment-map.ts';
import type { VhdxGeometry } from '../../../src/native/vhdx/layout.ts';
import { vhdx } from '../../../src/native/vhdx/format.ts';
import { factsOf, seededBytes, seededDisk, seededNumbers } from './disk-file.ts';

const noDisk: DiskSource = () => {
  throw new Error('the disk was asked');
};

function mapOf(geometry: VhdxGeometry): SegmentMap {
  const [file] = vhdx.synthesize(geometry, 'disk.vhdx');
  if (file === undefined) throw new Error('no file');
  return file.map;
}

function planned(disk: ReturnType<typeof zeroDisk>, options: PlanOptions, sectors = {}): VhdxGeometry {
  return vhdx.plan(factsOf(disk, sectors), options);
}

function bytesAt(map: SegmentMap, offset: number, length: number, disk: DiskSource = noDisk): Buffer {
  const target = Buffer.alloc(length, 0xee);
  map.read(target, offset, disk);
  return target;
}

/** Where the first payload block lies, found through the region table by hand. */
function batOf(map: SegmentMap): { offset: number; lengthBytes: number } {
  const table = bytesAt(map, 192 * KiB, 64 * KiB);
  for (let at = 16; at < 16 + 2 * 32; at += 32) {
    if (table.subarray(at, at + 4).toString('hex') !== '6677c22d') continue;
    return { offset: Number(table.readBigUInt64LE(at + 16)), lengthBytes: table.readUInt32LE(at + 24) };
  }
  throw new Error('no BAT');
}

describe('a planned VHDX', () => {
  it('is fixed with payload blocks of 32 MiB unless asked otherwise', () => {
    const geometry = planned(zeroDisk(GiB), {});
    expect(geometry).toMatchObject({ format: 'vhdx', layout: 'fixed', payloadBlockBytes: 32 * MiB, sizeBytes: GiB });
    expect(geometry.allocation).toBeUndefined();
  });

  it('is the same for the same disk, and has other GUIDs for another identity', () => {
    const facts = factsOf(seededDisk(97 * MiB, 'same'));
    const first = vhdx.plan(facts, { layout: 'dynamic' });
    const other = vhdx.plan({ ...facts, identity: '0d6b9c3e-0000-4000-8000-000000000001' }, { layout: 'dynamic' });
    expect(vhdx.plan(facts, { layout: 'dynamic' })).toEqual(first);
    const guids = [first, other].flatMap((g) => [g.fileWriteGuid, g.dataWriteGuid, g.virtualDiskId]);
    expect(new Set(guids).size).toBe(6);
  });

  it('refuses a disk of more than 64 TiB and an empty one', () => {
    expect(() => planned(zeroDisk(64 * TiB + 512), {})).toThrow(CapacityError);
    expect(() => planned(zeroDisk(0), {})).toThrow(UsageError);
    expect(mapOf(planned(zeroDisk(64 * TiB), {})).sizeBytes).toBe(64 * TiB + 4 * MiB + 17 * MiB);
  });

  it('refuses payload blocks that are no power of two from 1 to 256 MiB', () => {
    for (const unitBytes of [0, 512 * KiB, 3 * MiB, 512 * MiB, 1.5, -MiB, Number.NaN]) {
      expect(() => planned(zeroDisk(GiB), { unitBytes })).toThrow(UsageError);
    }
  });

  it('refuses other layouts, and sectors that the format does not know', () => {
    expect(() => planned(zeroDisk(GiB), { layout: 'sparse' })).toThrow(UsageError);
    expect(() => planned(zeroDisk(GiB), {}, { logical: 2048 })).toThrow(UsageError);
    expect(planned(zeroDisk(GiB), {}, { physical: 16384 }).physicalSectorBytes).toBe(4096);
    expect(planned(zeroDisk(GiB), {}, { logical: 4096, physical: 512 }).physicalSectorBytes).toBe(4096);
  });

  it('takes larger payload blocks by itself when the data is too scattered for a plugin file', () => {
    const facts = scatteredFacts(40 * TiB, 'scattered');
    const geometry = vhdx.plan(facts, { layout: 'dynamic' });
    expect(geometry.payloadBlockBytes).toBeGreaterThan(32 * MiB);
    expect(geometry.allocation?.length).toBeLessThan(56 * KiB);
  });

  it('says so instead when the user has chosen the payload blocks', () => {
    expect(() => vhdx.plan(scatteredFacts(40 * TiB, 'scattered'), { layout: 'dynamic', unitBytes: 32 * MiB })).toThrow(
      CapacityError,
    );
  });
});

/** A disk where a coin decides for each payload block whether it holds data: nothing compresses that. */
function scatteredFacts(sizeBytes: number, seed: string): DiskFacts {
  return {
    ...factsOf(zeroDisk(sizeBytes)),
    allocatedRuns: (unitBytes) => {
      const coins = seededBytes(`${seed} ${unitBytes}`, Math.ceil(sizeBytes / unitBytes));
      const runs: AllocatedRun[] = [];
      let rank = 0;
      for (const [unit, coin] of coins.entries()) {
        if (coin < 128) continue;
        const last = runs.at(-1);
        if (last !== undefined && last.firstUnit + last.unitCount === unit) {
          runs[runs.length - 1] = { ...last, unitCount: last.unitCount + 1 };
        } else {
          runs.push({ firstUnit: unit, unitCount: 1, rank });
        }
        rank++;
      }
      if (runs.length > 65_536) throw new CapacityError('too many runs');
      return runs;
    },
  };
}

describe('a synthesized VHDX', () => {
  it('has two headers and two region tables with good checksums, and the second header is current', () => {
    const map = mapOf(planned(zeroDisk(GiB), {}));
    for (const offset of [64 * KiB, 128 * KiB]) checkCrc32c(bytesAt(map, offset, 4 * KiB), 4, 'header');
    for (const offset of [192 * KiB, 256 * KiB]) checkCrc32c(bytesAt(map, offset, 64 * KiB), 4, 'region table');
    expect(bytesAt(map, 128 * KiB + 8, 8).readBigUInt64LE()).toBe(2n);
    expect(bytesAt(map, 64 * KiB + 8, 8).readBigUInt64LE()).toBe(1n);
  });

  it('has a virtual size that is the disk rounded up to a logical sector, and covers its last payload block', () => {
    const disk = seededDisk(5 * MiB + 512, 'odd');
    const map = mapOf(planned(disk, { unitBytes: MiB }, { logical: 4096 }));
    expect(bytesAt(map, 2 * MiB + 64 * KiB + 8, 8).readBigUInt64LE()).toBe(BigInt(5 * MiB + 4096));
    expect(map.sizeBytes).toBe(5 * MiB + 6 * MiB);
    const last = bytesAt(map, 5 * MiB + 5 * MiB, MiB, () => disk);
    expect(last.subarray(512).every((byte) => byte === 0)).toBe(true);
    expect(last.subarray(0, 512).some((byte) => byte !== 0)).toBe(true);
  });

  it.each(['fixed', 'dynamic'] as const)('reads the same in pieces as whole: %s', (layout) => {
    const disk = seededDisk(7 * MiB + 512, 'pieces');
    const map = mapOf(planned(disk, { layout, unitBytes: MiB }));
    const whole = bytesAt(map, 0, map.sizeBytes, () => disk);
    const edges = new Set<number>();
    const pieceSizes = [64 * KiB, 4 * KiB, MiB, 520];
    for (const size of pieceSizes) for (let at = size; at < map.sizeBytes; at += size * 16) edges.add(at);
    for (const { offset } of map.extents(0, map.sizeBytes, () => disk)) if (offset > 0) edges.add(offset);
    for (const { fileOffset } of map.diskRanges()) edges.add(fileOffset);
    const number = seededNumbers('pieces');
    for (const edge of edges) {
      const offset = Math.max(0, edge - 1 - number(40));
      const length = Math.min(1 + number(200), map.sizeBytes - offset);
      expect(bytesAt(map, offset, length, () => disk)).toEqual(whole.subarray(offset, offset + length));
    }
    for (let count = 0; count < 300; count++) {
      const offset = number(map.sizeBytes);
      const length = Math.min(number(3 * MiB), map.sizeBytes - offset);
      const same = bytesAt(map, offset, length, () => disk).equals(whole.subarray(offset, offset + length));
      expect(same, `${length} bytes at ${offset}`).toBe(true);
    }
  });

  it.each(['fixed', 'dynamic'] as const)('never asks the disk for metadata: %s', (layout) => {
    const disk = seededDisk(97 * MiB, 'metadata');
    const map = mapOf(planned(disk, { layout, unitBytes: MiB }));
    bytesAt(map, 0, 5 * MiB, noDisk);
    expect(map.needsDisk(0, 5 * MiB)).toBe(false);
    expect(map.needsDisk(0, 5 * MiB + 1)).toBe(true);
    expect(() => bytesAt(map, 5 * MiB, 1, noDisk)).toThrow('the disk was asked');
    expect([...map.extents(0, 5 * MiB, noDisk)].length).toBeGreaterThan(1);
  });

  it('tells what of the file is data: its own tables, and the data of the disk', () => {
    const disk = seededDisk(97 * MiB, 'extents');
    const map = mapOf(planned(disk, { layout: 'dynamic', unitBytes: MiB }));
    const whole = bytesAt(map, 0, map.sizeBytes, () => disk);
    let end = 0;
    for (const extent of map.extents(0, map.sizeBytes, () => disk)) {
      expect(extent.offset).toBe(end);
      end += extent.length;
      if (extent.kind === 'zero') expect(whole.subarray(extent.offset, end).every((byte) => byte === 0)).toBe(true);
    }
    expect(end).toBe(map.sizeBytes);
    // A disk's zeros are holes even inside a payload block that is there.
    expect([...map.extents(map.sizeBytes - 3 * MiB, 3 * MiB, () => disk)].some(({ kind }) => kind === 'zero')).toBe(
      true,
    );
  });

  it('holds only blocks that may have data when dynamic, in guest order', () => {
    const disk = seededDisk(GiB, 'packed');
    const geometry = planned(disk, { layout: 'dynamic', unitBytes: MiB });
    const map = mapOf(geometry);
    const runs = decodeRuns(geometry.allocation ?? '', 1024);
    expect(map.sizeBytes).toBe(5 * MiB + allocatedCount(runs) * MiB);
    const ranges = [...map.diskRanges()];
    expect(ranges.map((range) => range.diskOffset / MiB)).toEqual(runs.map((run) => run.firstUnit));
    expect(allocatedCount(runs)).toBeLessThan(20);
  });

  it('is a handful of segments at 63 TiB when fixed, whatever the payload blocks', () => {
    for (const unitBytes of [MiB, 32 * MiB, 256 * MiB]) {
      const map = mapOf(planned(zeroDisk(63 * TiB), { unitBytes }));
      expect([...map.diskRanges()]).toHaveLength(1);
      expect([...map.extents(0, map.sizeBytes, () => zeroDisk(63 * TiB))].length).toBeLessThan(20);
    }
  });

  it('refuses a geometry that breaks the rules of the format', () => {
    const good = planned(seededDisk(GiB, 'edited'), { layout: 'dynamic' });
    const { allocation, ...without } = good;
    expect(allocation).toBeDefined();
    const broken: VhdxGeometry[] = [
      { ...good, sizeBytes: 0 },
      { ...good, sizeBytes: 64 * TiB + 1 },
      { ...good, sizeBytes: 1.5 },
      { ...good, sizeBytes: GiB * 512 },
      { ...good, logicalSectorBytes: 1024 },
      { ...good, physicalSectorBytes: 0 },
      { ...good, payloadBlockBytes: 3 * MiB },
      { ...good, payloadBlockBytes: 512 * MiB },
      { ...good, layout: 'fixed' },
      { ...good, allocation: 'not zstd' },
      { ...good, layout: 'flat' as 'fixed' },
      without,
    ];
    for (const geometry of broken) expect(() => mapOf(geometry)).toThrow(FormatError);
  });
});

describe('the BAT of a synthesized VHDX', () => {
  it.each([
    { sizeBytes: 63 * TiB, unitBytes: MiB, logical: 512 },
    { sizeBytes: 64 * TiB, unitBytes: MiB, logical: 512 },
    { sizeBytes: 63 * TiB, unitBytes: MiB, logical: 4096 },
    { sizeBytes: 63 * TiB, unitBytes: 32 * MiB, logical: 512 },
    { sizeBytes: 5 * TiB + 4096, unitBytes: 256 * MiB, logical: 512 },
  ])(
    'places every block of $sizeBytes bytes in $unitBytes, sectors of $logical',
    ({ sizeBytes, unitBytes, logical }) => {
      const map = mapOf(planned(zeroDisk(sizeBytes), { unitBytes }, { logical }));
      const bat = batOf(map);
      const perChunk = BigInt(2 ** 23) * BigInt(logical);
      const payload = BigInt(bat.offset + bat.lengthBytes + MiB);
      const number = seededNumbers('bat');
      const blockCount = Math.ceil(sizeBytes / unitBytes);
      const samples = [0, 1, blockCount - 1, blockCount - 2, ...Array.from({ length: 400 }, () => number(blockCount))];
      for (const block of samples) {
        // Independent of the code under test: one entry for each block before, and one for each full chunk before.
        const start = BigInt(block) * BigInt(unitBytes);
        const index = Number(start / BigInt(unitBytes) + start / perChunk);
        const entry = bytesAt(map, bat.offset + index * 8, 8).readBigUInt64LE();
        expect(entry & 0xfffffn).toBe(6n);
        expect(entry >> 20n).toBe((payload + start) >> 20n);
      }
      const lastIndex = Number(BigInt(blockCount - 1) + (BigInt(blockCount - 1) * BigInt(unitBytes)) / perChunk);
      expect(bat.lengthBytes).toBe(Math.ceil(((lastIndex + 1) * 8) / MiB) * MiB);
      const behind = bytesAt(map, bat.offset + (lastIndex + 1) * 8, bat.lengthBytes - (lastIndex + 1) * 8);
      expect(behind.every((byte) => byte === 0)).toBe(true);
    },
  );

  it('has an empty sector bitmap entry behind every chunk', () => {
    const map = mapOf(planned(zeroDisk(TiB), { unitBytes: MiB }));
    for (const chunk of [0, 1, 2, 100, 254]) {
      const entries = bytesAt(map, 3 * MiB + (chunk * 4097 + 4095) * 8, 24);
      expect(entries.readBigUInt64LE(8)).toBe(0n);
      expect(entries.readBigUInt64LE(16) - entries.readBigUInt64LE(0)).toBe(BigInt(MiB));
    }
  });

  it('reads the same from any byte on, in any length', () => {
    const disk = seededDisk(5 * GiB + 512, 'unaligned');
    const map = mapOf(planned(disk, { layout: 'dynamic', unitBytes: MiB }));
    const whole = bytesAt(map, 3 * MiB, MiB);
    const number = seededNumbers('unaligned');
    for (let count = 0; count < 500; count++) {
      const offset = number(45_000);
      const length = number(count < 400 ? 40 : 20_000);
      expect(bytesAt(map, 3 * MiB + offset, length).equals(whole.subarray(offset, offset + length))).toBe(true);
    }
  });

  it('costs by the range, not by the table', () => {
    const map = mapOf(planned(zeroDisk(64 * TiB), { unitBytes: MiB }));
    const before = process.memoryUsage().arrayBuffers;
    const started = performance.now();
    for (let count = 0; count < 1000; count++) bytesAt(map, 3 * MiB + count * 500_000, 4 * KiB);
    expect(performance.now() - started).toBeLessThan(2000);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * MiB);
  });
});
