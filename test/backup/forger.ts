/**
 * What someone without the key can do to an image: change entries, records, provenance and commit as he likes, and make every checksum right
 * again. What he cannot make is a seal or a signature.
 */
import { createHash } from 'node:crypto';
import { crc32c, sealCrc32c } from '../../src/bytes/checksum.ts';
import * as format from '../../src/backup/format/layout.ts';

export class Forger {
  #bytes: Buffer;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes);
  }

  /** Positions of which the image has a record. */
  positions(): number[] {
    return this.#leaves().flatMap(({ leafNumber, at }) =>
      Array.from({ length: format.leafEntries }, (_, index) => index)
        .filter((index) => this.#parse(at, index).state === format.blockState.data)
        .map((index) => leafNumber * format.leafEntries + index),
    );
  }

  entry(position: number): format.LeafEntry {
    return this.#parse(this.#leafOf(position), position % format.leafEntries);
  }

  setEntry(position: number, entry: Partial<format.LeafEntry>): void {
    const at = this.#leafOf(position);
    const full = { ...this.entry(position), ...entry };
    format.leafEntry.encode(full, this.#bytes, at + (position % format.leafEntries) * format.leafEntryBytes);
  }

  /** The stored bytes of a record. */
  stored(position: number): Buffer {
    const { offset, storedBytes } = this.entry(position);
    const start = Number(offset) + format.recordHeaderBytes;
    return Buffer.from(this.#bytes.subarray(start, start + storedBytes));
  }

  /** Puts a record at a position, labelled as told. */
  putRecord(
    position: number,
    stored: Uint8Array,
    label: { readonly originSequence: number; readonly codec: number; readonly flags: number },
  ): void {
    const record = Buffer.alloc(format.recordHeaderBytes + stored.length);
    const storedBytes = stored.length;
    format.recordHeader.encode({ crc32c: 0, position: BigInt(position), storedBytes, ...label }, record);
    record.set(stored, format.recordHeaderBytes);
    const checksum = crc32c(record.subarray(4));
    record.writeUInt32LE(checksum, 0);
    const offset = BigInt(this.#insert(record));
    this.setEntry(position, { ...label, offset, storedBytes, crc32c: checksum, state: format.blockState.data });
  }

  /** Replaces all of the provenance. */
  setProvenance(bytes: Uint8Array): void {
    const offset = this.#insert(bytes);
    this.#changeCommit({
      provenanceOffset: BigInt(offset),
      provenanceBytes: BigInt(bytes.length),
      provenanceHash: sha256(bytes),
    });
  }

  provenance(): Buffer {
    const { provenanceOffset, provenanceBytes } = this.#commit();
    return Buffer.from(this.#bytes.subarray(Number(provenanceOffset), Number(provenanceOffset + provenanceBytes)));
  }

  changeSuperblock(change: Partial<format.Superblock>): void {
    const changed = format.superblock.encode({ ...format.superblock.parse(this.#bytes), ...change });
    this.#bytes.set(sealCrc32c(changed, format.superblock.offsetOf('crc32c')));
    this.#changeCommit({ superblockHash: sha256(this.#bytes.subarray(0, format.superblockBytes)) });
  }

  /** Has the index end before its last page. */
  dropLastPage(): void {
    this.#changeCommit({ rootBytes: this.#commit().rootBytes - BigInt(format.rootEntryBytes) });
  }

  /** The image with all checksums right. */
  finish(): Buffer {
    const { rootOffset, rootBytes } = this.#commit();
    for (let at = Number(rootOffset); at < Number(rootOffset + rootBytes); at += format.rootEntryBytes) {
      const entry = format.rootEntry.parse(this.#bytes, at);
      const pageAt = Number(entry.pageOffset);
      for (let index = 0; index < format.pageReferences; index++) {
        const referenceAt = pageAt + index * format.pageReferenceBytes;
        const reference = format.pageReference.parse(this.#bytes, referenceAt);
        if (reference.leafOffset === 0n) continue;
        const leafAt = Number(reference.leafOffset);
        const leafCrc32c = crc32c(this.#bytes.subarray(leafAt, leafAt + format.leafBytes));
        format.pageReference.encode({ ...reference, leafCrc32c }, this.#bytes, referenceAt);
      }
      const pageCrc32c = crc32c(this.#bytes.subarray(pageAt, pageAt + format.pageBytes));
      format.rootEntry.encode({ ...entry, pageCrc32c }, this.#bytes, at);
    }
    this.#changeCommit({
      rootHash: sha256(this.#bytes.subarray(Number(rootOffset), Number(rootOffset + rootBytes))),
    });
    return this.#bytes;
  }

  #commit(): format.Commit {
    return format.commit.parse(this.#bytes, this.#bytes.length - format.commitBytes);
  }

  #changeCommit(change: Partial<format.Commit>): void {
    const commit = format.commit.encode({ ...this.#commit(), ...change });
    this.#bytes.set(sealCrc32c(commit, format.commit.offsetOf('crc32c')), this.#bytes.length - format.commitBytes);
  }

  /** In front of the commit. @returns where it lies */
  #insert(bytes: Uint8Array): number {
    const at = this.#bytes.length - format.commitBytes;
    this.#bytes = Buffer.concat([this.#bytes.subarray(0, at), bytes, this.#bytes.subarray(at)]);
    this.#changeCommit({ fileSizeBytes: BigInt(this.#bytes.length) });
    return at;
  }

  #leaves(): { leafNumber: number; at: number }[] {
    const { rootOffset, rootBytes } = this.#commit();
    const found: { leafNumber: number; at: number }[] = [];
    for (let rootAt = Number(rootOffset); rootAt < Number(rootOffset + rootBytes); rootAt += format.rootEntryBytes) {
      const { pageNumber, pageOffset } = format.rootEntry.parse(this.#bytes, rootAt);
      for (let index = 0; index < format.pageReferences; index++) {
        const at = Number(pageOffset) + index * format.pageReferenceBytes;
        const { leafOffset } = format.pageReference.parse(this.#bytes, at);
        if (leafOffset !== 0n)
          found.push({ leafNumber: pageNumber * format.pageReferences + index, at: Number(leafOffset) });
      }
    }
    return found;
  }

  #leafOf(position: number): number {
    const leafNumber = Math.floor(position / format.leafEntries);
    const leaf = this.#leaves().find((one) => one.leafNumber === leafNumber);
    if (leaf === undefined) throw new Error(`the image has no leaf ${leafNumber}`);
    return leaf.at;
  }

  #parse(leafAt: number, index: number): format.LeafEntry {
    return format.leafEntry.parse(this.#bytes, leafAt + index * format.leafEntryBytes);
  }
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
