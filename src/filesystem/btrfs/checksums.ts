/** The checksums that btrfs keeps of its nodes and of data. */
import { createHash } from 'node:crypto';
import { IntegrityError, UnsupportedError } from '../../base/errors.ts';
import { crc32c } from '../../bytes/checksum.ts';
import { checksumBytes, checksumTypes } from './layout.ts';

export interface Checksum {
  readonly sizeBytes: number;
  of(bytes: Uint8Array): Uint8Array;
}

/** @throws UnsupportedError for those that Node does not have */
export function checksumOf(type: number): Checksum {
  const found = checksumTypes[type];
  if (found === undefined) {
    const name = ['crc32c', 'xxhash', 'sha256', 'blake2b'][type] ?? `kind ${type}`;
    throw new UnsupportedError(
      `btrfs: checksums by ${name} are not read; of those there are, crc32c (the default) and sha256 are`,
    );
  }
  if (found.name === 'sha256') return { sizeBytes: 32, of: (bytes) => createHash('sha256').update(bytes).digest() };
  return {
    sizeBytes: 4,
    of(bytes) {
      const made = new Uint8Array(4);
      new DataView(made.buffer).setUint32(0, crc32c(bytes), true);
      return made;
    },
  };
}

/** The checksum of a super block or node stands in its first 32 bytes and covers the rest. @throws IntegrityError */
export function checkBlock(block: Uint8Array, checksum: Checksum, what: string): void {
  const stored = Buffer.from(block.subarray(0, checksum.sizeBytes)).toString('hex');
  const actual = Buffer.from(checksum.of(block.subarray(checksumBytes))).toString('hex');
  if (stored !== actual) throw new IntegrityError(what, stored, actual);
}

/** Writes a block's checksum into it. */
export function sealBlock(block: Uint8Array, checksum: Checksum): void {
  block.set(checksum.of(block.subarray(checksumBytes)));
}
