/**
 * Reads everything that is stored in a chain and checks it: superblock, commit, root, pages, leaves, and every record against its
 * checksum, its own header and its block size. Needs no source and changes nothing.
 */
import { describeError, FormatError } from '../base/errors.ts';
import { closeAll } from '../base/ownership.ts';
import { openChain } from './chain.ts';
import { inflateBlock } from './codec.ts';
import type { Image } from './image.ts';
import * as format from './layout.ts';

export interface Fault {
  readonly image: string;
  /** What is damaged: one block, or an index structure, which hides every block below it. */
  readonly structure: 'block' | 'leaf' | 'page';
  /** The first byte of the guest's disk that is lost. */
  readonly diskOffset: number;
  readonly lengthBytes: number;
  /** One line: what, where, expected and found. */
  readonly message: string;
}

export interface VerifyResult {
  readonly images: number;
  readonly blocks: number;
  readonly storedBytes: number;
  readonly faults: number;
}

export interface VerifyOptions {
  readonly onFault?: (fault: Fault) => void;
  /** Called about once for each leaf. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * @param newest path of the newest image; its parents are verified too
 * @throws whatever openChain throws: a chain that cannot be opened at all
 */
export function verifyChain(newest: string, options: VerifyOptions = {}): VerifyResult {
  const images = openChain(newest);
  try {
    const totals = { images: images.length, blocks: 0, storedBytes: 0, faults: 0 };
    const totalBytes = images.reduce((sum, image) => sum + image.description.storedBytes, 0);
    for (const image of images) {
      verifyImage(
        image,
        totals,
        (fault) => {
          totals.faults++;
          options.onFault?.(fault);
        },
        () => options.onProgress?.(totals.storedBytes, totalBytes),
      );
    }
    return totals;
  } finally {
    closeAll(images);
  }
}

function verifyImage(
  image: Image,
  totals: { blocks: number; storedBytes: number },
  fault: (fault: Fault) => void,
  leafDone: () => void,
): void {
  const { blockBytes } = image.description;
  const leafSpan = format.leafEntries * blockBytes;
  const attempt = <T>(
    structure: Fault['structure'],
    diskOffset: number,
    lengthBytes: number,
    check: () => T,
  ): T | undefined => {
    try {
      return check();
    } catch (error) {
      fault({ image: image.path, structure, diskOffset, lengthBytes, message: describeError(error) });
      return undefined;
    }
  };
  const checker = new RecordChecker(image);
  for (const pageNumber of image.pageNumbers()) {
    const pageSpan = leafSpan * format.pageReferences;
    const page = attempt('page', pageNumber * pageSpan, pageSpan, () => image.readPage(pageNumber));
    if (page === undefined) continue;
    for (let index = 0; index < format.pageReferences; index++) {
      const leafNumber = pageNumber * format.pageReferences + index;
      const leaf = attempt('leaf', leafNumber * leafSpan, leafSpan, () => {
        const reference = image.leafReference(page, leafNumber);
        return reference === undefined ? undefined : image.readLeaf(leafNumber, reference);
      });
      if (leaf === undefined) continue;
      for (let entryIndex = 0; entryIndex < format.leafEntries; entryIndex++) {
        const position = leafNumber * format.leafEntries + entryIndex;
        const storedBytes = attempt('block', position * blockBytes, blockBytes, () =>
          checker.check(leaf, entryIndex, position),
        );
        if (storedBytes === 0) continue;
        totals.blocks++;
        totals.storedBytes += storedBytes ?? 0;
      }
      leafDone();
    }
  }
}

class RecordChecker {
  readonly #image: Image;
  readonly #scratch: Uint8Array;
  readonly #block: Uint8Array;

  constructor(image: Image) {
    const { blockBytes } = image.description;
    this.#image = image;
    this.#scratch = new Uint8Array(format.recordHeaderBytes + blockBytes + format.maxSealOverheadBytes);
    this.#block = new Uint8Array(blockBytes);
  }

  /** @returns stored bytes, 0 where the leaf holds no record */
  check(leaf: Uint8Array, entryIndex: number, position: number): number {
    const entry = format.leafEntry.parse(leaf, entryIndex * format.leafEntryBytes);
    if (format.readsAsZeros(entry.state)) return 0;
    const name = this.#image.blockName(position);
    if (entry.state !== format.blockState.data) throw new FormatError(name, 'state', 20, `${entry.state} is unknown`);
    const stored = this.#image.readRecord(entry, position, this.#scratch);
    this.#image.checkRecordHeader(entry, position, this.#scratch);
    const codec = format.codecs[entry.codec];
    if (codec === undefined) throw new FormatError(name, 'codec', 21, `${entry.codec} is unknown`);
    // A sealed block shows what it inflates to only to the holder of the key.
    if ((entry.flags & format.sealedFlag) === 0) inflateBlock(codec, stored, this.#block, name);
    return stored.length;
  }
}
