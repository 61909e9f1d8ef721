/**
 * Sealing under the key of a chain: AES-256-GCM, a random 96-bit nonce for each unit, the tag in front of the ciphertext.
 *
 * A chain has one random key. It seals nothing itself: for each use a key is derived from it with HKDF-SHA-256 (salt: the chain's GUID), so
 * that no nonce of one use can meet one of another. The chain key stands in no file but wrapped (key-slots.ts), and in no message ever: its
 * bytes leave this module only for the threads of this process.
 */
import { createHmac, hkdfSync, randomBytes, randomFillSync } from 'node:crypto';
import { assert } from '../../base/errors.ts';
import { guidToBytes, type Guid } from '../../bytes/guid.ts';
import { gcm, keyBytes, nonceBytes, tagBytes } from './aes-gcm.ts';

export const chainKeyBytes = keyBytes;
/** By how much a sealed unit is longer than its plain bytes: nonce, then tag, in front of the ciphertext. */
export const sealOverheadBytes = nonceBytes + tagBytes;
/** Nonces that are drawn at once. */
const noncesAtOnce = 64;

/** What a key is derived for. Whoever adds a use adds a name, and seals at most 2^32 units under each key derived for it. */
export type KeyUse =
  | 'veneer block' //        context: GUID of the image that stores the block first
  | 'veneer commit' //       no context
  | 'veneer page' //         no context; its tags stay in memory (read/sealed-pages.ts)
  | 'veneer replacement' //  context: what names the replacement disk file, and this very copy of it
  | 'veneer patch set'; //   context: what names the patch set

/** A chain key on its way to another thread of this process. Never to a file, an argument, a log or a message. */
export interface ThreadKey {
  readonly chainId: Guid;
  readonly bytes: Uint8Array;
}

export class ChainKey {
  readonly chainId: Guid;
  readonly #bytes: Uint8Array;

  constructor({ chainId, bytes }: ThreadKey) {
    assert(bytes.length === chainKeyBytes, 'a chain key of another length');
    this.chainId = chainId;
    this.#bytes = bytes;
  }

  static random(chainId: Guid): ChainKey {
    return new ChainKey({ chainId, bytes: randomBytes(chainKeyBytes) });
  }

  toThread(): ThreadKey {
    return { chainId: this.chainId, bytes: this.#bytes };
  }

  /**
   * The sealer of one use.
   * @param context tells keys of the same use apart: whatever is sealed under one key shares its limit of 2^32 units
   */
  sealer(use: KeyUse, context: Uint8Array = new Uint8Array(0)): Sealer {
    return new Sealer(this.#derive(use, context));
  }

  /** HMAC-SHA-256 of what the holder of the key vouches for. */
  hmac(use: KeyUse, bytes: Uint8Array): Uint8Array {
    return createHmac('sha256', this.#derive(use, new Uint8Array(0)))
      .update(bytes)
      .digest();
  }

  /** Key material of one use, for ciphers that seal otherwise. For the threads of this process, as the chain key. */
  material(use: KeyUse, context: Uint8Array, lengthBytes: number): Uint8Array {
    return this.#derive(use, context, lengthBytes);
  }

  #derive(use: KeyUse, context: Uint8Array, lengthBytes = chainKeyBytes): Uint8Array {
    const info = Buffer.concat([Buffer.from(`${use}\0`), context]);
    return new Uint8Array(hkdfSync('sha256', this.#bytes, guidToBytes(this.chainId), info, lengthBytes));
  }
}

/** Seals units under one key. A unit is opened whole, or not at all. */
export class Sealer {
  readonly #key: Uint8Array;
  #nonces = new Uint8Array(0);
  #nextNonce = 0;

  /** @param key 32 bytes */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /**
   * Seals `plain` into `target`, which is longer by `sealOverheadBytes`. The two may not overlap.
   * @param bound additional data (AAD): what a sealed unit is bound to, given again to open it
   */
  seal(plain: Uint8Array, bound: Uint8Array, target: Uint8Array): void {
    assert(target.length === plain.length + sealOverheadBytes, 'no room for a sealed unit');
    const nonce = this.#nonce();
    target.set(nonce);
    const tag = target.subarray(nonceBytes, sealOverheadBytes);
    gcm.seal(this.#key, nonce, bound, plain, target.subarray(sealOverheadBytes), tag);
  }

  /**
   * The plain bytes of a sealed unit, in `room` where they fit, else in memory of their own.
   * @returns undefined when it was not sealed under this key with this `bound`, or has been changed since
   */
  open(sealed: Uint8Array, bound: Uint8Array, room?: Uint8Array): Uint8Array | undefined {
    const length = sealed.length - sealOverheadBytes;
    if (length < 0) return undefined;
    const target = room !== undefined && room.length >= length ? room.subarray(0, length) : new Uint8Array(length);
    return this.openInto(sealed, sealed.subarray(sealOverheadBytes), bound, target) ? target : undefined;
  }

  /**
   * Opens a unit whose ciphertext lies apart from what stands in front of it.
   * @param front begins with nonce and tag
   * @param target as long as the ciphertext; may be the ciphertext
   * @returns whether the seal holds: else the target is worthless
   */
  openInto(front: Uint8Array, ciphertext: Uint8Array, bound: Uint8Array, target: Uint8Array): boolean {
    const nonce = front.subarray(0, nonceBytes);
    return gcm.open(this.#key, nonce, bound, ciphertext, target, front.subarray(nonceBytes, sealOverheadBytes));
  }

  /** A part of a sealed unit's plain bytes, without a check. See `decryptPart` in aes-gcm.ts. @param nonce the unit's */
  openPart(nonce: Uint8Array, from: number, part: Uint8Array, target: Uint8Array): void {
    gcm.decryptPart(this.#key, nonce, from, part, target);
  }

  #nonce(): Uint8Array {
    if (this.#nextNonce === this.#nonces.length) {
      this.#nonces = randomFillSync(new Uint8Array(noncesAtOnce * nonceBytes));
      this.#nextNonce = 0;
    }
    this.#nextNonce += nonceBytes;
    return this.#nonces.subarray(this.#nextNonce - nonceBytes, this.#nextNonce);
  }
}
