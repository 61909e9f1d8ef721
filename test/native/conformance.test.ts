/**
 * One suite over native formats, layouts and sizes: foreign programs judge the files, and the rules of segment maps are held to.
 */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CapacityError, FormatError, UsageError } from '../../src/base/errors.ts';
import { GiB, MiB, TiB } from '../../src/base/units.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { zeroDisk } from '../../src/disk/zero.ts';
import type { NativeFile, NativeFormat } from '../../src/native/format.ts';
import { formatNames, formatOf, formatOfName, type Geometry } from '../../src/native/formats.ts';
import type { SegmentMap } from '../../src/native/segment-map.ts';
import { openSource } from '../../src/source/open-source.ts';
import { covering } from '../covering.ts';
import { Seeded, seededTest } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { factsOf, materialize, readRange, writeGolden } from './golden.ts';
import { judgesOf, missingProgram, type Evidence } from './judges.ts';

interface Room {
  readonly format: NativeFormat<Geometry>;
  /** The largest disk of each layout that has a limit below that of the suite. */
  readonly maxDiskBytes: Readonly<Record<string, number>>;
}

const limits: Readonly<Record<string, Room['maxDiskBytes']>> = {
  vhd: { fixed: 2040 * GiB, dynamic: 2040 * GiB },
  vmdk: { sparse: 2 * TiB },
};
const rooms = formatNames.map((name): Room => ({ format: formatOf(name), maxDiskBytes: limits[name] ?? {} }));
const readme = fs.readFileSync(path.join(import.meta.dirname, '../../README.md'), 'utf8');

const hugeBytes = 2 * TiB + 3 * MiB + 512;
const sizes: ReadonlyArray<readonly [string, number]> = [
  ['1 MiB', MiB],
  ['5 MiB and a sector', 5 * MiB + 512],
  ['97 MiB', 97 * MiB],
  ['1 GiB', GiB],
  ['more than 2 TiB, or the largest', hugeBytes],
];

/** A soak has every size in every layout, `npm test` each layout, and each size in one layout of each format. */
const cases = covering(
  rooms.flatMap(({ format, maxDiskBytes }) =>
    [...format.layouts].reverse().flatMap((layout) =>
      sizes.map(([size, sizeBytes]) => ({
        title: `${format.name} ${layout}, ${size}`,
        kinds: [`${format.name} ${layout}`, `${format.name} ${size}`],
        format,
        layout,
        sizeBytes: Math.min(sizeBytes, maxDiskBytes[layout] ?? sizeBytes),
      })),
    ),
  ),
  ({ kinds }) => kinds,
);

/** VHD's fixed layout alone rounds the disk up. */
function virtualSizeOf(geometry: unknown, sizeBytes: number): number {
  return (geometry as { virtualSizeBytes?: number }).virtualSizeBytes ?? sizeBytes;
}

/** The judges bound their programs; this is above that, because a test that waits for one cannot be interrupted. */
const timeout = { timeout: 90_000 };

const noDisk = (): Disk => {
  throw new Error('metadata asked for the disk');
};

describe.each(cases)('$title', ({ format, layout, sizeBytes }) => {
  const seed = `conformance ${format.name} ${layout} ${sizeBytes}`;
  let folder: TempFolder;
  let disk: Disk = zeroDisk(0);
  let geometry: Geometry;
  let files: readonly NativeFile[] = [];
  let evidence: Evidence;

  beforeAll(() => {
    folder = new TempFolder();
    const golden = folder.file('golden.raw');
    writeGolden(golden, sizeBytes, new Seeded(seed));
    disk = openFileDisk(golden);
    geometry = format.plan(factsOf(disk), { layout });
    files = format.synthesize(geometry, `vm.${format.extensions[0]}`);
    for (const file of files) materialize(file.map, disk, folder.file(file.name));
    const first = folder.file(files[0]?.name ?? '');
    const virtualSizeBytes = virtualSizeOf(geometry, sizeBytes);
    evidence = { format: format.name, file: first, golden, virtualSizeBytes };
  });

  afterAll(() => {
    disk.close();
    folder.remove();
  });

  it('reads at any offset give the bytes of the whole file', () => {
    const random = seededTest(seed);
    for (const { name, map } of files) {
      for (const offset of readOffsets(map, random)) {
        const lengthBytes = Math.min(random.between(1, 9000), map.sizeBytes - offset);
        const target = Buffer.alloc(lengthBytes, 0xa5);
        map.read(target, offset, () => disk);
        expect(target.equals(readRange(folder.file(name), offset, lengthBytes)), `at ${offset}`).toBe(true);
      }
    }
  });

  it('metadata is read without the disk', () => {
    for (const { map } of files) {
      for (const { offset, lengthBytes } of metadataRanges(map)) {
        expect(map.needsDisk(offset, lengthBytes)).toBe(false);
        map.read(Buffer.alloc(Math.min(lengthBytes, 2 * MiB)), offset, noDisk);
        for (const extent of map.extents(offset, lengthBytes, noDisk)) expect(extent.length).toBeGreaterThan(0);
      }
    }
  });

  // It may agree with the judges, never stand for them.
  it('the reader of the same name finds the disk in it', { timeout: 30_000 }, () => {
    const found = openSource(evidence.file);
    try {
      expect(found.sizeBytes).toBe(evidence.virtualSizeBytes);
      for (const { offset, length, kind } of disk.extents(0, sizeBytes)) {
        if (kind === 'zero') continue;
        const [actual, expected] = [Buffer.alloc(length, 0xa5), Buffer.alloc(length)];
        found.read(actual, offset);
        disk.read(expected, offset);
        expect(actual.equals(expected), `at ${offset}`).toBe(true);
      }
      let end = 0;
      for (const { offset, length, kind } of found.extents(0, found.sizeBytes)) {
        expect(offset).toBe(end);
        end += length;
        if (kind === 'data' || offset >= sizeBytes) continue;
        const within = [...disk.extents(offset, Math.min(length, sizeBytes - offset))];
        expect(within.every((extent) => extent.kind === 'zero')).toBe(true);
      }
      expect(end).toBe(found.sizeBytes);
    } finally {
      found.close();
    }
  });

  it('the first file has the name of the plugin file', () => {
    expect(files[0]?.name).toBe(`vm.${format.extensions[0]}`);
  });

  it('a geometry survives JSON, and makes the same bytes again', () => {
    const again = format.synthesize(
      format.schema.parse(JSON.parse(JSON.stringify(geometry))),
      `vm.${format.extensions[0]}`,
    );
    expect(again.map((file) => file.map.sizeBytes)).toEqual(files.map((file) => file.map.sizeBytes));
    for (const [index, file] of files.entries()) {
      const lengthBytes = Math.min(file.map.sizeBytes, 4 * MiB);
      const [first, second] = [Buffer.alloc(lengthBytes), Buffer.alloc(lengthBytes)];
      file.map.read(first, 0, () => disk);
      again[index]?.map.read(second, 0, () => disk);
      expect(first.equals(second)).toBe(true);
    }
  });

  it.for(judgesOf({ format: format.name, layout, sizeBytes }))('$title', timeout, ({ needs, judge }, context) => {
    const missing = missingProgram(needs);
    if (missing !== undefined) context.skip(`${missing} is not installed`);
    judge(evidence);
  });
});

/** Offsets shortly before what may be a border, and anywhere. */
function* readOffsets(map: SegmentMap, random: Seeded): Generator<number> {
  const last = map.sizeBytes - 1;
  yield* [0, last, Math.max(0, last - 511)];
  let borders = 0;
  for (const range of map.diskRanges()) {
    if (++borders > 40) break;
    for (const border of [range.fileOffset, range.fileOffset + range.lengthBytes]) {
      yield Math.max(0, Math.min(border - random.below(4000), last));
    }
  }
  for (let count = 0; count < 100; count++) yield random.below(map.sizeBytes);
  for (const unitBytes of [64 * 1024, MiB, 2 * MiB]) {
    for (let count = 0; count < 20; count++) {
      const border = unitBytes * random.below(Math.ceil(map.sizeBytes / unitBytes));
      yield Math.max(0, border - random.below(4000));
    }
  }
}

/** What lies between the ranges of the disk. */
function* metadataRanges(map: SegmentMap): Generator<{ offset: number; lengthBytes: number }> {
  let at = 0;
  for (const range of map.diskRanges()) {
    if (range.fileOffset > at) yield { offset: at, lengthBytes: range.fileOffset - at };
    at = range.fileOffset + range.lengthBytes;
  }
  if (map.sizeBytes > at) yield { offset: at, lengthBytes: map.sizeBytes - at };
}

/** Fields of geometries that must be one of a few values. */
const unitFields = [
  'allocation',
  'clusterBytes',
  'blockBytes',
  'grainBytes',
  'virtualSizeBytes',
  'payloadBlockBytes',
  'logicalSectorBytes',
  'physicalSectorBytes',
];

describe.each(rooms)('$format.name', ({ format, maxDiskBytes }) => {
  const facts = factsOf(zeroDisk(64 * MiB));

  it('is in the README, and the format of files that are called so', () => {
    expect(readme).toMatch(new RegExp(`^\\| ${format.name} \\| ${format.layouts.join('( \\([^)]*\\))?, ')}`, 'im'));
    for (const extension of format.extensions) expect(formatOfName(`vm.${extension.toUpperCase()}`)).toBe(format.name);
    expect(format.layouts).toContain(format.wholeLayout);
  });

  it.each(format.layouts)('%s: its schema takes what is planned, and nothing beside it', (layout) => {
    const geometry = format.plan(facts, { layout });
    expect(format.schema.parse(JSON.parse(JSON.stringify(geometry)))).toEqual(geometry);
    expect(format.schema.safeParse({ ...geometry, more: 1 }).success).toBe(false);
    expect(format.schema.safeParse({ ...geometry, format: 'other' }).success).toBe(false);
  });

  it.each(format.layouts)('the layout %s is what the geometry says', (layout) => {
    expect(format.plan(facts, { layout })).toMatchObject({ format: format.name, layout, sizeBytes: 64 * MiB });
  });

  it('without a layout the first is planned', () => {
    expect(format.plan(facts, {})).toMatchObject({ layout: format.layouts[0] });
  });

  it.each(format.layouts)('%s: an empty disk has a file too', (layout) => {
    const [file] = format.synthesize(format.plan(facts, { layout }), 'vm.x');
    expect(file?.map.sizeBytes).toBeGreaterThan(0);
  });

  it('a layout or a unit that it does not have is refused', () => {
    expect(() => format.plan(facts, { layout: 'round' })).toThrow(UsageError);
    for (const layout of format.layouts) {
      expect(() => format.plan(facts, { layout, unitBytes: 12_345 })).toThrow(UsageError);
    }
  });

  it('a disk with sectors of 4 KiB is refused where the format has none', () => {
    const plan = (): unknown => format.plan({ ...facts, logicalSectorBytes: 4096 }, {});
    if (['vhd', 'vmdk', 'vdi'].includes(format.name)) expect(plan).toThrow(UsageError);
    else expect(plan).not.toThrow();
  });

  it('a disk that ends inside a sector is refused', () => {
    expect(() => format.plan({ ...facts, sizeBytes: 1000 }, {})).toThrow(UsageError);
  });

  it.each(Object.entries(maxDiskBytes))('%s: a disk above %i bytes is refused when planned', (layout, limit) => {
    const disk = zeroDisk(limit + 512);
    expect(() => format.plan(factsOf(disk), { layout })).toThrow(CapacityError);
    expect(() => format.plan(factsOf(zeroDisk(limit)), { layout })).not.toThrow();
  });

  it('a geometry that breaks the rules is refused', () => {
    for (const layout of format.layouts) {
      const geometry = format.plan(facts, { layout }) as object;
      for (const wrong of [{ layout: 'round' }, { sizeBytes: 1000 }, { sizeBytes: 2 ** 60 }, { sizeBytes: -512 }]) {
        expect(() => format.synthesize({ ...geometry, ...wrong } as unknown as Geometry, 'vm.x')).toThrow(FormatError);
      }
      for (const field of unitFields) {
        if (!(field in geometry)) continue;
        const wrong = field === 'allocation' ? '!!!' : 12_345;
        expect(() => format.synthesize({ ...geometry, [field]: wrong } as unknown as Geometry, 'vm.x')).toThrow(
          FormatError,
        );
      }
    }
  });
});
