/**
 * One image file: opened by its tail, its root and nothing else; pages and leaves are read when asked for, and every structure is
 * checked before it is believed.
 */
import { createHash } from 'node:crypto';
import { firstIndex } from '../../base/search.ts';
import type { BigIntStats } from '../../base/fs.ts';
import { FormatError, IntegrityError, UsageError } from '../../base/errors.ts';
import { isUnfinishedName } from '../../base/durable.ts';
import { closeAll, type Closable } from '../../base/ownership.ts';
import { crc32c } from '../../bytes/checksum.ts';
import { checkCommitSignature } from '../crypto/commit-signature.ts';
import { KeySlots } from '../crypto/key-slots.ts';
import type { ChainKey } from '../crypto/seal.ts';
import {
  hex,
  readDescription,
  readRoot,
  type ImageDescription,
  type OpenedImage,
} from '../format/image-description.ts';
import * as format from '../format/layout.ts';
import { readSources, type Source } from '../format/provenance.ts';
import { ImageFile } from './handle.ts';

export interface LeafReference {
  readonly offset: number;
  readonly crc32c: number;
  readonly dataBlocks: number;
}

export class Image implements Closable {
  readonly path: string;
  readonly description: ImageDescription;
  /** The first 8 bytes of the commit's hash, as two numbers. */
  readonly shortHash: readonly [number, number];
  readonly #file: ImageFile;
  readonly #root: Uint8Array;
  readonly #provenance: { readonly offset: number; readonly lengthBytes: number; readonly hash: Uint8Array };
  readonly #owned: Closable[] = [];
  #sources: readonly Source[] | undefined;

  private constructor(file: ImageFile, { description, provenance }: OpenedImage, root: Uint8Array) {
    this.path = file.path;
    this.description = description;
    const hash = Buffer.from(description.commitHash.slice(0, 16), 'hex');
    this.shortHash = [hash.readUInt32LE(0), hash.readUInt32LE(4)];
    this.#file = file;
    this.#root = root;
    this.#provenance = provenance;
  }

  /**
   * Opens an image. Costs the same for any size: the first and last 4 KiB, and the root (16 B for each 8 GiB of disk with data).
   * @throws UnavailableError, FormatError, IntegrityError, UnsupportedError
   */
  static open(imagePath: string): Image {
    if (isUnfinishedName(imagePath)) {
      throw new UsageError(`${imagePath}: is an unfinished image; its creation was interrupted, run it again`);
    }
    return Image.openCommitted(imagePath);
  }

  /** Opens an image that is complete, though it may not have its name yet. @throws as `open` */
  static openCommitted(imagePath: string): Image {
    const file = ImageFile.open(imagePath);
    try {
      const opened = readDescription(file);
      return new Image(file, opened, readRoot(file, opened));
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** See ImageFile.source. */
  get source(): number {
    return this.#file.source;
  }

  close(): void {
    closeAll([...this.#owned.splice(0), this.#file]);
  }

  /** Closes `item` with the image. */
  own(item: Closable): void {
    this.#owned.push(item);
  }

  /** As ImageFile.isFile. */
  isFile(stat: BigIntStats): boolean {
    return this.#file.isFile(stat);
  }

  /** Any bytes of the file, as they are. @throws UnavailableError */
  readRaw(target: Uint8Array, offset: number): void {
    this.#file.read(target, offset);
  }

  /** @throws FormatError, UnavailableError */
  readKeySlots(): KeySlots {
    const { description } = this;
    if (!description.sealed) throw new UsageError(`${this.path}: is not encrypted, and has no key slots`);
    return KeySlots.read((target, offset) => this.#file.read(target, offset), description.chainId, this.path);
  }

  /** What is wrong with each of the key blocks: they can be read as long as one is sound. */
  keySlotFaults(): string[] {
    return KeySlots.faults((target, offset) => this.#file.read(target, offset), this.description.chainId, this.path);
  }

  /** The images that its blocks come from, newest first: itself, or those that it was made from. @throws FormatError, UnavailableError */
  sources(): readonly Source[] {
    if (this.#sources !== undefined) return this.#sources;
    const { kind, imageId, sequence, fileSizeBytes } = this.description;
    const { offset, lengthBytes } = this.#provenance;
    this.#sources =
      kind === 'consolidated'
        ? readSources((target, at) => this.#file.read(target, at), this.#provenance, this.path)
        : [
            {
              imageId,
              sequence,
              superblockOffset: 0,
              commitOffset: fileSizeBytes - format.commitBytes,
              mapOffset: offset,
              mapBytes: lengthBytes,
            },
          ];
    return this.#sources;
  }

  /** Reads all of the provenance, and checks it against the commit. @throws IntegrityError, UnavailableError */
  checkProvenance(): void {
    const { offset, lengthBytes, hash } = this.#provenance;
    if (lengthBytes === 0) return;
    const digest = createHash('sha256');
    const buffer = new Uint8Array(Math.min(lengthBytes, format.writeBatchBytes));
    for (let done = 0; done < lengthBytes; done += buffer.length) {
      const part = buffer.subarray(0, Math.min(buffer.length, lengthBytes - done));
      this.#file.read(part, offset + done);
      digest.update(part);
    }
    const actual = digest.digest('hex');
    if (actual !== hex(hash)) throw new IntegrityError(`${this.path}: provenance`, hex(hash), actual);
  }

  /**
   * Checks that the image was committed by a holder of the key. A consolidated image was not: its provenance says what is to be known.
   * @throws VeneerError (INTEGRITY)
   */
  checkSignature(key: ChainKey): void {
    if (this.description.kind === 'consolidated') return;
    const commit = new Uint8Array(format.commitBytes);
    this.#file.read(commit, this.description.fileSizeBytes - format.commitBytes);
    checkCommitSignature(commit, key, this.path);
  }

  /** The pages that hold something, in order. */
  *pageNumbers(): Generator<number> {
    for (let at = 0; at < this.#root.length; at += format.rootEntryBytes)
      yield format.rootEntry.parse(this.#root, at).pageNumber;
  }

  /** The first page at or after `from` that holds something. */
  nextPage(from: number): number | undefined {
    const at = this.#rootIndex(from) * format.rootEntryBytes;
    return at < this.#root.length ? format.rootEntry.parse(this.#root, at).pageNumber : undefined;
  }

  /**
   * The page's 256 references, checked; undefined when this image has nothing there.
   * @throws IntegrityError, FormatError, UnavailableError
   */
  readPage(pageNumber: number): Uint8Array | undefined {
    const at = this.#rootIndex(pageNumber) * format.rootEntryBytes;
    if (at >= this.#root.length) return undefined;
    const entry = format.rootEntry.parse(this.#root, at);
    if (entry.pageNumber !== pageNumber) return undefined;
    const what = `${this.path}: index page ${pageNumber}`;
    const page = new Uint8Array(format.pageBytes);
    this.#file.read(page, this.#inside(what, entry.pageOffset, format.pageBytes));
    expectChecksum(what, entry.pageCrc32c, page);
    return page;
  }

  /** The leaves that this image has something of, in order. @throws as readPage */
  *leafNumbers(): Generator<number> {
    for (const pageNumber of this.pageNumbers()) {
      const page = this.readPage(pageNumber);
      const first = pageNumber * format.pageReferences;
      for (let leaf = first; page !== undefined && leaf < first + format.pageReferences; leaf++)
        if (this.leafReference(page, leaf) !== undefined) yield leaf;
    }
  }

  /** A reference of a page that `readPage` returned; undefined where this image has no block of that leaf. */
  leafReference(page: Uint8Array, leafNumber: number): LeafReference | undefined {
    const reference = format.pageReference.parse(
      page,
      (leafNumber % format.pageReferences) * format.pageReferenceBytes,
    );
    if (reference.leafOffset === 0n) return undefined;
    const offset = this.#inside(`${this.path}: index leaf ${leafNumber}`, reference.leafOffset, format.leafBytes);
    return { offset, crc32c: reference.leafCrc32c, dataBlocks: reference.dataBlocks };
  }

  /** The 512 entries of a leaf, checked. @param leaf where they are put. @throws IntegrityError, UnavailableError */
  readLeaf(leafNumber: number, reference: LeafReference, leaf = new Uint8Array(format.leafBytes)): Uint8Array {
    this.#file.read(leaf, reference.offset);
    expectChecksum(`${this.path}: index leaf ${leafNumber}`, reference.crc32c, leaf);
    return leaf;
  }

  /** Where the record that an entry points to lies, header and stored bytes. @throws FormatError */
  placeOfRecord(entry: format.LeafEntry, position: number): { readonly offset: number; readonly lengthBytes: number } {
    const lengthBytes = format.recordHeaderBytes + this.#storedBytes(entry, position);
    return { offset: this.#inside(this.blockName(position), entry.offset, lengthBytes), lengthBytes };
  }

  /**
   * Reads the record that an entry points to, header and stored bytes, into the front of `scratch`, and checks it.
   * @returns the stored bytes, a view of `scratch`
   * @throws IntegrityError, FormatError, UnavailableError
   */
  readRecord(entry: format.LeafEntry, position: number, scratch: Uint8Array): Uint8Array {
    const { offset, lengthBytes } = this.placeOfRecord(entry, position);
    const record = scratch.subarray(0, lengthBytes);
    this.#file.read(record, offset);
    const actual = crc32c(record.subarray(4));
    if (actual !== entry.crc32c) throw new IntegrityError(this.blockName(position), entry.crc32c, actual);
    return record.subarray(format.recordHeaderBytes);
  }

  /** Fills all targets in turn from a range where records lie. Nothing of it is checked yet. @throws UnavailableError */
  readUnchecked(targets: readonly Uint8Array[], offset: number): void {
    this.#file.readInto(targets, offset);
  }

  /** Checks a record that was read so. @throws IntegrityError */
  checkRecord(entry: format.LeafEntry, position: number, header: Uint8Array, stored: Uint8Array): void {
    const actual = crc32c(stored, crc32c(header.subarray(4)));
    if (actual !== entry.crc32c) throw new IntegrityError(this.blockName(position), entry.crc32c, actual);
  }

  /**
   * Checks that a record just read by `readRecord` names itself as its entry does.
   * @throws FormatError
   */
  checkRecordHeader(entry: format.LeafEntry, position: number, scratch: Uint8Array): void {
    const header = format.recordHeader.parse(scratch);
    const same =
      header.crc32c === entry.crc32c &&
      header.position === BigInt(position) &&
      header.storedBytes === entry.storedBytes &&
      header.originSequence === entry.originSequence &&
      header.codec === entry.codec &&
      header.flags === entry.flags;
    if (!same)
      throw new FormatError(
        this.blockName(position),
        'record header',
        Number(entry.offset),
        'does not match the index',
      );
  }

  /** How an error names a block. */
  blockName(position: number): string {
    return `${this.path}: block ${position} (disk byte ${position * this.description.blockBytes})`;
  }

  #storedBytes(entry: format.LeafEntry, position: number): number {
    const limit = this.description.blockBytes + format.maxSealOverheadBytes;
    if (entry.storedBytes > limit) {
      throw new FormatError(
        this.blockName(position),
        'stored length',
        0,
        `${entry.storedBytes} is more than the limit of ${limit}`,
      );
    }
    return entry.storedBytes;
  }

  /** Narrows an offset and checks that `length` bytes from it lie between superblock and commit. */
  #inside(what: string, offset: bigint, length: number): number {
    const narrow = format.narrow(what, 'offset', 0, offset, this.description.fileSizeBytes);
    if (
      narrow < format.dataOffset(this.description.sealed) ||
      narrow + length > this.description.fileSizeBytes - format.commitBytes
    ) {
      throw new FormatError(what, 'offset', narrow, `${length} bytes there are not inside the image's data`);
    }
    return narrow;
  }

  /** Index of the first root entry whose page is at or after `pageNumber`. */
  #rootIndex(pageNumber: number): number {
    const view = new DataView(this.#root.buffer, this.#root.byteOffset, this.#root.byteLength);
    const count = this.#root.length / format.rootEntryBytes;
    return firstIndex(count, (index) => view.getUint32(index * format.rootEntryBytes, true) >= pageNumber);
  }
}

function expectChecksum(what: string, expected: number, bytes: Uint8Array): void {
  const actual = crc32c(bytes);
  if (actual !== expected) throw new IntegrityError(what, expected, actual);
}
