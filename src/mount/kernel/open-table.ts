/**
 * Open files and folders of all workers: one table in shared memory, since any worker may get any request for any of them.
 *
 * A handle is a slot and a serial, which together are never used twice. Descriptors belong to the process: a worker that meets a handle for
 * the first time finds here what it needs to serve it. The table owns the descriptors; the one RELEASE closes them.
 */
import * as fs from '../../base/fs.ts';
import { bytesOfName, nameOfBytes } from '../../base/names.ts';
import { duplicateTo } from '../../base/system-calls.ts';
import { systemError } from '../../base/system-error.ts';
import { SharedLock } from '../../base/shared-lock.ts';
import type { Stamp } from './node-table.ts';

/** Each takes 48 bytes once used, and another 4.25 KiB for a native file. */
const maxOpenFiles = 2 ** 14;
const maxPathBytes = 4096;
const textBytes = maxPathBytes + 256;

/** `epoch` counts how often handles have become those of another file. */
const word = { lock: 0, open: 1, free: 2, fresh: 3, serial: 4, epoch: 5 } as const;
const headerWords = 8;
const field = {
  serial: 0,
  descriptor: 1,
  kind: 2,
  next: 3,
  pathBytes: 4,
  partBytes: 5,
  stampLow: 6,
  stampHigh: 7,
  nodeLow: 8,
  nodeHigh: 9,
  counted: 10,
} as const;
const slotWords = 12;
const high = 2 ** 32;

/**
 * `direct`: a native file that the kernel reads and writes by itself. `placed` and `placed direct` were native files, and are the ordinary
 * disk files that have taken their places.
 */
const kinds = ['plain', 'native', 'direct', 'folder', 'placed', 'placed direct'] as const;
export type OpenKind = (typeof kinds)[number];
const nativeKind = kinds.indexOf('native');

/** Whether its descriptor is that of what it reads. */
export function isOrdinary(kind: OpenKind): boolean {
  return kind === 'plain' || kind === 'placed' || kind === 'placed direct';
}

/** Whether it was opened as a native file, and counts as open there. */
export function isOfDisk(kind: OpenKind): boolean {
  return kind !== 'plain' && kind !== 'folder';
}

export interface OpenRecord {
  readonly kind: OpenKind;
  readonly fd: number;
  /** That it was opened by. */
  readonly node: number;
  /** Of a native file: the path of its plugin file when it was opened, its part, and what the plugin file was then. */
  readonly path: string;
  readonly part: string;
  readonly stamp: Stamp;
  /** The slot of the counters that count it as open. */
  readonly counted: number;
}

/** Of a handle that is no native file: none of these is looked at. */
export const noNative = { path: '', part: '', stamp: [0, 0], counted: 0 } as const;

export class OpenTable {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #text: Uint8Array;
  readonly #lock: SharedLock;

  /** @param owner this thread's number, from 1 on */
  constructor(buffer: SharedArrayBuffer | undefined, owner: number) {
    const wordBytes = (headerWords + maxOpenFiles * slotWords) * 4;
    this.buffer = buffer ?? new SharedArrayBuffer(wordBytes + maxOpenFiles * textBytes);
    this.#words = new Int32Array(this.buffer, 0, wordBytes / 4);
    this.#text = new Uint8Array(this.buffer, wordBytes);
    this.#lock = new SharedLock(this.#words, word.lock, owner);
  }

  /** Another one once handles have become those of another file. Odd while they do. */
  get epoch(): number {
    return Atomics.load(this.#words, word.epoch);
  }

  /** The same, between two such moments. */
  steadyEpoch(): number {
    while (this.epoch % 2 !== 0) this.#lock.hold(() => undefined);
    return this.epoch;
  }

  /** How many are open now. */
  get open(): number {
    return Atomics.load(this.#words, word.open);
  }

  /** @throws ENFILE when too many are open: the descriptor is still the caller's then */
  add(record: OpenRecord): { slot: number; serial: number } {
    const path = bytesOfName(record.path).subarray(0, maxPathBytes);
    const part = bytesOfName(record.part).subarray(0, textBytes - maxPathBytes);
    return this.#lock.hold(() => {
      const slot = this.#take();
      const serial = ((this.#words[word.serial] ?? 0) + 1) | 0 || 1;
      this.#words[word.serial] = serial;
      this.#set(slot, field.descriptor, record.fd);
      this.#set(slot, field.kind, kinds.indexOf(record.kind));
      this.#set(slot, field.pathBytes, path.length);
      this.#set(slot, field.partBytes, part.length);
      this.#set(slot, field.stampLow, record.stamp[0]);
      this.#set(slot, field.stampHigh, record.stamp[1]);
      this.#set(slot, field.nodeLow, record.node % high);
      this.#set(slot, field.nodeHigh, Math.floor(record.node / high));
      this.#set(slot, field.counted, record.counted);
      this.#text.set(path, slot * textBytes);
      this.#text.set(part, slot * textBytes + maxPathBytes);
      Atomics.store(this.#words, headerWords + slot * slotWords + field.serial, serial);
      return { slot, serial: serial >>> 0 };
    });
  }

  /** @throws EBADF where this handle is not open */
  get(slot: number, serial: number): OpenRecord {
    if (!this.isOpen(slot, serial)) throw systemError('EBADF', 'fuse', `handle ${slot}`);
    const text = (at: number, length: number): string =>
      nameOfBytes(this.#text.slice(slot * textBytes + at, slot * textBytes + at + length));
    const record: OpenRecord = {
      kind: kinds[this.#get(slot, field.kind)] ?? 'plain',
      fd: this.#get(slot, field.descriptor),
      path: text(0, this.#get(slot, field.pathBytes)),
      part: text(maxPathBytes, this.#get(slot, field.partBytes)),
      node: this.#nodeOf(slot),
      stamp: [this.#get(slot, field.stampLow), this.#get(slot, field.stampHigh)],
      counted: this.#get(slot, field.counted),
    };
    // Read without the lock: had it been closed meanwhile, and the slot given to another, this would be of both.
    if (!this.isOpen(slot, serial)) throw systemError('EBADF', 'fuse', `handle ${slot}`);
    return record;
  }

  isOpen(slot: number, serial: number): boolean {
    return (
      slot < maxOpenFiles &&
      serial !== 0 &&
      Atomics.load(this.#words, headerWords + slot * slotWords + field.serial) === (serial | 0)
    );
  }

  /** From now on the kernel reads and writes it by itself. */
  becomeDirect(slot: number): void {
    this.#lock.hold(() => {
      const isPlaced = isOrdinary(kinds[this.#get(slot, field.kind)] ?? 'plain');
      this.#set(slot, field.kind, kinds.indexOf(isPlaced ? 'placed direct' : 'direct'));
    });
  }

  /** Whether no other handle of its node goes through this process. Its own was added before: so of two that open at once, each sees the other. */
  isOnlyNative(slot: number): boolean {
    return this.#lock.hold(() => {
      const node = this.#nodeOf(slot);
      for (const other of this.#openSlots())
        if (other !== slot && this.#get(other, field.kind) === nativeKind && this.#nodeOf(other) === node) return false;
      return true;
    });
  }

  /** Whether a native file is open whose plugin file this is. */
  isOpenFile(stat: fs.BigIntStats): boolean {
    return this.#lock.hold(() => {
      for (const slot of this.#openSlots()) {
        const kind = kinds[this.#get(slot, field.kind)];
        if (kind !== 'native' && kind !== 'direct') continue;
        const { dev, ino } = fs.fstatSync(this.#get(slot, field.descriptor), { bigint: true });
        if (dev === stat.dev && ino === stat.ino) return true;
      }
      return false;
    });
  }

  /** Gives the slot back; the caller closes the descriptor afterwards. @throws EBADF where this handle is not open */
  remove(slot: number, serial: number): void {
    this.#lock.hold(() => {
      if (!this.isOpen(slot, serial)) throw systemError('EBADF', 'fuse', `handle ${slot}`);
      Atomics.store(this.#words, headerWords + slot * slotWords + field.serial, 0);
      this.#set(slot, field.next, this.#words[word.free] ?? 0);
      this.#words[word.free] = slot + 1;
      this.#words[word.open] = this.open - 1;
    });
  }

  /**
   * Handles of native files are those of an ordinary file from now on.
   * @param isMeant told of each handle's descriptor and part
   * @param fd of that file, open for reading and writing
   */
  replace(isMeant: (fd: number, part: string) => boolean, fd: number): void {
    this.#lock.hold(() => {
      Atomics.add(this.#words, word.epoch, 1);
      for (let slot = 0; slot < (this.#words[word.fresh] ?? 0); slot++) {
        const serial = this.#get(slot, field.serial);
        const record = serial === 0 ? undefined : this.get(slot, serial);
        if (record === undefined || (record.kind !== 'native' && record.kind !== 'direct')) continue;
        if (!isMeant(record.fd, record.part)) continue;
        duplicateTo(fd, record.fd);
        this.#set(slot, field.kind, kinds.indexOf(record.kind === 'native' ? 'placed' : 'placed direct'));
      }
      Atomics.add(this.#words, word.epoch, 1);
    });
  }

  /** Whether it is open, and that of an ordinary file. */
  isOrdinary(slot: number, serial: number): boolean {
    return this.isOpen(slot, serial) && isOrdinary(kinds[this.#get(slot, field.kind)] ?? 'plain');
  }

  /** After the death of a thread. */
  breakLock(owner: number): void {
    this.#lock.breakFor(owner);
  }

  /** Closes all descriptors: no thread may use the table any more. */
  close(): void {
    for (let slot = 0; slot < (this.#words[word.fresh] ?? 0); slot++) {
      if (this.#get(slot, field.serial) === 0) continue;
      this.#set(slot, field.serial, 0);
      fs.closeSync(this.#get(slot, field.descriptor));
    }
  }

  #take(): number {
    const free = this.#words[word.free] ?? 0;
    const fresh = this.#words[word.fresh] ?? 0;
    if (free === 0 && fresh >= maxOpenFiles)
      throw systemError(
        'ENFILE',
        'open',
        `${maxOpenFiles} files of this mount are open, as many as may be; close some`,
      );
    this.#words[word.open] = this.open + 1;
    if (free === 0) {
      this.#words[word.fresh] = fresh + 1;
      return fresh;
    }
    this.#words[word.free] = this.#get(free - 1, field.next);
    return free - 1;
  }

  *#openSlots(): Generator<number> {
    for (let slot = 0; slot < (this.#words[word.fresh] ?? 0); slot++)
      if (this.#get(slot, field.serial) !== 0) yield slot;
  }

  #nodeOf(slot: number): number {
    return (this.#get(slot, field.nodeLow) >>> 0) + (this.#get(slot, field.nodeHigh) >>> 0) * high;
  }

  #get(slot: number, name: number): number {
    return this.#words[headerWords + slot * slotWords + name] ?? 0;
  }

  #set(slot: number, name: number, value: number): void {
    this.#words[headerWords + slot * slotWords + name] = value;
  }
}
