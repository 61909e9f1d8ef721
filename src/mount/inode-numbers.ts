/**
 * The numbers that files have under the mount (st_ino, and d_ino of listings). All of a mount is one device to those who look, so that two
 * files behind it must not have one number: programs that copy hard links take them for one file.
 *
 * - a file on the device of the mounted folder has its own number
 * - one on another device (another file system below, a btrfs subvolume), and one that only the mount has, gets one of the upper half: of 64
 *   bits, so that two of them are never met with the same
 * - a file that took another's place (finalize) has that one's number for as long as the mount lives, and what gets its number behind the
 *   mount afterwards has one of the upper half
 *
 * The last is in shared memory, since all threads must say the same.
 */
import { bytesOfName } from '../base/names.ts';

/** A file behind the mount, or a part that is made of it. */
export interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

const upperHalf = 2n ** 63n;
/** Files that take another's place in one mount; further ones keep their own numbers. */
const maxKept = 4096;
/** Of each: device, number behind the mount, number under it. */
const keptWords = 3;

export class InodeNumbers {
  /** Give it to another thread's `InodeNumbers`. */
  readonly buffer: SharedArrayBuffer;
  readonly #device: bigint;
  /** How many there are, and then the entries. */
  readonly #kept: BigUint64Array;

  /** @param device of the mounted folder */
  constructor(device: bigint, buffer: SharedArrayBuffer = InodeNumbers.allocate()) {
    this.buffer = buffer;
    this.#device = device;
    this.#kept = new BigUint64Array(buffer);
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer((1 + maxKept * keptWords) * 8);
  }

  /** @param part '' for the file itself */
  of({ dev, ino }: FileIdentity, part = ''): bigint {
    if (part !== '') return made(dev, ino, part);
    const own = dev === this.#device && ino < upperHalf;
    const count = Number(Atomics.load(this.#kept, 0));
    if (count === 0) return own ? ino : made(dev, ino);
    let isTaken = false;
    for (let at = 1; at < 1 + count * keptWords; at += keptWords) {
      if (this.#kept[at] === dev && this.#kept[at + 1] === ino) return this.#kept[at + 2] ?? ino;
      isTaken ||= this.#kept[at + 2] === ino;
    }
    return own && !isTaken ? ino : made(dev, ino);
  }

  /** `file` has this number from now on, whatever it is behind the mount. Called by one thread at a time. */
  keep({ dev, ino }: FileIdentity, number: bigint): void {
    const count = Number(Atomics.load(this.#kept, 0));
    if (count === maxKept) return;
    // Whoever had this file's place in the list is gone: its number behind the mount is another file's now.
    let at = 1;
    while (at < 1 + count * keptWords && !(this.#kept[at] === dev && this.#kept[at + 1] === ino)) at += keptWords;
    this.#kept[at] = dev;
    this.#kept[at + 1] = ino;
    this.#kept[at + 2] = number;
    if (at === 1 + count * keptWords) Atomics.store(this.#kept, 0, BigInt(count + 1));
  }
}

/** The same each time. Of one device, different files have different numbers but for one pair in 2^63. */
function made(device: bigint, inode: bigint, part = ''): bigint {
  let hash = mix(inode ^ mix(device));
  for (const byte of bytesOfName(part)) hash = mix(hash ^ BigInt(byte));
  return hash | upperHalf;
}

/** Of 64 bits to 64 bits, one to one (the last step of splitmix64). */
function mix(value: bigint): bigint {
  const sum = BigInt.asUintN(64, value + 0x9e3779b97f4a7c15n);
  const first = BigInt.asUintN(64, (sum ^ (sum >> 30n)) * 0xbf58476d1ce4e5b9n);
  const second = BigInt.asUintN(64, (first ^ (first >> 27n)) * 0x94d049bb133111ebn);
  return second ^ (second >> 31n);
}
