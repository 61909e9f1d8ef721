/**
 * Writes a disk over a block device, zeros too, and reads it back. What lies behind the disk's end stays.
 *
 * Order: 1. all of it is written; 2. fsync; 3. it is read again, from the device, and compared with what was written. Whatever fails, the device
 * holds a part of the disk, and the error says so.
 */
import * as fs from '../base/fs.ts';
import { CapacityError, IntegrityError, UnavailableError } from '../base/errors.ts';
import { fallocate, fallocateMode } from '../base/fallocate.ts';
import { dropCached, startWriting } from '../base/file-advice.ts';
import { readFully, writeFailure, writeFully } from '../base/full-io.ts';
import { closing } from '../base/ownership.ts';
import { formatBytes, MiB } from '../base/units.ts';
import { crc32c } from '../bytes/checksum.ts';
import { takeDevice } from './block-device.ts';
import type { Disk } from './disk.ts';

const chunkBytes = 4 * MiB;

export interface WrittenOver {
  /** Bytes of data, without zeros. */
  readonly writtenBytes: number;
  /** Bytes of the device behind the disk's end. */
  readonly behindBytes: number;
}

/**
 * @param onProgress bytes written and read back, of both together
 * @throws UsageError when somebody uses the device, CapacityError when it is too small: nothing is written then. UnavailableError,
 *   IntegrityError, and what reading the disk throws
 */
export function writeDiskOver(
  disk: Disk,
  devicePath: string,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): WrittenOver {
  using device = closing(takeDevice(devicePath));
  const { fd, sizeBytes } = device.value;
  if (sizeBytes < disk.sizeBytes)
    throw new CapacityError(
      `${devicePath}: has ${formatBytes(sizeBytes)} (${sizeBytes} bytes), and the disk has ${formatBytes(disk.sizeBytes)} (${disk.sizeBytes} bytes); choose a larger device`,
    );
  const total = 2 * disk.sizeBytes;
  try {
    const sums = new Uint32Array(Math.ceil(disk.sizeBytes / chunkBytes));
    const writtenBytes = writeAll(disk, fd, devicePath, sums, (done) => onProgress(done, total));
    flush(fd, devicePath);
    readBack(disk.sizeBytes, fd, devicePath, sums, (done) => onProgress(disk.sizeBytes + done, total));
    return { writtenBytes, behindBytes: sizeBytes - disk.sizeBytes };
  } catch (error) {
    throw new UnavailableError(`${devicePath}: holds only a part of the disk now, or a wrong one; write it again`, {
      cause: error,
    });
  }
}

function writeAll(
  disk: Disk,
  fd: number,
  name: string,
  sums: Uint32Array,
  onDone: (doneBytes: number) => void,
): number {
  const buffer = new Uint8Array(chunkBytes);
  let writtenBytes = 0;
  for (const [index, { at, length }] of chunks(disk.sizeBytes)) {
    const part = buffer.subarray(0, length);
    let dataBytes = 0;
    for (const extent of disk.extents(at, length)) if (extent.kind === 'data') dataBytes += extent.length;
    if (dataBytes === 0) part.fill(0);
    else disk.read(part, at);
    sums[index] = crc32c(part);
    // Devices that can make zeros by themselves do so, and the system writes them where they cannot.
    if (dataBytes > 0 || fallocate(fd, fallocateMode.zeroRange | fallocateMode.keepSize, at, length) !== 0)
      writeFully(fd, part, at, name);
    startWriting(fd, at, length);
    writtenBytes += dataBytes;
    onDone(at + length);
  }
  return writtenBytes;
}

function flush(fd: number, name: string): void {
  try {
    fs.fsyncSync(fd);
  } catch (error) {
    throw writeFailure(name, 'flush it to the device', error);
  }
}

function readBack(
  sizeBytes: number,
  fd: number,
  name: string,
  sums: Uint32Array,
  onDone: (doneBytes: number) => void,
): void {
  dropCached(fd, 0, sizeBytes);
  const buffer = new Uint8Array(chunkBytes);
  for (const [index, { at, length }] of chunks(sizeBytes)) {
    const part = buffer.subarray(0, length);
    readFully(fd, part, at, name);
    const actual = crc32c(part);
    const expected = sums[index] ?? 0;
    if (actual !== expected) throw new IntegrityError(`${name}: what it gave back at byte ${at}`, expected, actual);
    onDone(at + length);
  }
}

function* chunks(sizeBytes: number): Generator<[index: number, chunk: { at: number; length: number }]> {
  for (let at = 0, index = 0; at < sizeBytes; at += chunkBytes, index++)
    yield [index, { at, length: Math.min(chunkBytes, sizeBytes - at) }];
}
