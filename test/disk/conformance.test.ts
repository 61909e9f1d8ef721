import fs from 'node:fs';
import { describe, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { overlayRanges } from '../../src/backup/write/changed-ranges.ts';
import { mergeRanges } from '../../src/disk/byte-ranges.ts';
import { concatDisks } from '../../src/disk/concat.ts';
import { denseDisk } from '../../src/disk/dense.ts';
import { checkRange, type Disk } from '../../src/disk/disk.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { memoryDisk } from '../../src/disk/memory.ts';
import { patchedDisk } from '../../src/disk/patched.ts';
import { placeDisks } from '../../src/disk/placed.ts';
import { sliceDisk } from '../../src/disk/slice.ts';
import { zeroDisk } from '../../src/disk/zero.ts';
import { piecesDisk } from '../../src/filesystem/pieces.ts';
import { SegmentMap, type Segment } from '../../src/native/segment-map.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { conformsToDisk, type Specimen } from './conformance.ts';
import { attachLoopDevice, whyNoLoopDevices } from './loop-device.ts';
import { ModelDisk } from './model-disk.ts';

conformsToDisk('a memory disk', () => memorySpecimen('memory', 300 * KiB + 17));

conformsToDisk('a memory disk of one byte', () => memorySpecimen('one byte', 1));

conformsToDisk('a zero disk', () => ({
  disk: zeroDisk(5 * MiB + 511),
  model: new ModelDisk(5 * MiB + 511),
  boundaries: [4 * MiB],
}));

conformsToDisk('a zero disk of 64 TiB', () => {
  const sizeBytes = 64 * 1024 * 1024 * MiB;
  return { disk: zeroDisk(sizeBytes), model: new ModelDisk(sizeBytes), boundaries: [2 ** 31, 2 ** 32, 2 ** 42] };
});

conformsToDisk('a sparse file', () => {
  const folder = new TempFolder();
  const { path, model, boundaries } = sparseFile(folder, 'sparse file');
  return { disk: openFileDisk(path), model, boundaries, remove: () => folder.remove() };
});

conformsToDisk('a file that is one hole', () => {
  const folder = new TempFolder();
  const path = folder.write('hole.raw', '');
  fs.truncateSync(path, 3 * MiB + 1);
  return {
    disk: openFileDisk(path),
    model: new ModelDisk(3 * MiB + 1),
    boundaries: [MiB],
    remove: () => folder.remove(),
  };
});

conformsToDisk('a file in pieces on a volume', () => {
  const random = new Seeded('a file in pieces');
  const volume = random.bytes(MiB);
  const sizeBytes = 600 * KiB + 5;
  const model = new ModelDisk(sizeBytes);
  const pieces = [
    { fileOffset: 0, volumeOffset: 512 * KiB, lengthBytes: 64 * KiB },
    { fileOffset: 64 * KiB, volumeOffset: 8 * KiB, lengthBytes: 4 * KiB },
    { fileOffset: 200 * KiB + 1, volumeOffset: 100 * KiB, lengthBytes: 77 * KiB + 3 },
    { fileOffset: 500 * KiB, volumeOffset: 700 * KiB, lengthBytes: 50 * KiB },
  ];
  for (const { fileOffset, volumeOffset, lengthBytes } of pieces)
    model.write(fileOffset, volume.subarray(volumeOffset, volumeOffset + lengthBytes));
  const boundaries = pieces.flatMap(({ fileOffset, lengthBytes }) => [fileOffset, fileOffset + lengthBytes]);
  return { disk: piecesDisk(memoryDisk(volume), sizeBytes, pieces), model, boundaries };
});

conformsToDisk('a dense file', () => {
  const folder = new TempFolder();
  const contents = new Seeded('dense file').bytes(2 * MiB + 513);
  return {
    disk: openFileDisk(folder.write('dense.raw', contents)),
    model: ModelDisk.of(contents),
    boundaries: [512, 4 * KiB, MiB, 2 * MiB],
    remove: () => folder.remove(),
  };
});

const noLoopDevices = whyNoLoopDevices();
if (noLoopDevices === undefined) {
  conformsToDisk('a block device', () => {
    const folder = new TempFolder();
    const { path, model, boundaries } = sparseFile(folder, 'block device');
    // A block device is whole sectors.
    const sizeBytes = model.sizeBytes - (model.sizeBytes % 512);
    model.resize(sizeBytes);
    fs.truncateSync(path, sizeBytes);
    const device = attachLoopDevice(path);
    const remove = (): void => {
      device.detach();
      folder.remove();
    };
    return { disk: openFileDisk(device.path), model, boundaries: shifted(boundaries, 0, sizeBytes), remove };
  });
} else {
  describe('a block device', () => {
    it('needs a loop device', (ctx) => ctx.skip(noLoopDevices));
  });
}

conformsToDisk('a slice', () => {
  const below = patchedSpecimen('slice');
  const start = 100 * KiB + 3;
  const sizeBytes = below.disk.sizeBytes - start - 5000;
  return {
    disk: sliceDisk(below.disk, start, sizeBytes),
    model: ModelDisk.of(below.model.read(start, sizeBytes)),
    boundaries: shifted(below.boundaries, -start, sizeBytes),
  };
});

conformsToDisk('a slice of a slice that is the whole disk', () => {
  const below = patchedSpecimen('slice of slice');
  const whole = sliceDisk(sliceDisk(below.disk, 0, below.disk.sizeBytes), 0, below.disk.sizeBytes);
  return { ...below, disk: whole };
});

conformsToDisk('disks one behind the other, some of them empty', () => {
  const folder = new TempFolder();
  const file = sparseFile(folder, 'concat');
  const first = memorySpecimen('concat first', 63 * 512);
  const third = patchedSpecimen('concat third');
  const parts: Array<{ disk: Disk; model: ModelDisk; boundaries?: readonly number[] }> = [
    { disk: zeroDisk(0), model: new ModelDisk(0) },
    first,
    { disk: zeroDisk(70 * KiB), model: new ModelDisk(70 * KiB) },
    { disk: zeroDisk(512), model: new ModelDisk(512) },
    { disk: memoryDisk(new Uint8Array(0)), model: new ModelDisk(0) },
    { disk: openFileDisk(file.path), ...file },
    third,
    memorySpecimen('concat last', 1),
  ];
  const model = new ModelDisk(parts.reduce((sum, part) => sum + part.model.sizeBytes, 0));
  const boundaries: number[] = [];
  let start = 0;
  for (const part of parts) {
    model.write(start, part.model.read(0, part.model.sizeBytes));
    boundaries.push(start, ...shifted(part.boundaries ?? [], start, model.sizeBytes));
    start += part.model.sizeBytes;
  }
  const disk = concatDisks(parts.map((part) => part.disk));
  return { disk, model, boundaries, remove: () => folder.remove() };
});

conformsToDisk('disks placed with gaps before, between and behind them, one of them dense', () => {
  const first = patchedSpecimen('placed first');
  const second = memorySpecimen('placed second', 4097);
  const sizeBytes = first.disk.sizeBytes + 300 * KiB;
  const model = new ModelDisk(sizeBytes);
  model.write(63 * 512, first.model.read(0, first.model.sizeBytes));
  const behind = 63 * 512 + first.model.sizeBytes;
  model.write(behind + 999, second.model.read(0, 4097));
  return {
    disk: placeDisks(sizeBytes, [
      { offset: behind + 999, disk: second.disk },
      { offset: 63 * 512, disk: denseDisk(first.disk) },
      { offset: behind + 200_000, disk: denseDisk(zeroDisk(10_000)) },
    ]),
    model,
    boundaries: [63 * 512, behind, behind + 999, behind + 999 + 4097, behind + 200_000, behind + 210_000],
  };
});

conformsToDisk('a patched disk', () => patchedSpecimen('patched'));

conformsToDisk('a patched disk whose patches touch and cover all of it', () => {
  const contents = new Seeded('covered').bytes(9000);
  const patches = [4096, 0, 512, 8999].map((offset, index) => {
    const end = [8999, 512, 4096, 9000][index] ?? 0;
    return { offset, bytes: contents.subarray(offset, end) };
  });
  return {
    disk: patchedDisk(zeroDisk(9000), patches),
    model: ModelDisk.of(contents),
    boundaries: [512, 4096, 8999],
  };
});

for (const [title, beforeBytes] of [
  ['ranges of a disk over a shorter one', 700 * KiB + 100],
  ['ranges of a disk over a longer one', 3 * MiB],
] as const) {
  conformsToDisk(title, () => {
    const random = new Seeded(title);
    const before = patchedSpecimen(`${title} before`, beforeBytes);
    const current = patchedSpecimen(`${title} current`, 1100 * KiB + 33);
    const { sizeBytes } = current.disk;
    const ranges = Array.from({ length: 12 }, () => ({
      offset: random.below(sizeBytes),
      length: random.below(40_000),
    }));
    // One that touches another, and one that passes the end of the disk.
    ranges.push({ offset: sizeBytes - 100, length: 5000 }, { offset: 0, length: 1 }, { offset: 1, length: 4095 });
    const model = new ModelDisk(sizeBytes);
    model.write(0, before.model.read(0, Math.min(beforeBytes, sizeBytes)));
    for (const { offset, length } of ranges) {
      model.write(offset, current.model.read(offset, Math.min(length, sizeBytes - offset)));
    }
    return {
      disk: overlayRanges(before.disk, current.disk, mergeRanges(ranges)),
      model,
      boundaries: ranges.flatMap(({ offset, length }) => [offset, Math.min(offset + length, sizeBytes)]),
    };
  });
}

conformsToDisk('a segment map', () => {
  const random = new Seeded('segment map');
  const below = patchedSpecimen('segment map disk');
  const table = random.bytes(200 * KiB);
  const header = random.bytes(4097);
  const segments: Segment[] = [
    { kind: 'bytes', bytes: header },
    { kind: 'zeros', lengthBytes: 0 },
    { kind: 'disk', lengthBytes: 300 * KiB, diskOffset: 70_001 },
    {
      kind: 'computed',
      lengthBytes: table.length,
      fill: (target, offset) => target.set(table.subarray(offset, offset + target.length)),
    },
    { kind: 'zeros', lengthBytes: 65 * KiB },
    { kind: 'zeros', lengthBytes: 1 },
    { kind: 'disk', lengthBytes: 70_001, diskOffset: 0 },
    { kind: 'disk', lengthBytes: below.disk.sizeBytes - 400_000, diskOffset: 400_000 },
    { kind: 'bytes', bytes: header.subarray(0, 1) },
  ];
  const pieces = segments.map((segment) => {
    if (segment.kind === 'bytes') return Buffer.from(segment.bytes);
    if (segment.kind === 'zeros') return Buffer.alloc(segment.lengthBytes);
    return segment.kind === 'computed' ? table : below.model.read(segment.diskOffset, segment.lengthBytes);
  });
  const model = ModelDisk.of(Buffer.concat(pieces));
  const ends = pieces.map((_, index) => Buffer.concat(pieces.slice(0, index)).length);
  return { disk: segmentMapDisk(new SegmentMap(segments), below.disk), model, boundaries: ends };
});

/** A native file's segment map, read as the suite reads disks. */
function segmentMapDisk(map: SegmentMap, below: Disk): Disk {
  const disk: Disk = {
    sizeBytes: map.sizeBytes,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      map.read(target, offset, () => below);
    },
    extents(offset, length) {
      checkRange(disk, offset, length);
      return map.extents(offset, length, () => below);
    },
    close: () => below.close(),
  };
  return disk;
}

function memorySpecimen(seed: string, sizeBytes: number): Specimen {
  const contents = new Seeded(seed).bytes(sizeBytes);
  return { disk: memoryDisk(contents), model: ModelDisk.of(contents), boundaries: [Math.floor(sizeBytes / 2)] };
}

/** Zeros with random bytes here and there. */
function patchedSpecimen(seed: string, sizeBytes = 2 * MiB + 700): Specimen {
  const random = new Seeded(seed);
  const model = new ModelDisk(sizeBytes);
  const patches: Array<{ offset: number; bytes: Buffer }> = [];
  for (let at = random.below(5000); at < sizeBytes; at += random.below(300 * KiB)) {
    const bytes = random.bytes(Math.min(random.pick([0, 1, 512, 10_000, 70_000]), sizeBytes - at));
    patches.push({ offset: at, bytes });
    model.write(at, bytes);
    at += bytes.length;
  }
  const boundaries = patches.flatMap(({ offset, bytes }) => [offset, offset + bytes.length]);
  return { disk: patchedDisk(zeroDisk(sizeBytes), patches.reverse()), model, boundaries };
}

/** A file with holes and data of whole pages, and an end in the middle of a sector. */
function sparseFile(folder: TempFolder, seed: string): { path: string; model: ModelDisk; boundaries: number[] } {
  const random = new Seeded(seed);
  const sizeBytes = 4 * MiB + 1111;
  const model = new ModelDisk(sizeBytes);
  const path = folder.write(`${seed}.raw`, '');
  fs.truncateSync(path, sizeBytes);
  const fd = fs.openSync(path, 'r+');
  const boundaries: number[] = [];
  for (const offset of [0, 128 * KiB, 1000 * KiB, 2 * MiB, 4 * MiB]) {
    const bytes = random.bytes(Math.min(random.between(1, 100 * KiB), sizeBytes - offset));
    fs.writeSync(fd, bytes, 0, bytes.length, offset);
    model.write(offset, bytes);
    boundaries.push(offset, offset + bytes.length);
  }
  fs.closeSync(fd);
  return { path, model, boundaries };
}

function shifted(boundaries: readonly number[], by: number, sizeBytes: number): number[] {
  return boundaries.map((boundary) => boundary + by).filter((boundary) => boundary >= 0 && boundary <= sizeBytes);
}
