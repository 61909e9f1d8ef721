/**
 * A file whose SHA-256 is known, as a disk. All of it is hashed once, a piece at a time, and a sum of each page is remembered: a read holds
 * its pages against those. So no byte is returned that was not among those hashed, and nothing of the file stays in memory.
 */
import { createHash } from 'node:crypto';
import * as fs from '../base/fs.ts';
import { IntegrityError } from '../base/errors.ts';
import { readFully } from '../base/full-io.ts';
import { KiB, MiB } from '../base/units.ts';
import { checkRange, type Disk } from './disk.ts';

const pageBytes = 16 * KiB;
/** Of a page's SHA-256: for each GiB of file 1 MiB is remembered. */
const sumBytes = 16;
const pieceBytes = MiB;

/**
 * @param fd of the file, owned by the disk from now on, also when this throws
 * @param sha256 in hex
 * @param name for errors
 * @throws IntegrityError when the file is another; UnavailableError when it is shorter, or cannot be read
 */
export function openVerified(fd: number, sizeBytes: number, sha256: string, name: string): Disk {
  try {
    const sums = new Uint8Array(Math.ceil(sizeBytes / pageBytes) * sumBytes);
    const actual = hashPages(fd, sizeBytes, sums, name);
    if (actual !== sha256) throw new IntegrityError(name, sha256, actual);
    return verifiedDisk(fd, sizeBytes, sums, name);
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

function hashPages(fd: number, sizeBytes: number, sums: Uint8Array, name: string): string {
  const whole = createHash('sha256');
  const piece = new Uint8Array(pieceBytes);
  for (let at = 0; at < sizeBytes; at += pieceBytes) {
    const bytes = piece.subarray(0, Math.min(pieceBytes, sizeBytes - at));
    readFully(fd, bytes, at, name);
    whole.update(bytes);
    for (let within = 0; within < bytes.length; within += pageBytes)
      sums.set(sumOf(bytes.subarray(within, within + pageBytes)), ((at + within) / pageBytes) * sumBytes);
  }
  return whole.digest('hex');
}

function verifiedDisk(fd: number, sizeBytes: number, sums: Uint8Array, name: string): Disk {
  const buffer = new Uint8Array(pageBytes);
  let held: number | undefined;
  let isOpen = true;

  const page = (number: number): Uint8Array => {
    const at = number * pageBytes;
    const bytes = buffer.subarray(0, Math.min(pageBytes, sizeBytes - at));
    if (number === held) return bytes;
    held = undefined;
    readFully(fd, bytes, at, name);
    const [expected, actual] = [sums.subarray(number * sumBytes, (number + 1) * sumBytes), sumOf(bytes)];
    if (!actual.equals(expected))
      throw new IntegrityError(`${name}: was changed while it was in use`, hex(expected), hex(actual));
    held = number;
    return bytes;
  };

  const disk: Disk = {
    sizeBytes,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      for (let done = 0; done < target.length;) {
        const within = (offset + done) % pageBytes;
        const part = page((offset + done - within) / pageBytes).subarray(within, within + target.length - done);
        target.set(part, done);
        done += part.length;
      }
    },
    extents(offset, length) {
      checkRange(disk, offset, length);
      return length > 0 ? [{ offset, length, kind: 'data' }] : [];
    },
    close() {
      if (isOpen) fs.closeSync(fd);
      isOpen = false;
    },
  };
  return disk;
}

function sumOf(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest().subarray(0, sumBytes);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
