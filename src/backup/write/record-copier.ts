/**
 * Copies records from the images of a chain into one file, as they are: sealed ones stay sealed. What lies side by side is read and written
 * in large runs; every record is checked against its entry and its own header on the way, so that damage is not carried on.
 */
import { IntegrityError } from '../../base/errors.ts';
import { startWriting } from '../../base/file-advice.ts';
import { writeFully } from '../../base/full-io.ts';
import { MiB } from '../../base/units.ts';
import { crc32c } from '../../bytes/checksum.ts';
import * as format from '../format/layout.ts';
import type { Image } from '../read/image.ts';
import type { MergedLeaf } from '../read/index-cache.ts';
import { requirePlain, requireSealed } from '../read/record-opener.ts';
import type { WrittenLeaf } from './leaf-writer.ts';

const bufferBytes = 4 * MiB;

/** A record to copy, and where it lies. */
interface Placed {
  readonly index: number;
  readonly position: number;
  readonly imageIndex: number;
  readonly entry: format.LeafEntry;
  readonly offset: number;
  readonly lengthBytes: number;
}

export class RecordCopier {
  readonly #fd: number;
  readonly #name: string;
  readonly #images: readonly Image[];
  readonly #keepZeros: boolean;
  readonly #buffer = new Uint8Array(bufferBytes);
  #used = 0;
  #end: number;

  /** @param keepZeros whether there is a parent, whose blocks zeros must hide */
  constructor(
    target: { readonly fd: number; readonly name: string; readonly startBytes: number },
    images: readonly Image[],
    keepZeros: boolean,
  ) {
    this.#fd = target.fd;
    this.#name = target.name;
    this.#end = target.startBytes;
    this.#images = images;
    this.#keepZeros = keepZeros;
  }

  /** Where the file ends, once all is written. */
  get endBytes(): number {
    return this.#end;
  }

  /**
   * Writes the records of a leaf, and the leaf.
   * @returns undefined when nothing is left of it
   */
  copy(leafNumber: number, merged: MergedLeaf): WrittenLeaf | undefined {
    const leaf = new Uint8Array(format.leafBytes);
    const counts = { dataBlocks: 0, zeroBlocks: 0, storedBytes: 0 };
    const records: Placed[] = [];
    for (let index = 0; index < format.leafEntries; index++) {
      const entry = format.leafEntry.parse(merged.entries, index * format.leafEntryBytes);
      if (entry.state === format.blockState.absent) continue;
      if (format.readsAsZeros(entry.state)) {
        if (!this.#keepZeros) continue;
        counts.zeroBlocks++;
        const zero = { ...entry, offset: 0n, storedBytes: 0, crc32c: 0, codec: 0, flags: 0 };
        format.leafEntry.encode(zero, leaf, index * format.leafEntryBytes);
        continue;
      }
      const record = this.#place(leafNumber, index, merged.images[index] ?? 0, entry);
      records.push(record);
      counts.dataBlocks++;
      counts.storedBytes += entry.storedBytes;
    }
    if (counts.dataBlocks + counts.zeroBlocks === 0) return undefined;
    this.#copyRuns(records, leaf);
    this.#flush();
    writeFully(this.#fd, leaf, this.#end, this.#name);
    const written = { leafNumber, offset: this.#end, crc32c: crc32c(leaf), ...counts, states: 0 };
    this.#end += leaf.length;
    return written;
  }

  #place(leafNumber: number, index: number, imageIndex: number, entry: format.LeafEntry): Placed {
    const position = leafNumber * format.leafEntries + index;
    const image = this.#image(imageIndex);
    if (image.description.sealed) requireSealed(image, entry, position);
    else requirePlain(image, entry, position);
    return { index, position, imageIndex, entry, ...image.placeOfRecord(entry, position) };
  }

  #copyRuns(records: Placed[], leaf: Uint8Array): void {
    records.sort((a, b) => a.imageIndex - b.imageIndex || a.offset - b.offset);
    for (let first = 0; first < records.length;) {
      const run = runFrom(records, first, bufferBytes);
      const lengthBytes = run.reduce((sum, record) => sum + record.lengthBytes, 0);
      if (this.#used + lengthBytes > bufferBytes) this.#flush();
      const bytes = this.#buffer.subarray(this.#used, this.#used + lengthBytes);
      this.#image(run[0]?.imageIndex ?? 0).readRaw(bytes, run[0]?.offset ?? 0);
      let within = 0;
      for (const record of run) {
        this.#check(record, bytes.subarray(within, within + record.lengthBytes));
        const offset = BigInt(this.#end + this.#used + within);
        format.leafEntry.encode({ ...record.entry, offset }, leaf, record.index * format.leafEntryBytes);
        within += record.lengthBytes;
      }
      this.#used += lengthBytes;
      first += run.length;
    }
  }

  /** @throws IntegrityError, FormatError */
  #check({ entry, position, imageIndex }: Placed, record: Uint8Array): void {
    const image = this.#image(imageIndex);
    const actual = crc32c(record.subarray(4));
    if (actual !== entry.crc32c) throw new IntegrityError(image.blockName(position), entry.crc32c, actual);
    image.checkRecordHeader(entry, position, record);
  }

  #flush(): void {
    if (this.#used === 0) return;
    writeFully(this.#fd, this.#buffer.subarray(0, this.#used), this.#end, this.#name);
    startWriting(this.#fd, this.#end, this.#used);
    this.#end += this.#used;
    this.#used = 0;
  }

  #image(index: number): Image {
    const image = this.#images[index];
    if (image === undefined) throw new RangeError(`no image ${index}`);
    return image;
  }
}

/** The records from `first` on that lie side by side in one file. */
function runFrom(records: readonly Placed[], first: number, maxBytes: number): Placed[] {
  const run: Placed[] = [];
  let lengthBytes = 0;
  for (let at = first; at < records.length; at++) {
    const record = records[at];
    const last = run.at(-1);
    if (record === undefined) break;
    const follows =
      last === undefined || (last.imageIndex === record.imageIndex && last.offset + last.lengthBytes === record.offset);
    if (!follows || (last !== undefined && lengthBytes + record.lengthBytes > maxBytes)) break;
    run.push(record);
    lengthBytes += record.lengthBytes;
  }
  return run;
}
