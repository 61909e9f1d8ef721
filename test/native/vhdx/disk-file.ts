/** Disks with seeded contents, and native files written out for foreign readers. Everything sparse, so that size costs nothing. */
import { createCipheriv, createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { alignDown } from '../../../src/base/ranges.ts';
import { GiB, KiB, MiB } from '../../../src/base/units.ts';
import type { Disk, Extent } from '../../../src/disk/disk.ts';
import { patchedDisk, type Patch } from '../../../src/disk/patched.ts';
import { zeroDisk } from '../../../src/disk/zero.ts';
import { allocatedRuns } from '../../../src/native/allocation.ts';
import type { DiskFacts } from '../../../src/native/format.ts';
import type { SegmentMap } from '../../../src/native/segment-map.ts';

const copyBytes = 4 * MiB;

/** Pseudo-random bytes, the same for the same seed. */
export function seededBytes(seed: string, length: number): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

/** A generator of whole numbers below a bound, the same for the same seed. */
export function seededNumbers(seed: string): (below: number) => number {
  const key = createHash('sha256').update(seed).digest();
  const stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  return (below) => Number(stream.update(Buffer.alloc(8)).readBigUInt64LE() % BigInt(below));
}

/** Where a seeded disk has data: its ends, and the boundaries of payload blocks of 1 and of 32 MiB and of a chunk; zeros nearly everywhere. */
export function seededPlaces(sizeBytes: number, seed: string): Array<{ offset: number; length: number }> {
  const number = seededNumbers(`${seed} places`);
  const wanted = [
    { offset: 0, length: 512 },
    { offset: MiB - 1024, length: 2048 },
    { offset: 32 * MiB - 512, length: 1024 },
    { offset: 64 * MiB, length: 64 * KiB },
    // Behind the first chunk, where the first sector bitmap entry of the BAT has passed.
    { offset: 4 * GiB - 512, length: 64 * KiB },
    { offset: sizeBytes - 512, length: 512 },
  ];
  for (let count = 0; count < 6; count++) {
    wanted.push({ offset: alignDown(number(sizeBytes), 512), length: 512 * (1 + number(256)) });
  }
  const places: Array<{ offset: number; length: number }> = [];
  let end = 0;
  for (const place of wanted.sort((a, b) => a.offset - b.offset)) {
    const offset = Math.max(place.offset, end);
    const length = Math.min(place.offset + place.length, sizeBytes) - offset;
    if (length <= 0) continue;
    places.push({ offset, length });
    end = offset + length;
  }
  return places;
}

/** A disk of zeros with seeded data at `seededPlaces`; its extents tell exactly where. */
export function seededDisk(sizeBytes: number, seed: string): Disk {
  const patches: Patch[] = seededPlaces(sizeBytes, seed).map(({ offset, length }) => ({
    offset,
    bytes: seededBytes(`${seed} ${offset}`, length),
  }));
  return patchedDisk(zeroDisk(sizeBytes), patches);
}

/** What a format's `plan` may know of a disk. */
export function factsOf(disk: Disk, sectors: { logical?: number; physical?: number } = {}): DiskFacts {
  return {
    sizeBytes: disk.sizeBytes,
    logicalSectorBytes: sectors.logical ?? 512,
    physicalSectorBytes: sectors.physical ?? 4096,
    identity: '6f2f1a0e-55d5-4c7b-9b0e-0d9f0f6f6a01',
    allocatedRuns: (unitBytes) => allocatedRuns(disk, unitBytes),
  };
}

/** Writes the native file of `map` over `disk`; what is known to be zero stays a hole. */
export function writeNativeFile(filePath: string, map: SegmentMap, disk: Disk): void {
  writeSparse(
    filePath,
    map.sizeBytes,
    map.extents(0, map.sizeBytes, () => disk),
    (target, offset) => map.read(target, offset, () => disk),
  );
}

/** Writes the disk itself, raw. */
export function writeRawFile(filePath: string, disk: Disk): void {
  writeSparse(filePath, disk.sizeBytes, disk.extents(0, disk.sizeBytes), (target, offset) => disk.read(target, offset));
}

function writeSparse(
  filePath: string,
  sizeBytes: number,
  extents: Iterable<Extent>,
  read: (target: Uint8Array, offset: number) => void,
): void {
  const fd = fs.openSync(filePath, 'w');
  try {
    fs.ftruncateSync(fd, sizeBytes);
    for (const extent of extents) {
      if (extent.kind === 'zero') continue;
      for (let done = 0; done < extent.length; done += copyBytes) {
        const piece = Buffer.alloc(Math.min(copyBytes, extent.length - done));
        read(piece, extent.offset + done);
        fs.writeSync(fd, piece, 0, piece.length, extent.offset + done);
      }
    }
  } finally {
    fs.closeSync(fd);
  }
}

/** A folder for one suite's files, under the system's temporary folder; give it back with `removeFolder` in afterAll. */
export function makeFolder(): string {
  return fs.mkdtempSync(path.join(os.tmpdir(), 'veneer-vhdx-'));
}

export function removeFolder(folder: string): void {
  if (folder !== '') fs.rmSync(folder, { recursive: true, force: true });
}

/** SHA-256 of all of a disk, in hexadecimal. */
export function sha256OfDisk(disk: Disk): string {
  const hash = createHash('sha256');
  for (let at = 0; at < disk.sizeBytes; at += copyBytes) {
    const piece = Buffer.alloc(Math.min(copyBytes, disk.sizeBytes - at));
    disk.read(piece, at);
    hash.update(piece);
  }
  return hash.digest('hex');
}
