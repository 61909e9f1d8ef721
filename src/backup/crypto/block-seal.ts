/**
 * A block, sealed: bound to its chain, its position, the image that stored it first, its codec and its block size, and to nothing about the
 * file that it lies in, so that it can be moved into a consolidated image as it is.
 *
 * Each image's blocks are sealed under a key of that image's own, derived from the chain's: no nonce can be used twice by two images that do
 * not know of each other, and the limit of 2^32 blocks for a key is one of a single image.
 */
import { FormatError, VeneerError } from '../../base/errors.ts';
import { guidToBytes, type Guid } from '../../bytes/guid.ts';
import { guid, layout, u32le, u64le, u8 } from '../../bytes/layout.ts';
import type { Image } from '../read/image.ts';
import { codecs, sealedFlag, type LeafEntry } from '../format/layout.ts';
import type { ChainKey, Sealer } from './seal.ts';

/** What a block's seal is bound to (AAD). */
const boundLayout = layout('what a block is bound to', 33, {
  chainId: guid(0),
  position: u64le(16),
  originSequence: u32le(24),
  blockBytes: u32le(28),
  codec: u8(32),
});
const positionOffset = boundLayout.offsetOf('position');
const codecOffset = boundLayout.offsetOf('codec');
/** Sealers that an image keeps: a consolidated one may have blocks of 100,000 others. */
const maxSealers = 4096;

/** Seals and opens the blocks that one image stored first. */
export class BlockSealer {
  readonly #sealer: Sealer;
  readonly #bound: Uint8Array;
  readonly #view: DataView;

  constructor(
    key: ChainKey,
    image: { readonly imageId: Guid; readonly sequence: number; readonly blockBytes: number },
  ) {
    this.#sealer = key.sealer('veneer block', guidToBytes(image.imageId));
    this.#bound = boundLayout.encode({
      chainId: key.chainId,
      position: 0n,
      originSequence: image.sequence,
      blockBytes: image.blockBytes,
      codec: 0,
    });
    this.#view = new DataView(this.#bound.buffer);
  }

  /** @param target longer than `stored` by `sealOverheadBytes` */
  seal(stored: Uint8Array, position: number, codec: number, target: Uint8Array): void {
    this.#sealer.seal(stored, this.#bind(position, codec), target);
  }

  /** In `room`, where it fits. Undefined when it is not this image's block of this position. */
  open(sealed: Uint8Array, position: number, codec: number, room: Uint8Array): Uint8Array | undefined {
    return this.#sealer.open(sealed, this.#bind(position, codec), room);
  }

  /** See Sealer.openInto. */
  openInto(front: Uint8Array, ciphertext: Uint8Array, position: number, codec: number, target: Uint8Array): boolean {
    return this.#sealer.openInto(front, ciphertext, this.#bind(position, codec), target);
  }

  /** See Sealer.openPart. */
  openPart(nonce: Uint8Array, from: number, part: Uint8Array, target: Uint8Array): void {
    this.#sealer.openPart(nonce, from, part, target);
  }

  #bind(position: number, codec: number): Uint8Array {
    this.#view.setBigUint64(positionOffset, BigInt(position), true);
    this.#view.setUint8(codecOffset, codec);
    return this.#bound;
  }
}

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
