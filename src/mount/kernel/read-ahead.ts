/**
 * Sequential streams, recognized whichever workers answer their reads, and their next blocks, inflated by a worker that would else wait.
 *
 * The read that follows is asked for as soon as one is answered, and another worker makes its blocks as it answers; so the worker that has just
 * answered makes those of the read after it. A block is begun only while another worker waits for requests; and many at once only where one
 * still waits when the next read has been taken up, for with all cores at work the reader would be kept from its own.
 */
import { KiB, MiB } from '../../base/units.ts';
import type { Board } from './board.ts';

/** What a stream reads from. */
interface Preparable {
  /** See NativeFileState.prepare. */
  prepare(offset: number): number | undefined;
}

const sets = 256;
/** Streams of one handle (and of those that share its set) that are remembered: a guest with one disk has several at once. */
const ways = 4;
/** A read that begins where the last one ended, this often in a row, makes a stream. */
const hitsOfStream = 2;
/** Reads of fewer bytes are taken to come many to a block, and those of as many to want one. */
const shortBytes = 64 * KiB;
/** Made ahead at the most. */
const windowBytes = 2 * MiB;

/** Words of a stream; `end` and `madeTo` are numbers of two words. */
const word = { slot: 0, serial: 1, end: 2, madeTo: 4, hits: 6 } as const;
const streamWords = 8;

export class ReadAhead {
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #board: Board;
  readonly #worker: number;
  /** Which way of a set is taken next. */
  #turn = 0;
  #file: Preparable | undefined;
  #from = 0;
  #to = 0;
  #isShort = true;

  /** @param streams memory that all workers share: all in it is a hint, and is read and written with no lock */
  constructor(streams: SharedArrayBuffer, board: Board, worker: number) {
    this.#words = new Int32Array(streams);
    this.#numbers = new Float64Array(streams);
    this.#board = board;
    this.#worker = worker;
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer(sets * ways * streamWords * 4);
  }

  /** Notes a read that is about to be answered; `makeNext` may then make what follows it. @param slot and serial: the handle's */
  note(file: Preparable, slot: number, serial: number, offset: number, length: number): void {
    const at = this.#streamAt(slot, serial | 0, offset);
    const end = offset + length;
    this.#numbers[(at + word.end) / 2] = end;
    if ((this.#words[at + word.hits] ?? 0) < hitsOfStream) return;
    const madeTo = this.#numbers[(at + word.madeTo) / 2] ?? 0;
    const to = end + Math.min(2 * Math.max(length, shortBytes), windowBytes);
    if (madeTo > (end + to) / 2) return;
    const from = Math.max(end + (length < shortBytes ? 0 : length), madeTo);
    this.#numbers[(at + word.madeTo) / 2] = to;
    this.#file = file;
    this.#from = from;
    this.#to = to;
    this.#isShort = length <= shortBytes;
  }

  /** Makes what the last read that was noted has coming, for as long as another worker waits for requests. */
  makeNext(): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    if (!this.#isShort && this.#board.idleBeside(this.#worker) < 2) return;
    this.#board.beginPreparing(this.#worker);
    for (let at: number | undefined = this.#from; at !== undefined && at < this.#to; at = file.prepare(at)) {
      if (this.#board.idleBeside(this.#worker) === 0) break;
    }
    this.#board.endPreparing(this.#worker);
  }

  /** The stream that a read goes on with, with one more hit; else a new one, with none. */
  #streamAt(slot: number, serial: number, offset: number): number {
    const first = (slot % sets) * ways * streamWords;
    for (let at = first; at < first + ways * streamWords; at += streamWords) {
      const isIts = this.#words[at + word.slot] === slot && this.#words[at + word.serial] === serial;
      if (!isIts || this.#numbers[(at + word.end) / 2] !== offset) continue;
      this.#words[at + word.hits] = Math.min((this.#words[at + word.hits] ?? 0) + 1, hitsOfStream);
      return at;
    }
    this.#turn = (this.#turn + 1) % ways;
    const at = first + this.#turn * streamWords;
    this.#words[at + word.slot] = slot;
    this.#words[at + word.serial] = serial;
    this.#words[at + word.hits] = 0;
    this.#numbers[(at + word.madeTo) / 2] = 0;
    return at;
  }
}
