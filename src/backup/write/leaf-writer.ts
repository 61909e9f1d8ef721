/**
 * Writes the blocks of one leaf after another into an image that is being made: read, compare, compress, seal, store, index.
 *
 * Several threads do this on one file at once: each reserves room for what it is about to write by one atomic addition, so that no two
 * write to the same place and nobody waits. Nothing here makes the file an image: that is the commit's doing.
 */
import { AssertionError } from '../../base/errors.ts';
import { startWriting } from '../../base/file-advice.ts';
import { writeFully } from '../../base/full-io.ts';
import { crc32c } from '../../bytes/checksum.ts';
import type { Disk } from '../../disk/disk.ts';
import { DataCursor } from '../../disk/seek.ts';
import type { ByteRange } from '../../disk/byte-ranges.ts';
import type { BlockSealer } from '../crypto/block-seal.ts';
import { sealOverheadBytes } from '../crypto/seal.ts';
import { compressBlock } from '../format/codec.ts';
import * as format from '../format/layout.ts';
import { statesOf, type LeafStates } from '../format/provenance.ts';
import { nextChange } from './changed-ranges.ts';

/** What the threads of one creation share. */
export interface WriteTarget {
  readonly fd: number;
  readonly name: string;
  /** [0]: the first free byte of the file. */
  readonly nextFree: BigInt64Array;
}

/** What goes into the image. */
export interface LeafSource {
  /** What the guest's disk holds now. */
  readonly disk: Disk;
  /** What the chain holds already; undefined for a full image. */
  readonly parent: Disk | undefined;
  /** Only blocks that these touch are looked at; undefined: all. Sorted, merged. */
  readonly changed: readonly ByteRange[] | undefined;
  readonly blockBytes: number;
  readonly codec: format.Codec;
  readonly sequence: number;
  /** Of an encrypted image. */
  readonly sealer: BlockSealer | undefined;
}

export interface WrittenLeaf {
  readonly leafNumber: number;
  readonly offset: number;
  readonly crc32c: number;
  readonly dataBlocks: number;
  readonly zeroBlocks: number;
  readonly storedBytes: number;
  /** Which of its entries hold what: for the provenance of an encrypted image. */
  readonly states: LeafStates;
}

/** Compression that saves less than this share is not worth inflating later. */
const worthwhileShare = 0.95;

export class LeafWriter {
  readonly #target: WriteTarget;
  readonly #source: LeafSource;
  readonly #disk: DataCursor;
  readonly #parent: DataCursor | undefined;
  readonly #block: Buffer;
  readonly #parentBlock: Buffer;
  readonly #zeros: Buffer;
  readonly #batch: Buffer;
  #batchBytes = 0;
  /** Index in the leaf of each record in the batch. */
  #batchEntries: number[] = [];
  #leaf = new Uint8Array(format.leafBytes);

  constructor(target: WriteTarget, source: LeafSource) {
    this.#target = target;
    this.#source = source;
    this.#disk = new DataCursor(source.disk);
    this.#parent = source.parent === undefined ? undefined : new DataCursor(source.parent);
    this.#block = Buffer.alloc(source.blockBytes);
    this.#parentBlock = Buffer.alloc(source.blockBytes);
    this.#zeros = Buffer.alloc(source.blockBytes);
    this.#batch = Buffer.alloc(
      format.writeBatchBytes + source.blockBytes + format.recordHeaderBytes + format.maxSealOverheadBytes,
    );
  }

  /** The first byte at or after `from` where the image may need a block; the disk's size when there is none. */
  nextOfInterest(from: number): number {
    const { disk, parent, changed } = this.#source;
    if (changed !== undefined) return Math.min(nextChange(changed, from), disk.sizeBytes);
    const next = this.#disk.next(from);
    if (this.#parent === undefined || parent === undefined || from >= parent.sizeBytes || next === from) return next;
    const inParent = this.#parent.next(from);
    return inParent >= parent.sizeBytes ? next : Math.min(next, inParent);
  }

  /**
   * Writes all that the image needs of one leaf.
   * @returns undefined when it needs nothing: no byte is written then
   */
  write(leafNumber: number): WrittenLeaf | undefined {
    const { disk, blockBytes } = this.#source;
    const start = leafNumber * format.leafEntries * blockBytes;
    const end = Math.min(start + format.leafEntries * blockBytes, disk.sizeBytes);
    const counts = { dataBlocks: 0, zeroBlocks: 0, storedBytes: 0 };
    this.#leaf = new Uint8Array(format.leafBytes);
    for (let at = start; at < end; at += blockBytes) {
      // Skips holes as long as they are, in whole blocks. A block that the disk ends in is so always looked at: where the disk shrank,
      // the parent's bytes behind its end must be covered.
      at = Math.floor(this.nextOfInterest(at) / blockBytes) * blockBytes;
      if (at >= end) break;
      this.#writeBlock(at / blockBytes, counts);
    }
    this.#flush();
    if (counts.dataBlocks + counts.zeroBlocks === 0) return undefined;
    const states = this.#source.sealer === undefined ? 0 : statesOf(this.#leaf);
    const offset = this.#reserve(this.#leaf.length);
    writeFully(this.#target.fd, this.#leaf, offset, this.#target.name);
    return { leafNumber, offset, crc32c: crc32c(this.#leaf), ...counts, states };
  }

  #writeBlock(position: number, counts: { dataBlocks: number; zeroBlocks: number; storedBytes: number }): void {
    const { disk, parent } = this.#source;
    readPadded(disk, this.#block, position);
    const isZero = this.#block.equals(this.#zeros);
    if (parent === undefined) {
      if (isZero) return;
    } else {
      readPadded(parent, this.#parentBlock, position);
      if (this.#block.equals(this.#parentBlock)) return;
    }
    const index = position % format.leafEntries;
    if (isZero) {
      this.#setEntry(index, {
        state: format.blockState.zero,
        offset: 0n,
        storedBytes: 0,
        crc32c: 0,
        codec: 0,
        flags: 0,
      });
      counts.zeroBlocks++;
      return;
    }
    counts.dataBlocks++;
    counts.storedBytes += this.#appendRecord(position);
  }

  #appendRecord(position: number): number {
    const { codec: wanted, blockBytes, sequence, sealer } = this.#source;
    const compressed = compressBlock(wanted, this.#block);
    const codec = wanted !== 'none' && compressed.length <= blockBytes * worthwhileShare ? wanted : 'none';
    const plain = codec === 'none' ? this.#block : compressed;
    const storedBytes = plain.length + (sealer === undefined ? 0 : sealOverheadBytes);
    const at = this.#batchBytes;
    const record = this.#batch.subarray(at, at + format.recordHeaderBytes + storedBytes);
    const codecNumber = format.codecs.indexOf(codec);
    const header = {
      crc32c: 0,
      position: BigInt(position),
      storedBytes,
      originSequence: sequence,
      codec: codecNumber,
      flags: sealer === undefined ? 0 : format.sealedFlag,
    };
    format.recordHeader.encode(header, record);
    const stored = record.subarray(format.recordHeaderBytes);
    if (sealer === undefined) stored.set(plain);
    else sealer.seal(plain, position, codecNumber, stored);
    const checksum = crc32c(record.subarray(4));
    record.writeUInt32LE(checksum, format.recordHeader.offsetOf('crc32c'));

    const index = position % format.leafEntries;
    // Relative to the batch until the batch is written.
    this.#setEntry(index, {
      state: format.blockState.data,
      offset: BigInt(at),
      storedBytes,
      crc32c: checksum,
      codec: codecNumber,
      flags: header.flags,
    });
    this.#batchEntries.push(index);
    this.#batchBytes += record.length;
    if (this.#batchBytes >= format.writeBatchBytes) this.#flush();
    return storedBytes;
  }

  #setEntry(index: number, entry: Omit<format.LeafEntry, 'originSequence'>): void {
    const full = { ...entry, originSequence: this.#source.sequence };
    format.leafEntry.encode(full, this.#leaf, index * format.leafEntryBytes);
  }

  /** Writes the batch where there is room and makes its entries' offsets absolute. */
  #flush(): void {
    if (this.#batchBytes === 0) return;
    const base = this.#reserve(this.#batchBytes);
    writeFully(this.#target.fd, this.#batch.subarray(0, this.#batchBytes), base, this.#target.name);
    startWriting(this.#target.fd, base, this.#batchBytes);
    const view = new DataView(this.#leaf.buffer);
    for (const index of this.#batchEntries) {
      const at = index * format.leafEntryBytes + format.leafEntry.offsetOf('offset');
      view.setBigUint64(at, view.getBigUint64(at, true) + BigInt(base), true);
    }
    this.#batchBytes = 0;
    this.#batchEntries = [];
  }

  #reserve(lengthBytes: number): number {
    const base = Number(Atomics.add(this.#target.nextFree, 0, BigInt(lengthBytes)));
    if (base + lengthBytes > format.maxFileBytes) throw new AssertionError('an image grew past its limit');
    return base;
  }
}

/** Reads one block; what lies past the end of the disk is zero. */
function readPadded(disk: Disk, block: Buffer, position: number): void {
  const offset = position * block.length;
  const length = Math.max(0, Math.min(block.length, disk.sizeBytes - offset));
  if (length > 0) disk.read(block.subarray(0, length), offset);
  if (length < block.length) block.fill(0, length);
}
