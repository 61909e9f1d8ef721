/**
 * Reads everything that is stored in a chain and checks it, and changes nothing.
 *
 * - Without a key (scrub): superblock, commit, root, pages, leaves, key blocks, provenance, and every record against its checksum, its own
 *   header and its block size.
 * - With the key of an encrypted chain besides: every seal, every signature, and provenance: that each block is the newest that the chain
 *   has for its position, that none is missing and none too many. What that cannot show is a chain that ends early: whoever is given an
 *   older image as the newest must know better from elsewhere.
 */
import { describeError, FormatError, VeneerError } from '../../base/errors.ts';
import { closeAll } from '../../base/ownership.ts';
import type { KeyRing } from '../crypto/key-ring.ts';
import type { ChainKey } from '../crypto/seal.ts';
import { inflateBlock } from '../format/codec.ts';
import * as format from '../format/layout.ts';
import { openChain } from '../read/chain.ts';
import type { Image } from '../read/image.ts';
import { RecordOpener, requirePlain, requireSealed } from '../read/record-opener.ts';
import { Expected, lineageFaults, vouchedImages, type VouchedImage } from '../read/vouched.ts';

export interface Fault {
  readonly image: string;
  /** What is damaged: one block; an index structure, which hides every block below it; or what is known of where blocks come from. */
  readonly structure: 'block' | 'leaf' | 'page' | 'provenance' | 'key slots';
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
  /** Whether seals and provenance were checked: of a plain chain there are none. */
  readonly proved: boolean;
}

export interface VerifyOptions {
  /** Checks seals and provenance of an encrypted chain. Without: a scrub. */
  readonly keys?: KeyRing;
  readonly onFault?: (fault: Fault) => void;
  /** Called about once for each leaf. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * @param newest path of the newest image; its parents are verified too
 * @throws whatever openChain throws: a chain that cannot be opened at all; ForbiddenError when keys are given and none opens it
 */
export function verifyChain(newest: string, options: VerifyOptions = {}): VerifyResult {
  const images = openChain(newest);
  try {
    return verifyImages(images, options);
  } finally {
    closeAll(images);
  }
}

/** Verifies images that follow each other, newest first. They stay open. */
export function verifyImages(images: readonly Image[], options: VerifyOptions = {}): VerifyResult {
  const totals = { images: images.length, blocks: 0, storedBytes: 0, faults: 0 };
  const totalBytes = images.reduce((sum, image) => sum + image.description.storedBytes, 0);
  const fault = (found: Fault): void => {
    totals.faults++;
    options.onFault?.(found);
  };
  const [newest] = images;
  const key = newest?.description.sealed === true ? options.keys?.require(newest) : undefined;
  const chain = images.map((image) => ({ image, vouched: vouchedOf(image, key, fault) }));
  if (key !== undefined && chain.every(({ vouched }) => vouched !== undefined)) {
    const known = chain.map(({ image, vouched }) => ({ image, vouched: vouched ?? [] }));
    for (const { image, message } of lineageFaults(known)) fault(wholeImage(image, 'provenance', message));
  }
  for (const { image, vouched } of chain) {
    new ImageVerifier(image, key, vouched, totals, fault).verify(() =>
      options.onProgress?.(totals.storedBytes, totalBytes),
    );
  }
  return { ...totals, proved: key !== undefined };
}

/** Checks what the file says of keys and sources. @returns undefined without a key, and where nothing can be made of it */
function vouchedOf(image: Image, key: ChainKey | undefined, fault: (fault: Fault) => void): VouchedImage[] | undefined {
  if (image.description.sealed) {
    for (const message of image.keySlotFaults()) fault(wholeImage(image, 'key slots', message));
  }
  try {
    image.sources();
    image.checkProvenance();
    return key === undefined ? undefined : vouchedImages(image, key);
  } catch (error) {
    fault(wholeImage(image, 'provenance', describeError(error)));
    return undefined;
  }
}

function wholeImage(image: Image, structure: Fault['structure'], message: string): Fault {
  return { image: image.path, structure, diskOffset: 0, lengthBytes: image.description.sourceSizeBytes, message };
}

const emptyLeaf = new Uint8Array(format.leafBytes);

class ImageVerifier {
  readonly #image: Image;
  readonly #checker: RecordChecker;
  readonly #expected: Expected | undefined;
  readonly #totals: { blocks: number; storedBytes: number };
  readonly #fault: (fault: Fault) => void;

  constructor(
    image: Image,
    key: ChainKey | undefined,
    vouched: readonly VouchedImage[] | undefined,
    totals: { blocks: number; storedBytes: number },
    fault: (fault: Fault) => void,
  ) {
    this.#image = image;
    this.#checker = new RecordChecker(image, key);
    this.#expected = vouched === undefined ? undefined : new Expected(image, vouched);
    this.#totals = totals;
    this.#fault = fault;
  }

  verify(leafDone: () => void): void {
    const { blockBytes } = this.#image.description;
    const leafSpan = format.leafEntries * blockBytes;
    const pageSpan = leafSpan * format.pageReferences;
    for (const pageNumber of this.#image.pageNumbers()) {
      const firstLeaf = pageNumber * format.pageReferences;
      this.#expectNothing(firstLeaf);
      const page = this.#attempt('page', pageNumber * pageSpan, pageSpan, () => this.#image.readPage(pageNumber));
      if (page === undefined) this.#skip(firstLeaf + format.pageReferences);
      for (let index = 0; page !== undefined && index < format.pageReferences; index++) {
        const leafNumber = firstLeaf + index;
        const leaf = this.#attempt('leaf', leafNumber * leafSpan, leafSpan, () => {
          const reference = this.#image.leafReference(page, leafNumber);
          return reference === undefined ? null : this.#image.readLeaf(leafNumber, reference);
        });
        if (leaf === undefined) this.#skip(leafNumber + 1);
        if (leaf === undefined || leaf === null) continue;
        this.#expectNothing(leafNumber);
        this.#verifyLeaf(leafNumber, leaf);
        leafDone();
      }
    }
    this.#expectNothing(Number.POSITIVE_INFINITY);
  }

  /** Leaves before `end` that the image does not have: nothing may be missing there. */
  #expectNothing(end: number): void {
    for (let next = this.#expected?.nextLeaf; next !== undefined && next < end; next = this.#expected?.nextLeaf)
      this.#verifyLeaf(next, emptyLeaf);
  }

  /** Leaves before `end` that cannot be read: that has been said. */
  #skip(end: number): void {
    for (let next = this.#expected?.nextLeaf; next !== undefined && next < end; next = this.#expected?.nextLeaf)
      this.#expected?.take(next);
  }

  #verifyLeaf(leafNumber: number, leaf: Uint8Array): void {
    const { blockBytes } = this.#image.description;
    this.#expected?.take(leafNumber);
    for (let index = 0; index < format.leafEntries; index++) {
      const position = leafNumber * format.leafEntries + index;
      const storedBytes = this.#attempt('block', position * blockBytes, blockBytes, () => {
        const entry = format.leafEntry.parse(leaf, index * format.leafEntryBytes);
        const wrong = this.#expected?.fault(index, entry);
        if (wrong !== undefined)
          throw new VeneerError('INTEGRITY', `${this.#image.blockName(position)}: ${wrong}`, { data: { position } });
        return this.#checker.check(entry, position);
      });
      if (storedBytes === 0) continue;
      this.#totals.blocks++;
      this.#totals.storedBytes += storedBytes ?? 0;
    }
  }

  #attempt<T>(structure: Fault['structure'], diskOffset: number, lengthBytes: number, check: () => T): T | undefined {
    try {
      return check();
    } catch (error) {
      this.#fault({ image: this.#image.path, structure, diskOffset, lengthBytes, message: describeError(error) });
      return undefined;
    }
  }
}

class RecordChecker {
  readonly #image: Image;
  readonly #opener: RecordOpener | undefined;
  readonly #scratch: Uint8Array;
  readonly #block: Uint8Array;

  constructor(image: Image, key: ChainKey | undefined) {
    const { blockBytes } = image.description;
    this.#image = image;
    this.#opener = key === undefined ? undefined : new RecordOpener(image, key);
    this.#scratch = new Uint8Array(format.recordHeaderBytes + blockBytes + format.maxSealOverheadBytes);
    this.#block = new Uint8Array(blockBytes);
  }

  /** @returns stored bytes, 0 where the entry has no record */
  check(entry: format.LeafEntry, position: number): number {
    if (format.readsAsZeros(entry.state)) return 0;
    const name = this.#image.blockName(position);
    if (entry.state !== format.blockState.data) throw new FormatError(name, 'state', 20, `${entry.state} is unknown`);
    const stored = this.#image.readRecord(entry, position, this.#scratch);
    this.#image.checkRecordHeader(entry, position, this.#scratch);
    const codec = format.codecs[entry.codec];
    if (codec === undefined) throw new FormatError(name, 'codec', 21, `${entry.codec} is unknown`);
    if (!this.#image.description.sealed) requirePlain(this.#image, entry, position);
    else requireSealed(this.#image, entry, position);
    // A sealed block shows what it inflates to only to the holder of the key.
    const plain = this.#image.description.sealed ? this.#opener?.open(entry, position, stored) : stored;
    if (plain !== undefined) inflateBlock(codec, plain, this.#block, name);
    return stored.length;
  }
}
