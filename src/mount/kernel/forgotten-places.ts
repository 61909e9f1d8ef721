/**
 * Where files lay that the kernel has forgotten, so that one who still has a handle of one (an NFS client, open_by_handle_at) gets it again. A
 * ring of paths in shared memory: the newest that fit. Whether the file that lies there now is the same is for others to judge.
 *
 * Its user holds the lock of the node table.
 */
import { bytesOfName, nameOfBytes } from '../../base/names.ts';

/** Where in the ring a path lies is counted in these, from the first on, and so fits in 32 bits for a long time. */
const unitBytes = 8;
/** Of the ring's head: how many units were ever written. */
const headBytes = 8;
/** Of each path: its node, that node's generation, its length; and padding. */
const entryHeadBytes = 16;

export const placesBytes = headBytes + 2 ** 22;

export class ForgottenPlaces {
  readonly #head: Uint32Array;
  readonly #ring: Buffer;

  /** @param bytes of shared memory, `placesBytes` long and aligned to 8 */
  constructor(bytes: Uint8Array) {
    this.#head = new Uint32Array(bytes.buffer, bytes.byteOffset, 1);
    this.#ring = Buffer.from(bytes.buffer, bytes.byteOffset + headBytes, bytes.byteLength - headBytes);
  }

  /** @returns where it is, for `at` */
  add(node: number, generation: number, path: string): number {
    const encoded = bytesOfName(path);
    const length = Math.ceil((entryHeadBytes + encoded.length) / unitBytes) * unitBytes;
    let start = this.#written * unitBytes;
    const inRing = start % this.#ring.length;
    // One is never cut in two.
    if (inRing + length > this.#ring.length) start += this.#ring.length - inRing;
    const at = start % this.#ring.length;
    this.#ring.writeUInt32LE(node, at);
    this.#ring.writeUInt32LE(generation, at + 4);
    this.#ring.writeUInt32LE(encoded.length, at + 8);
    encoded.copy(this.#ring, at + entryHeadBytes);
    this.#head[0] = (start + length) / unitBytes;
    return start / unitBytes;
  }

  /** Undefined where it was written over since. */
  at(position: number, node: number, generation: number): string | undefined {
    const age = (this.#written - position) >>> 0;
    if (age === 0 || age * unitBytes > this.#ring.length) return undefined;
    const at = (position * unitBytes) % this.#ring.length;
    if (this.#ring.readUInt32LE(at) !== node || this.#ring.readUInt32LE(at + 4) !== generation) return undefined;
    const length = this.#ring.readUInt32LE(at + 8);
    return nameOfBytes(this.#ring.subarray(at + entryHeadBytes, at + entryHeadBytes + length));
  }

  get #written(): number {
    return this.#head[0] ?? 0;
  }
}
