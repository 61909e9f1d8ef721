/** Compressed clusters of qcow2: raw deflate, or one zstd frame. */
import { inflateRawSync, zstdDecompressSync } from 'node:zlib';
import { LRUCache } from 'lru-cache';
import { FormatError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { Disk } from '../../disk/disk.ts';
import { checkInside, readInside } from '../reader.ts';

export type Compression = 'deflate' | 'zstd';

/** Clusters that were decompressed and may be asked for again. */
const cacheBytes = 16 * MiB;

export class CompressedClusters {
  readonly #file: Disk;
  readonly #compression: Compression;
  readonly #clusterBytes: number;
  readonly #cache: LRUCache<number, Uint8Array>;

  constructor(file: Disk, compression: Compression, clusterBytes: number) {
    this.#file = file;
    this.#compression = compression;
    this.#clusterBytes = clusterBytes;
    this.#cache = new LRUCache({ maxSize: cacheBytes, sizeCalculation: (cluster) => cluster.length });
  }

  /**
   * The bytes of the cluster that is stored at `offset` in at most `lengthBytes`. The caller must not change them.
   * @throws FormatError when they do not decompress to exactly one cluster
   */
  cluster(offset: number, lengthBytes: number): Uint8Array {
    const known = this.#cache.get(offset);
    if (known !== undefined) return known;
    checkInside(this.#file, 'qcow2', 'compressed cluster', offset, 1);
    // The length counts whole sectors; the file may end inside the last of them.
    const storedBytes = Math.min(lengthBytes, this.#file.sizeBytes - offset);
    const stored = readInside(this.#file, 'qcow2', 'compressed cluster', offset, storedBytes);
    const cluster = this.#decompress(stored, offset);
    if (cluster.length !== this.#clusterBytes) {
      throw new FormatError('qcow2', 'compressed cluster', offset, `decompresses to ${cluster.length} bytes`);
    }
    this.#cache.set(offset, cluster);
    return cluster;
  }

  #decompress(stored: Uint8Array, offset: number): Uint8Array {
    const options = { maxOutputLength: this.#clusterBytes };
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
