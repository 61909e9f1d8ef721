/**
 * Pages of sealed blocks that are stored as they are, opened alone. A seal holds for a whole block; once it has been seen to hold, a tag of
 * each page is remembered (page-sums.ts has the table), and later reads fetch only the pages that they want, check them, and decrypt them.
 *
 * The tags are made under a key of their own, and stand in memory only: whoever can change the image cannot make a page that meets one, as he
 * could with a checksum. Each depends on the record that its page belongs to.
 *
 * A tag is GMAC, 96 bits (NIST SP 800-38D); its nonce is the record's own, changed by the record's checksum and the page's number in its block.
 */
import { gcm, keyBytes, nonceBytes, tagBytes } from '../crypto/aes-gcm.ts';
import type { ChainKey } from '../crypto/seal.ts';
import { pieceWords, sumPageBytes, type PageSums, type PieceKey } from './page-sums.ts';

const nonceWords = nonceBytes / 4;
/** Of the tag's 128 bits, 96 are kept. */
const tagWords = 3;
/** An entry of the table is for so much of a sealed block: 16 KiB. */
export const sealedPieceBytes = Math.floor((pieceWords - nonceWords) / tagWords) * sumPageBytes;

const nothing = new Uint8Array(0);

export class SealedPages {
  readonly #table: PageSums;
  readonly #key: Uint8Array;
  /** The nonce of the record that is looked at. */
  readonly #nonce = new Uint8Array(nonceBytes);
  readonly #nonceWords = new Int32Array(this.#nonce.buffer);
  readonly #tagNonce = new Uint8Array(nonceBytes);
  readonly #tagNonceWords = new Int32Array(this.#tagNonce.buffer);
  readonly #tag = new Uint8Array(tagBytes);
  readonly #tagWords = new Int32Array(this.#tag.buffer);

  constructor(table: PageSums, key: ChainKey) {
    this.#table = table;
    this.#key = key.material('veneer page', nothing, keyBytes);
  }

  /**
   * Whether sealed pages that were just read, of one piece, are those that are remembered at `at` of the table.
   * @param start of the first of them in their block, in bytes
   * @returns the nonce of their record, until the next call; undefined when they are not
   */
  judge(at: number, key: PieceKey, start: number, pages: Uint8Array): Uint8Array | undefined {
    const { words } = this.#table;
    for (let word = 0; word < nonceWords; word++) this.#nonceWords[word] = words[at + word] ?? 0;
    for (let done = 0; done < pages.length; done += sumPageBytes) {
      this.#makeTag(key, start + done, pages.subarray(done, done + sumPageBytes));
      const tag = tagAt(at, start + done);
      for (let word = 0; word < tagWords; word++) {
        if (words[tag + word] !== this.#tagWords[word]) return undefined;
      }
    }
    return this.#nonce;
  }

  /**
   * @param piece sealed bytes of a record whose seal has been seen to hold just now
   * @param start of the piece in its block
   */
  remember(key: PieceKey, nonce: Uint8Array, start: number, piece: Uint8Array): void {
    const at = this.#table.claim(key);
    if (at === undefined) return;
    const { words } = this.#table;
    this.#nonce.set(nonce);
    for (let word = 0; word < nonceWords; word++) words[at + word] = this.#nonceWords[word] ?? 0;
    for (let done = 0; done < piece.length; done += sumPageBytes) {
      this.#makeTag(key, start + done, piece.subarray(done, done + sumPageBytes));
      const tag = tagAt(at, start + done);
      for (let word = 0; word < tagWords; word++) words[tag + word] = this.#tagWords[word] ?? 0;
    }
  }

  #makeTag(key: PieceKey, start: number, page: Uint8Array): void {
    const [first = 0, second = 0, third = 0] = this.#nonceWords;
    this.#tagNonceWords[0] = first;
    this.#tagNonceWords[1] = second ^ key.recordCrc32c;
    this.#tagNonceWords[2] = third ^ (start / sumPageBytes);
    gcm.seal(this.#key, this.#tagNonce, page, nothing, nothing, this.#tag);
  }
}

/** Where in the table the tag of a page stands, by where the entry's words do. */
function tagAt(at: number, start: number): number {
  return at + nonceWords + ((start % sealedPieceBytes) / sumPageBytes) * tagWords;
}
