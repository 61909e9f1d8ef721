/**
 * Which payload blocks (grains, clusters) of a growing native format hold data, as runs in guest order.
 *
 * It is written into the plugin file (a bitmap, zstd, base64), so that tables can be made with no image open.
 */
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { firstIndex } from '../base/search.ts';
import { CapacityError, FormatError } from '../base/errors.ts';
import type { Disk } from '../disk/disk.ts';

/** Neighbouring allocated units. `rank` is the number of allocated units before the run. */
export interface AllocatedRun {
  readonly firstUnit: number;
  readonly unitCount: number;
  readonly rank: number;
}

/** More runs than this make a map too fragmented to keep in a plugin file and in memory. */
export const maxAllocatedRuns = 65_536;
/** A bitmap has at most this many bytes: 64 TiB in units of 1 MiB. */
const maxBitmapBytes = 8 * 1024 * 1024;
/** The encoded text leaves room in a plugin file of 64 KiB. */
const maxEncodedChars = 56 * 1024;

/** The units of `unitBytes` in which the disk may hold data. Reads no data. */
export function allocatedRuns(disk: Disk, unitBytes: number): AllocatedRun[] {
  const runs: { firstUnit: number; unitCount: number; rank: number }[] = [];
  let allocated = 0;
  for (const extent of disk.extents(0, disk.sizeBytes)) {
    if (extent.kind !== 'data') continue;
    const last = runs.at(-1);
    const next = last === undefined ? 0 : last.firstUnit + last.unitCount;
    const first = Math.max(Math.floor(extent.offset / unitBytes), next);
    const count = Math.ceil((extent.offset + extent.length) / unitBytes) - first;
    if (count <= 0) continue;
    if (last !== undefined && first === next) last.unitCount += count;
    else runs.push({ firstUnit: first, unitCount: count, rank: allocated });
    allocated += count;
    if (runs.length > maxAllocatedRuns) throw tooFragmented();
  }
  return runs;
}

/** Number of allocated units in all. */
export function allocatedCount(runs: readonly AllocatedRun[]): number {
  const last = runs.at(-1);
  return last === undefined ? 0 : last.rank + last.unitCount;
}

/**
 * The allocated run that holds `unit`, or the first behind it; undefined past the last.
 */
export function runAtOrAfter(runs: readonly AllocatedRun[], unit: number): AllocatedRun | undefined {
  const index = firstIndex(runs.length, (at) => {
    const run = runs[at];
    return run !== undefined && run.firstUnit + run.unitCount > unit;
  });
  return runs[index];
}

/** @throws CapacityError when the text would not fit a plugin file. */
export function encodeRuns(runs: readonly AllocatedRun[], unitCount: number): string {
  const bitmap = new Uint8Array(Math.ceil(unitCount / 8));
  for (const run of runs) {
    for (let unit = run.firstUnit; unit < run.firstUnit + run.unitCount; unit++) {
      const byte = Math.floor(unit / 8);
      bitmap[byte] = (bitmap[byte] ?? 0) | (1 << (unit % 8));
    }
  }
  const encoded = zstdCompressSync(bitmap).toString('base64');
  if (encoded.length > maxEncodedChars) throw tooFragmented();
  return encoded;
}

/** @throws FormatError when the text is not a bitmap of exactly that many units. */
export function decodeRuns(encoded: string, unitCount: number): AllocatedRun[] {
  const bitmap = inflate(encoded, Math.ceil(unitCount / 8));
  const runs: { firstUnit: number; unitCount: number; rank: number }[] = [];
  let allocated = 0;
  for (let unit = 0; unit < bitmap.length * 8; unit++) {
    const byte = bitmap[Math.floor(unit / 8)] ?? 0;
    if (byte === 0 && unit % 8 === 0) {
      unit += 7;
      continue;
    }
    if ((byte & (1 << (unit % 8))) === 0) continue;
    if (unit >= unitCount)
      throw new FormatError('allocation map', 'bitmap', Math.floor(unit / 8), 'a bit past the end is set');
    const last = runs.at(-1);
    if (last !== undefined && last.firstUnit + last.unitCount === unit) last.unitCount++;
    else runs.push({ firstUnit: unit, unitCount: 1, rank: allocated });
    allocated++;
    if (runs.length > maxAllocatedRuns) throw tooFragmented();
  }
  return runs;
}

function inflate(encoded: string, lengthBytes: number): Uint8Array {
  if (lengthBytes > maxBitmapBytes) {
    throw new FormatError(
      'allocation map',
      'length',
      0,
      `${lengthBytes} bytes is more than the limit of ${maxBitmapBytes}`,
    );
  }
  let bitmap: Buffer;
  try {
    bitmap = zstdDecompressSync(Buffer.from(encoded, 'base64'), { maxOutputLength: Math.max(lengthBytes, 1) });
  } catch (error) {
    throw new FormatError('allocation map', 'bitmap', 0, 'does not decompress', { cause: error });
  }
  if (bitmap.length !== lengthBytes) {
    throw new FormatError('allocation map', 'length', 0, `${bitmap.length} bytes where ${lengthBytes} belong`);
  }
  return bitmap;
}

function tooFragmented(): CapacityError {
  return new CapacityError(
    'the data is too scattered for a growing layout of this unit size; use --layout fixed or larger payload blocks',
  );
}
