/**
 * Passthrough: a file behind is registered with the kernel, which then reads and writes it by itself for every handle that was answered with
 * the number it gave. For disk files that are complete: nothing is left to be made on the fly, and the guest has the file's own speed.
 *
 * The kernel's rules (Linux 6.9): all handles of a file that are open at once have the same number, and none of them is an ordinary one. Who
 * registers needs CAP_SYS_ADMIN, and the file behind must not lie on a stacked file system itself. Where it refuses, handles stay ordinary.
 */
import { describeError } from '../../base/errors.ts';
import { SharedLock } from '../../base/shared-lock.ts';
import type { Log } from '../../base/log.ts';
import { callDevice } from '../../base/system-calls.ts';
import type { DirectFile } from '../../replacement/replacement.ts';
import type { SynthesizedFile } from '../open-file.ts';
import type { OpenTable } from './open-table.ts';

/** _IOW(229, 1, struct fuse_backing_map) */
const FUSE_DEV_IOC_BACKING_OPEN = 0x4010e501;
/** _IOW(229, 2, uint32_t) */
const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004e502;
/** Of DirectFile.backing. */
const word = { number: 0, lock: 1 } as const;

/** For `number`: nobody registers it any more. */
const never = -1;

/**
 * From now on the handles of a file stay of the kind that they are of: it is to become an ordinary file.
 * @returns the number that all of them must have; 0 where they are ordinary ones
 */
export function settleBacking(buffer: SharedArrayBuffer, owner: number): number {
  const backing = new Int32Array(buffer);
  return new SharedLock(backing, word.lock, owner).hold(() => {
    Atomics.compareExchange(backing, word.number, 0, never);
    return Math.max(0, Atomics.load(backing, word.number));
  });
}

/**
 * The kernel has a file open for as long as it is registered, and keeps that while any copy of the mount is left, in whatever mount namespace:
 * a file that nobody has open any more, and its lock, must not outlast the server by that.
 * @param device of the mount, or a channel; no thread registers anything any more
 * @throws the system's error
 */
export function closeBacking(device: number, buffer: SharedArrayBuffer): void {
  const number = Atomics.exchange(new Int32Array(buffer), word.number, never);
  if (number > 0) callDevice(device, FUSE_DEV_IOC_BACKING_CLOSE, Uint32Array.of(number), 'BACKING_CLOSE');
}

export class Backings {
  readonly #channel: number | undefined;
  readonly #table: OpenTable;
  #isRefused = false;
  readonly #owner: number;
  readonly #log: Log;

  /**
   * @param channel of the mount; undefined where the kernel cannot
   * @param owner this thread's number, from 1 on
   */
  constructor(channel: number | undefined, table: OpenTable, owner: number, log: Log) {
    this.#channel = channel;
    this.#table = table;
    this.#owner = owner;
    this.#log = log;
  }

  /**
   * The number to answer an open with; undefined where the handle is to be an ordinary one. A file is registered when no other handle of it
   * is open; from then on every handle of it is a direct one. A handle that another thread is about to give out is in the table already:
   * whoever registers has the lock, and who comes later finds the number there.
   * @param slot of its handle in the table
   */
  of(file: SynthesizedFile, slot: number, forWriting: boolean): number | undefined {
    const channel = this.#channel;
    const direct = channel === undefined ? undefined : file.directFile;
    if (channel === undefined || direct === undefined) return undefined;
    const lock = new SharedLock(direct.backing, word.lock, this.#owner);
    const number = lock.hold(() => {
      const known = Atomics.load(direct.backing, word.number);
      return known === 0 && this.#table.isOnlyNative(slot) ? this.#register(channel, direct) : known;
    });
    if (number <= 0) return undefined;
    this.#table.becomeDirect(slot);
    if (forWriting) direct.allowWrites();
    return number;
  }

  /** @returns 0 where it is not allowed, or the file lies on a stacked file system: what the kernel refused once, it refuses again */
  #register(channel: number, { fd, backing }: DirectFile): number {
    if (this.#isRefused) return 0;
    let why: string;
    try {
      const number = callDevice(channel, FUSE_DEV_IOC_BACKING_OPEN, Uint32Array.of(fd, 0, 0, 0), 'BACKING_OPEN');
      if (number > 0) {
        Atomics.store(backing, word.number, number);
        return number;
      }
      why = `its number is ${number}`;
    } catch (error) {
      why = describeError(error);
    }
    this.#isRefused = true;
    this.#log('info', `the kernel does not serve complete disk files by itself: ${why}`, {});
    return 0;
  }
}
