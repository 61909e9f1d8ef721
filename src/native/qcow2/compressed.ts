/** Compressed clusters of qcow2: raw deflate, or one zstd frame. */
import { inflateRawSync, zstdDecompressSync } from 'node:zlib';
import { FormatError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import { inflatedAtOnce, PackedUnits } from '../packed-units.ts';
import { checkInside } from '../reader.ts';

export type Compression = 'deflate' | 'zstd';

export class CompressedClusters {
  readonly #file: Disk;
  readonly #compression: Compression;
  readonly #clusterBytes: number;
  readonly #units: PackedUnits;

  constructor(file: Disk, compression: Compression, clusterBytes: number) {
    this.#file = file;
    this.#compression = compression;
    this.#clusterBytes = clusterBytes;
    this.#units = new PackedUnits(file);
  }

  /**
   * Fills target from byte `within` of the cluster that is stored at `offset` in at most `lengthBytes`.
   * @throws FormatError when the cluster does not decompress to exactly one
   */
  read(target: Uint8Array, within: number, offset: number, lengthBytes: number): void {
    this.#units.read(target, within, offset, () => this.#unpack(offset, lengthBytes));
  }

  #unpack(offset: number, lengthBytes: number): Uint8Array {
    checkInside(this.#file, 'qcow2', 'compressed cluster', offset, 1);
    // The length counts whole sectors; the file may end inside the last of them.
    const storedBytes = Math.min(lengthBytes, this.#file.sizeBytes - offset);
    const cluster = this.#decompress(this.#units.stored(offset, storedBytes), offset);
    if (cluster.length !== this.#clusterBytes)
      throw new FormatError('qcow2', 'compressed cluster', offset, `decompresses to ${cluster.length} bytes`);
    return cluster;
  }

  #decompress(stored: Uint8Array, offset: number): Uint8Array {
    const options = inflatedAtOnce(this.#clusterBytes);
    try {
      if (this.#compression === 'deflate') return inflateRawSync(stored, options);
      return zstdDecompressSync(stored.subarray(0, zstdFrameBytes(stored)), options);
    } catch (error) {
      throw new FormatError('qcow2', 'compressed cluster', offset, 'does not decompress', { cause: error });
    }
  }
}

/**
 * The length of the zstd frame at the start of the bytes (RFC 8878, 3.1.1): behind it, in the same sector, the next cluster begins.
 * All of the bytes when they end before the frame does.
 */
export function zstdFrameBytes(bytes: Uint8Array): number {
  const at = (index: number): number => bytes[index] ?? 0;
  const descriptor = at(4);
  const singleSegment = (descriptor & 0x20) !== 0;
  const contentSizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  let end = 5 + (singleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes;
  for (let last = false; !last && end < bytes.length;) {
    const blockHeader = at(end) + at(end + 1) * 256 + at(end + 2) * 65_536;
    last = (blockHeader & 1) !== 0;
    const isRepeatedByte = ((blockHeader >> 1) & 3) === 1;
    end += 3 + (isRepeatedByte ? 1 : blockHeader >> 3);
  }
  if ((descriptor & 4) !== 0) end += 4; // checksum
  return Math.min(end, bytes.length);
}
