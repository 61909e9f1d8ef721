/** From logical addresses to places on the one disk: the chunks, first from the super block, then all from the chunk tree. */
import { firstIndex } from '../../base/search.ts';
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { toOffset } from '../../base/ranges.ts';
import * as format from './layout.ts';

interface Chunk {
  readonly start: number;
  readonly lengthBytes: number;
  /** Where it begins on the disk; more than one place where it is kept twice. */
  readonly places: readonly number[];
}

const maxChunks = 100_000;
const maxAddress = 2 ** 52;

export class ChunkMap {
  readonly #chunks = new Map<number, Chunk>();
  #sorted: Chunk[] | undefined;

  /** @param offset of the chunk in the logical space, from its key */
  add(offset: bigint, item: Uint8Array, at: number, deviceId: bigint): void {
    const where = { structure: 'btrfs chunk', offset: at };
    const start = toOffset(offset, maxAddress, { ...where, field: 'address' });
    const { length, type, stripeCount } = format.chunk.parse(item);
    const lengthBytes = toOffset(length, maxAddress, { ...where, field: 'length' });
    const profile = type & format.profiles.all;
    const copies = profile === format.profiles.dup ? 2 : 1;
    if ((profile !== 0n && profile !== format.profiles.dup) || stripeCount !== copies)
      throw new UnsupportedError('btrfs: it is spread over several disks (RAID); only single and DUP are read');
    const places = Array.from({ length: copies }, (_, index) => {
      const stripe = format.stripe.parse(item, format.chunk.sizeBytes + index * format.stripe.sizeBytes);
      if (stripe.device !== deviceId)
        throw new UnsupportedError('btrfs: a part of it lies on another disk; only one is read');
      return toOffset(stripe.offset, maxAddress, { ...where, field: 'stripe' });
    });
    if (this.#chunks.size >= maxChunks)
      throw new UnsupportedError(`btrfs: more than ${maxChunks} chunks; it is not read`);
    this.#chunks.set(start, { start, lengthBytes, places });
    this.#sorted = undefined;
  }

  /** The places of [address, address+length) on the disk, the first being read first. */
  placesOf(address: bigint | number, length: number, what: string): number[] {
    const at = toOffset(BigInt(address), maxAddress, { structure: what, field: 'address', offset: 0 });
    const sorted = (this.#sorted ??= [...this.#chunks.values()].sort((a, b) => a.start - b.start));
    const chunk = sorted[firstIndex(sorted.length, (index) => (sorted[index]?.start ?? Infinity) > at) - 1];
    if (chunk === undefined || at + length > chunk.start + chunk.lengthBytes)
      throw new FormatError(what, 'address', at, `${length} bytes there are in no chunk`);
    return chunk.places.map((place) => place + (at - chunk.start));
  }
}
