/**
 * Inode numbers of 32 bits, which is what the binding carries. A number that fits in half of them stays as it is; others get one of the upper
 * half each, the same as long as the mount lives, and never one that another file has.
 */
const upperHalf = 2 ** 31;
/** Files whose numbers do not fit: each takes some 100 bytes. Further ones share numbers. */
const maxWide = 2 ** 20;

export class NarrowNumbers {
  readonly #narrow = new Map<bigint, number>();
  #last = upperHalf - 1;

  of(inode: bigint): number {
    if (inode < upperHalf) return Number(inode);
    let narrow = this.#narrow.get(inode);
    if (narrow === undefined) {
      if (this.#narrow.size >= maxWide) return upperHalf + Number(BigInt.asUintN(31, inode ^ (inode >> 31n)));
      narrow = ++this.#last;
      this.#narrow.set(inode, narrow);
    }
    return narrow;
  }
}
