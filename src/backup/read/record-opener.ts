/** What opens the sealed records of an image; and which images' records are to be sealed at all. */
import { FormatError, VeneerError } from '../../base/errors.ts';
import { BlockSealer } from '../crypto/block-seal.ts';
import type { ChainKey } from '../crypto/seal.ts';
import { codecs, sealedFlag, type LeafEntry } from '../format/layout.ts';
import type { Image } from './image.ts';

/** Sealers that an image keeps: a consolidated one may have blocks of 100,000 others. */
const maxSealers = 4096;

/** Opens the records of one encrypted image, whichever images stored them first. */
export class RecordOpener {
  readonly #image: Image;
  readonly #key: ChainKey;
  /** By origin: mostly there is one, and a chain has thousands of openers, so this must cost nothing while it is empty. */
  readonly #sealers = new Map<number, BlockSealer>();

  constructor(image: Image, key: ChainKey) {
    this.#image = image;
    this.#key = key;
  }

  /**
   * What was sealed: the block as its codec has it, until the next one is opened.
   * @throws FormatError when the record is not sealed; VeneerError (INTEGRITY) when its seal does not hold
   */
  open(entry: LeafEntry, position: number, stored: Uint8Array): Uint8Array {
    const opened = this.tryOpen(entry, position, stored);
    if (opened === undefined) throw this.brokenSeal(entry, position);
    return opened;
  }

  /** As `open`; undefined when the seal does not hold. @throws FormatError when the record is not sealed */
  tryOpen(entry: LeafEntry, position: number, stored: Uint8Array): Uint8Array | undefined {
    requireSealed(this.#image, entry, position);
    return this.#sealerOf(entry, position).open(stored, position, entry.codec, roomFor(stored.length));
  }

  /** See Sealer.openInto. @throws FormatError when the record is not sealed */
  openInto(entry: LeafEntry, position: number, front: Uint8Array, ciphertext: Uint8Array, target: Uint8Array): boolean {
    requireSealed(this.#image, entry, position);
    return this.#sealerOf(entry, position).openInto(front, ciphertext, position, entry.codec, target);
  }

  /** What to say of a record that meets its checksum and whose seal does not hold. */
  brokenSeal(entry: LeafEntry, position: number): VeneerError {
    return new VeneerError(
      'INTEGRITY',
      `${this.#image.blockName(position)}: its seal does not hold (${codecs[entry.codec] ?? 'unknown codec'}, from image ${entry.originSequence} of the chain); it was changed or moved by someone without the key`,
      { data: { position } },
    );
  }

  /** A part of what was sealed, without a check: see Sealer.openPart. @throws FormatError when the record is not sealed */
  openPart(
    entry: LeafEntry,
    position: number,
    nonce: Uint8Array,
    from: number,
    part: Uint8Array,
    target: Uint8Array,
  ): void {
    requireSealed(this.#image, entry, position);
    this.#sealerOf(entry, position).openPart(nonce, from, part, target);
  }

  #sealerOf(entry: LeafEntry, position: number): BlockSealer {
    let sealer = this.#sealers.get(entry.originSequence);
    if (sealer === undefined) {
      const origin = this.#image.sources().find(({ sequence }) => sequence === entry.originSequence);
      if (origin === undefined) {
        throw new FormatError(
          this.#image.blockName(position),
          'origin',
          12,
          `image ${entry.originSequence} of the chain is none of those it was made from`,
        );
      }
      sealer = new BlockSealer(this.#key, { ...origin, blockBytes: this.#image.description.blockBytes });
      if (this.#sealers.size === maxSealers) this.#sealers.clear();
      this.#sealers.set(entry.originSequence, sealer);
    }
    return sealer;
  }
}

/** One for all openers of this thread: a deep chain has thousands of them. */
let room = new Uint8Array(0);

function roomFor(lengthBytes: number): Uint8Array {
  if (room.length < lengthBytes) room = new Uint8Array(lengthBytes);
  return room;
}

/** In an encrypted image every record is sealed: whoever has no key could else put one of his own there. @throws FormatError */
export function requireSealed(image: Image, entry: LeafEntry, position: number): void {
  if (entry.flags === sealedFlag) return;
  throw new FormatError(
    image.blockName(position),
    'flags',
    22,
    `${entry.flags} in an encrypted image, where every block is sealed`,
  );
}

/** In a plain image no record is sealed. @throws FormatError */
export function requirePlain(image: Image, entry: LeafEntry, position: number): void {
  if (entry.flags === 0) return;
  throw new FormatError(image.blockName(position), 'flags', 22, `${entry.flags} in an image that is not encrypted`);
}
