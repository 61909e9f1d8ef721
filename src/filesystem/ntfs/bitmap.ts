/** One bit for each of something: clusters of the volume, file records, blocks of a folder. Searched piece by piece, never held as a whole. */
import { KiB } from '../../base/units.ts';

export interface BitRun {
  readonly first: number;
  readonly count: number;
}

const windowBytes = 64 * KiB;

/** Where the bits come from: fills the target or throws. */
export type ReadBits = (target: Uint8Array, offset: number) => void;

/** Runs of clear bits in [from, to), in order; one may end, and the next begin, at any multiple of 524,288. */
export function* clearRuns(read: ReadBits, from: number, to: number): Generator<BitRun> {
  for (let start = from - (from % (windowBytes * 8)); start < to; start += windowBytes * 8) {
    const end = Math.min(to, start + windowBytes * 8);
    const bytes = new Uint8Array(Math.ceil((end - start) / 8));
    read(bytes, start / 8);
    yield* clearRunsOf(bytes, start, Math.max(from, start), end);
  }
}

/** Bit 0 of the bytes is number `start`. */
function* clearRunsOf(bytes: Uint8Array, start: number, from: number, to: number): Generator<BitRun> {
  let first: number | undefined;
  for (let bit = from; bit < to;) {
    const byte = bytes[(bit - start) >>> 3] ?? 0xff;
    const atByte = bit % 8 === 0 && bit + 8 <= to;
    const isClear = (byte & (2 ** (bit % 8))) === 0;
    if (isClear) first ??= bit;
    else if (first !== undefined) {
      yield { first, count: bit - first };
      first = undefined;
    }
    bit += atByte && (byte === 0 || byte === 0xff) ? 8 : 1;
  }
  if (first !== undefined) yield { first, count: to - first };
}

/** The bytes that hold the bits of a run, with these bits set, and where they stand. */
export function withBitsSet(
  read: ReadBits,
  { first, count }: BitRun,
): { readonly offset: number; readonly bytes: Uint8Array } {
  const offset = Math.floor(first / 8);
  const bytes = new Uint8Array(Math.floor((first + count - 1) / 8) + 1 - offset);
  read(bytes, offset);
  for (let bit = first; bit < first + count; bit++) {
    const at = Math.floor(bit / 8) - offset;
    bytes[at] = (bytes[at] ?? 0) | (2 ** (bit % 8));
  }
  return { offset, bytes };
}
