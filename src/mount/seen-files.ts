/**
 * Which files were found to be images or nothing of ours, by the state that they were in: 40 bytes for each, in a table of fixed size, so that
 * a folder of a hundred thousand files is looked at once and costs no more than that. A new file takes the place of one that shares its row.
 */
import type * as fs from '../base/fs.ts';

const rowBits = 16;
const perRow = 4;
const keyWords = 5;
const kinds = [undefined, 'plain', 'image'] as const;
export type SeenKind = NonNullable<(typeof kinds)[number]>;

export class SeenFiles {
  readonly #keys = new BigUint64Array(2 ** rowBits * perRow * keyWords);
  readonly #kinds = new Uint8Array(2 ** rowBits * perRow);
  #turn = 0;

  /** What it was found to be; undefined where it was not looked at in this state, or that is forgotten. */
  get(stat: fs.BigIntStats): SeenKind | undefined {
    const row = rowOf(stat);
    for (let entry = row; entry < row + perRow; entry++)
      if (this.#is(entry, stat)) return kinds[this.#kinds[entry] ?? 0];
    return undefined;
  }

  set(stat: fs.BigIntStats, kind: SeenKind): void {
    const row = rowOf(stat);
    let entry = row + (this.#turn = (this.#turn + 1) % perRow);
    for (let free = row; free < row + perRow; free++) if (this.#kinds[free] === 0) entry = free;
    this.#keys.set([stat.ino, stat.dev, stat.size, stat.mtimeNs, stat.ctimeNs].map(asWord), entry * keyWords);
    this.#kinds[entry] = kinds.indexOf(kind);
  }

  #is(entry: number, stat: fs.BigIntStats): boolean {
    const at = entry * keyWords;
    return (
      this.#kinds[entry] !== 0 &&
      this.#keys[at] === stat.ino &&
      this.#keys[at + 1] === stat.dev &&
      this.#keys[at + 2] === stat.size &&
      this.#keys[at + 3] === asWord(stat.mtimeNs) &&
      this.#keys[at + 4] === asWord(stat.ctimeNs)
    );
  }
}

/** Times may lie before 1970. */
function asWord(value: bigint): bigint {
  return BigInt.asUintN(64, value);
}

/** Neighbouring inode numbers lie in different rows. */
function rowOf({ ino }: fs.BigIntStats): number {
  const mixed = BigInt.asUintN(64, ino * 0x9e3779b97f4a7c15n);
  return Number(mixed >> BigInt(64 - rowBits)) * perRow;
}
