/**
 * The blocks that a folder's names lie in beside its root: which are free, room for more of them, and their bytes. A folder that has none
 * yet gets its first.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { alignDown, alignUp } from '../../base/ranges.ts';
import { MiB } from '../../base/units.ts';
import { viewOf } from '../../bytes/view.ts';
import { withFixups } from './fixups.ts';
import { blockUnitBytes, indexName } from './folders.ts';
import { takeClusters } from './free-clusters.ts';
import { encodeEntries, type IndexEntry } from './index-node.ts';
import { attributeTypes, indexBlock, indexHeader, strideBytes } from './layout.ts';
import type { EditedRecord, RunSizes } from './record-edit.ts';
import type { Attribute } from './records.ts';
import { appendClusters, type Run } from './runs.ts';
import type { NtfsWriter } from './writer.ts';

const parentFlag = 1;
/** How the bitmap of a folder grows. */
const bitmapStepBytes = 8;
const maxBitmapBytes = MiB;
const firstSequenceNumber = 1;

export class FolderBlocks {
  readonly #writer: NtfsWriter;
  readonly #folder: number;
  readonly #record: EditedRecord;
  readonly #bitmap: Attribute | undefined;
  readonly #fixupCount: number;
  readonly #entriesAt: number;
  readonly #fresh = new Set<number>();
  #bits: Uint8Array;
  #runs: readonly Run[];
  #sizes: RunSizes;

  /** @param record of the folder: it gets the runs of new blocks, and their bits */
  constructor(writer: NtfsWriter, folder: number, record: EditedRecord) {
    this.#writer = writer;
    this.#folder = folder;
    this.#record = record;
    this.#fixupCount = writer.geometry.indexBlockBytes / strideBytes + 1;
    this.#entriesAt = alignUp(indexBlock.sizeBytes + indexHeader.sizeBytes + this.#fixupCount * 2, 8);
    const allocation = writer.records.attribute(folder, attributeTypes.indexAllocation, indexName);
    this.#bitmap = writer.records.attribute(folder, attributeTypes.bitmap, indexName);
    if ((allocation === undefined) !== (this.#bitmap === undefined) || allocation?.value !== undefined)
      throw new FormatError(`NTFS file record ${folder}`, 'index allocation', 0, 'does not go with a bitmap');
    this.#bits = this.#readBits();
    this.#runs = allocation?.runs ?? [];
    this.#sizes = allocation ?? { allocatedBytes: 0, sizeBytes: 0, initializedBytes: 0 };
  }

  /** For the entries of one block. */
  get roomBytes(): number {
    return this.#writer.geometry.indexBlockBytes - this.#entriesAt;
  }

  /** A block that was free, or a new one behind the last. Its name as entries have it. */
  take(): number {
    const { geometry } = this.#writer;
    const { indexBlockBytes } = geometry;
    const count = Math.floor(this.#sizes.sizeBytes / indexBlockBytes);
    let index = 0;
    while (index < count && this.#isTaken(index)) index++;
    if (index === count) this.#grow();
    const at = Math.floor(index / 8);
    this.#bits[at] = (this.#bits[at] ?? 0) | (2 ** (index % 8));
    if (this.#bitmap?.value !== undefined || this.#bitmap === undefined)
      this.#record.setValue(attributeTypes.bitmap, indexName, this.#bits);
    else this.#writer.writeRuns(this.#bitmap, this.#bits, 0);
    const block = index * (indexBlockBytes / blockUnitBytes(geometry));
    this.#fresh.add(block);
    return block;
  }

  /** Makes a block hold these entries. */
  write(block: number, entries: readonly IndexEntry[]): void {
    const { indexBlockBytes } = this.#writer.geometry;
    const { logSequence, number } = this.#headOf(block);
    const whole = new Uint8Array(indexBlockBytes);
    const fixupOffset = indexBlock.sizeBytes + indexHeader.sizeBytes;
    indexBlock.encode({ fixupOffset, fixupCount: this.#fixupCount, logSequence, cluster: BigInt(block) }, whole);
    const bytes = encodeEntries(entries);
    const entriesOffset = this.#entriesAt - indexBlock.sizeBytes;
    const header = {
      entriesOffset,
      usedBytes: entriesOffset + bytes.length,
      allocatedBytes: indexBlockBytes - indexBlock.sizeBytes,
      flags: entries.some(({ child }) => child !== undefined) ? parentFlag : 0,
    };
    indexHeader.encode(header, whole, indexBlock.sizeBytes);
    viewOf(whole).setUint16(fixupOffset, number, true);
    whole.set(bytes, this.#entriesAt);
    const offset = block * blockUnitBytes(this.#writer.geometry);
    const raw = withFixups(whole, `NTFS index block ${block} of record ${this.#folder}`, offset);
    this.#writer.writeRuns({ runs: this.#runs, initializedBytes: this.#sizes.initializedBytes }, raw, offset);
  }

  /** What a block keeps when its entries change. */
  #headOf(block: number): { logSequence: bigint; number: number } {
    if (this.#fresh.has(block)) return { logSequence: 0n, number: firstSequenceNumber };
    const old = this.#writer.folders.block(this.#folder, block);
    const { logSequence, fixupOffset } = indexBlock.parse(old);
    return { logSequence, number: viewOf(old).getUint16(fixupOffset, true) };
  }

  #readBits(): Uint8Array {
    if (this.#bitmap === undefined) return new Uint8Array(0);
    const { sizeBytes } = this.#bitmap;
    if (sizeBytes > maxBitmapBytes)
      throw new UnsupportedError(`NTFS file record ${this.#folder}: a folder of so many names is not changed`);
    const bits = new Uint8Array(sizeBytes);
    this.#writer.readAttribute(this.#bitmap, bits, 0);
    return bits;
  }

  #isTaken(index: number): boolean {
    return ((this.#bits[Math.floor(index / 8)] ?? 0) & (2 ** (index % 8))) !== 0;
  }

  /** One block more: in clusters that the folder has, or in new ones; and a bit for it. */
  #grow(): void {
    const { indexBlockBytes, clusterBytes } = this.#writer.geometry;
    const { sizeBytes, initializedBytes } = this.#sizes;
    if (initializedBytes !== sizeBytes)
      throw new UnsupportedError(`NTFS file record ${this.#folder}: its index was never written to its end`);
    const wanted = alignDown(sizeBytes, indexBlockBytes) + indexBlockBytes;
    if (wanted > this.#sizes.allocatedBytes) {
      const last = this.#runs.at(-1);
      const near = last?.cluster === undefined ? 0 : last.cluster + last.count;
      const added = takeClusters(this.#writer, Math.max(1, indexBlockBytes / clusterBytes), near);
      this.#runs = appendClusters(
        this.#runs,
        added.map(({ first, count }) => ({ cluster: first, count })),
      );
    }
    const clusters = this.#runs.reduce((sum, { count }) => sum + count, 0);
    this.#sizes = { allocatedBytes: clusters * clusterBytes, sizeBytes: wanted, initializedBytes: wanted };
    this.#record.setRuns(attributeTypes.indexAllocation, indexName, this.#runs, this.#sizes);
    if (wanted / indexBlockBytes <= this.#bits.length * 8) return;
    if (this.#bitmap !== undefined && this.#bitmap.value === undefined)
      throw new UnsupportedError(`NTFS file record ${this.#folder}: the bitmap of its index is full`);
    this.#bits = Uint8Array.from([...this.#bits, ...new Uint8Array(bitmapStepBytes)]);
  }
}
