/** Disks with seeded contents, sparse, so that size costs nothing. */
import { createHash } from 'node:crypto';
import { alignDown } from '../../../src/base/ranges.ts';
import { GiB, KiB, MiB } from '../../../src/base/units.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { patchedDisk, type Patch } from '../../../src/disk/patched.ts';
import { zeroDisk } from '../../../src/disk/zero.ts';
import type { DiskFacts } from '../../../src/native/format.ts';
import { SegmentMap } from '../../../src/native/segment-map.ts';
import { Seeded } from '../../seeded.ts';
import { factsOf as factsOfSmallSectors, materialize } from '../golden.ts';

const copyBytes = 4 * MiB;

/** Pseudo-random bytes, the same for the same seed. */
export function seededBytes(seed: string, length: number): Buffer {
  return new Seeded(seed).bytes(length);
}

/** A generator of whole numbers below a bound, the same for the same seed. */
export function seededNumbers(seed: string): (below: number) => number {
  const random = new Seeded(seed);
  return (below) => random.below(below);
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
    ...factsOfSmallSectors(disk),
    logicalSectorBytes: sectors.logical ?? 512,
    physicalSectorBytes: sectors.physical ?? 4096,
  };
}

/** Writes the disk itself, raw; what is known to be zero stays a hole. */
export function writeRawFile(filePath: string, disk: Disk): void {
  materialize(new SegmentMap([{ kind: 'disk', diskOffset: 0, lengthBytes: disk.sizeBytes }]), disk, filePath);
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
