/**
 * What the threads of a mount tell each other about the writes that are kept, in shared memory.
 *
 * - For which plugin files a replacement was opened or made: a thread never reads a disk as synthesized that another has written. The folder
 *   is served once (served-folder.ts), so nobody else makes any; what an earlier mount has kept is seen on disk at the first look.
 * - Where a plugin file gets another name or loses it, and where a replacement is made beside it, nothing of the like is under way elsewhere.
 */
import type * as fs from '../base/fs.ts';
import { SharedLock } from '../base/shared-lock.ts';

/** `marks` is a set of hashes: it may say yes where none is, and never no where one is. */
const marks = 65536;
const word = { made: 0, names: 1, firstMark: 2, count: 2 + marks / 32 } as const;
/** The main thread, in locks: workers are numbered from 1 on. */
const mainOwner = 0x40000000;

export class DiskSignals {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #names: SharedLock;

  /** @param owner this thread's number, from 1 on; absent in the main thread */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(word.count * 4), owner = mainOwner) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#names = new SharedLock(this.#words, word.names, owner);
  }

  /** How often anything was said. */
  get made(): number {
    return Atomics.load(this.#words, word.made);
  }

  /** Says of a plugin file that it has a replacement: when it is there for all to find, and before anything is written to it. */
  note(plugin: number): void {
    Atomics.or(this.#words, word.firstMark + Math.floor(plugin / 32), (2 ** (plugin % 32)) | 0);
    Atomics.add(this.#words, word.made, 1);
  }

  /** Whether that may have been said. */
  isNoted(plugin: number): boolean {
    return ((Atomics.load(this.#words, word.firstMark + Math.floor(plugin / 32)) >>> (plugin % 32)) & 1) === 1;
  }

  /** Runs `action` while no other thread changes names of plugin files or makes replacements. */
  whileNamesStay<T>(action: () => T): T {
    return this.#names.hold(action);
  }

  /** After the death of a thread. */
  breakLock(owner: number): void {
    this.#names.breakFor(owner);
  }
}

/** The mark of a plugin file. */
export function markOf({ dev, ino }: fs.BigIntStats): number {
  const mixed = BigInt.asUintN(64, (ino ^ BigInt.asUintN(64, dev * 0x9e3779b97f4a7c15n)) * 0xff51afd7ed558ccdn);
  return Number(mixed >> 48n);
}
