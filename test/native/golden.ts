/** Disks with seeded contents as sparse raw files, and native files written out from their segment maps. */
import fs from 'node:fs';
import { writeFully } from '../../src/base/full-io.ts';
import { MiB } from '../../src/base/units.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { patchedDisk } from '../../src/disk/patched.ts';
import { zeroDisk } from '../../src/disk/zero.ts';
import { allocatedRuns } from '../../src/native/allocation.ts';
import type { DiskFacts, NativeFormat } from '../../src/native/format.ts';
import type { Geometry } from '../../src/native/formats.ts';
import type { SegmentMap } from '../../src/native/segment-map.ts';
import { ModelDisk } from '../disk/model-disk.ts';
import { Seeded } from '../seeded.ts';

/**
 * Writes a sparse raw disk: data in the first and last sectors, over the borders of units of 64 KiB, 1 MiB and 2 MiB, and at places
 * all over it. Returns an account of them.
 */
export function writeGolden(file: string, sizeBytes: number, random: Seeded): ModelDisk {
  const model = new ModelDisk(sizeBytes);
  const fd = fs.openSync(file, 'w');
  try {
    fs.ftruncateSync(fd, sizeBytes);
    const place = (offset: number, lengthBytes: number): void => {
      const from = Math.max(0, offset - (offset % 512));
      const length = Math.min(lengthBytes, sizeBytes - from);
      const bytes = random.bytes(length);
      writeFully(fd, bytes, from, file);
      model.write(from, bytes);
    };
    place(0, 1024);
    place(sizeBytes - 1024, 1024);
    for (const unit of [64 * 1024, MiB, 2 * MiB]) {
      const border = unit * Math.ceil(random.below(sizeBytes) / unit);
      place(Math.min(border, sizeBytes) - 2048, 4096);
    }
    for (let count = 0; count < 24; count++) place(random.below(sizeBytes), 512 * random.between(1, 300));
  } finally {
    fs.closeSync(fd);
  }
  return model;
}

/** What `plan` asks of a disk. */
export function factsOf(disk: Disk): DiskFacts {
  return {
    sizeBytes: disk.sizeBytes,
    logicalSectorBytes: 512,
    physicalSectorBytes: 4096,
    identity: '3f1d54c6-08f1-4c07-9c0e-7d2a6f0a51b4',
    allocatedRuns: (unitBytes) => allocatedRuns(disk, unitBytes),
  };
}

/** Writes all that a segment map says into a file; zeros become holes. */
export function materialize(map: SegmentMap, disk: Disk, file: string): void {
  const fd = fs.openSync(file, 'w');
  try {
    fs.ftruncateSync(fd, map.sizeBytes);
    const pieceBytes = 256 * 1024;
    const zeros = Buffer.alloc(pieceBytes);
    const piece = Buffer.alloc(pieceBytes);
    for (const extent of map.extents(0, map.sizeBytes, () => disk)) {
      if (extent.kind === 'zero') continue;
      for (let done = 0; done < extent.length; done += pieceBytes) {
        const part = piece.subarray(0, Math.min(pieceBytes, extent.length - done));
        map.read(part, extent.offset + done, () => disk);
        if (part.equals(zeros.subarray(0, part.length))) continue;
        writeFully(fd, part, extent.offset + done, file);
      }
    }
  } finally {
    fs.closeSync(fd);
  }
}

/** Reads a range of a file that another program or `materialize` wrote. */
export function readRange(file: string, offset: number, lengthBytes: number): Buffer {
  const fd = fs.openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(lengthBytes);
    const count = fs.readSync(fd, bytes, 0, lengthBytes, offset);
    return bytes.subarray(0, count);
  } finally {
    fs.closeSync(fd);
  }
}

/** A disk of which every unit holds data once in `count` times, scattered so that its map hardly compresses. */
export function scatteredFacts(sizeBytes: number, unitBytes: number, count: number): DiskFacts {
  const disk: Disk = {
    ...zeroDisk(sizeBytes),
    *extents() {
      const random = new Seeded('scattered');
      for (let offset = 0; offset < sizeBytes; offset += unitBytes) {
        const length = Math.min(unitBytes, sizeBytes - offset);
        yield { offset, length, kind: random.oneIn(count) ? 'data' : 'zero' };
      }
    },
  };
  return factsOf(disk);
}

/** A disk of 3 MiB in memory with data at its start, inside and at its end. */
export function tinyDisk(): Disk {
  const random = new Seeded('tiny');
  const sizeBytes = 3 * MiB;
  return patchedDisk(zeroDisk(sizeBytes), [
    { offset: 0, bytes: random.bytes(5000) },
    { offset: MiB - 1000, bytes: random.bytes(2000) },
    { offset: sizeBytes - 512, bytes: random.bytes(512) },
  ]);
}

/** The file that a format makes of a small disk, with `layout`; of several files the first. */
export function wholeFile(format: NativeFormat<Geometry>, layout: string, disk: Disk): Buffer {
  const [file] = format.synthesize(format.plan(factsOf(disk), { layout }), 'vm.x');
  if (file === undefined) throw new Error(`${format.name} made no file`);
  const bytes = Buffer.alloc(file.map.sizeBytes);
  file.map.read(bytes, 0, () => disk);
  return bytes;
}
