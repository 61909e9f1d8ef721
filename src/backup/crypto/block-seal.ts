/**
 * A block, sealed: bound to its chain, its position, the image that stored it first, its codec and its block size, and to nothing about the
 * file that it lies in, so that it can be moved into a consolidated image as it is.
 *
 * Each image's blocks are sealed under a key of that image's own, derived from the chain's: no nonce can be used twice by two images that do
 * not know of each other, and the limit of 2^32 blocks for a key is one of a single image.
 */
import { guidToBytes, type Guid } from '../../bytes/guid.ts';
import { guid, layout, u32le, u64le, u8 } from '../../bytes/layout.ts';
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
