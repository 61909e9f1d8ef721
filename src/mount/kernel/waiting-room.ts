/**
 * Requests that wait for a source with too many threads inside (source-watch.ts), in shared memory: a thread that meets such a source puts
 * its request here and goes on to the next one, so that no disk whose source answers waits for it. Whoever has just answered a request takes
 * one up again whose source is open by then, from its beginning; the main thread fails those that have waited for too long.
 *
 * One change of a place's word decides who has a request: it is answered by who took it, and by nobody else.
 */
import { bodyAt, type Request } from './request.ts';
import { inHeader, maxTransferBytes, requestHeadBytes } from './protocol.ts';
import type { CurrentRequest } from './board.ts';

/** Of requests that carry little, and of those that carry much: writes. Requests beyond fail at once. */
const smallPlaces = 512;
const largePlaces = 32;
const places = smallPlaces + largePlaces;
const smallBytes = 8192;
const largeBytes = maxTransferBytes + requestHeadBytes;
const waiting = 0;
const headerWords = 2;
const field = { state: 0, channel: 1, source: 2, lengthBytes: 3, sinceMs: 4 } as const;
const placeWords = 6;
const state = { free: 0, busy: 1, waits: 2 } as const;
const uniqueAt = inHeader.offsetOf('unique');

export interface WaitingRequest extends CurrentRequest {
  readonly source: number;
}

export class WaitingRoom {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #bytes: Uint8Array;

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    const wordBytes = (headerWords + places * placeWords) * 4;
    this.#words = new Int32Array(buffer, 0, wordBytes / 4);
    this.#numbers = new Float64Array(buffer, 0, wordBytes / 8);
    this.#bytes = new Uint8Array(buffer, wordBytes);
  }

  /** Memory is touched as it is used. */
  static allocate(): WaitingRoom {
    return new WaitingRoom(new SharedArrayBuffer((headerWords + places * placeWords) * 4 + startOf(places)));
  }

  get isEmpty(): boolean {
    return this.#words[waiting] === 0;
  }

  get count(): number {
    return Atomics.load(this.#words, waiting);
  }

  /** @param channel that the request came on, and is to be answered on. @returns false where there is no room */
  put(request: Request, channel: number, source: number): boolean {
    const first = request.lengthBytes <= smallBytes ? 0 : smallPlaces;
    for (let place = first; place < places; place++) {
      const at = headerWords + place * placeWords;
      if (!this.#claim(at, state.free)) continue;
      this.#words[at + field.channel] = channel;
      this.#words[at + field.source] = source;
      this.#words[at + field.lengthBytes] = request.lengthBytes;
      this.#numbers[(at + field.sinceMs) / 2] = request.sinceUnixMs ?? Date.now();
      this.#bytes.set(request.bytes.subarray(0, request.lengthBytes), startOf(place));
      Atomics.add(this.#words, waiting, 1);
      Atomics.store(this.#words, at + field.state, state.waits);
      return true;
    }
    return false;
  }

  /** Takes up the oldest request whose source is open. @returns its channel; undefined where there is none */
  take(request: Request, isFull: (source: number) => boolean): number | undefined {
    for (;;) {
      let oldest: number | undefined;
      for (const place of this.#waiting()) {
        const at = headerWords + place * placeWords;
        if (!isFull(this.#words[at + field.source] ?? 0) && this.#since(place) < this.#since(oldest)) oldest = place;
      }
      if (oldest === undefined) return undefined;
      const at = headerWords + oldest * placeWords;
      if (!this.#claim(at, state.waits)) continue;
      request.lengthBytes = this.#words[at + field.lengthBytes] ?? 0;
      request.bytes.set(this.#bytes.subarray(startOf(oldest), startOf(oldest) + request.lengthBytes));
      request.sinceUnixMs = this.#since(oldest);
      const channel = this.#words[at + field.channel] ?? -1;
      this.#free(at);
      return channel;
    }
  }

  /** Takes those away that have waited for so long: the caller answers them. */
  *expired(forMs: number, nowUnixMs = Date.now()): Generator<WaitingRequest> {
    for (const place of this.#waiting()) {
      const at = headerWords + place * placeWords;
      if (nowUnixMs - this.#since(place) < forMs || !this.#claim(at, state.waits)) continue;
      const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset + startOf(place), bodyAt);
      const found = {
        uniqueLow: view.getInt32(uniqueAt, true),
        uniqueHigh: view.getInt32(uniqueAt + 4, true),
        channel: this.#words[at + field.channel] ?? -1,
        source: this.#words[at + field.source] ?? 0,
      };
      this.#free(at);
      yield found;
    }
  }

  /** Whether one waits whose source is open. */
  hasOpen(isFull: (source: number) => boolean): boolean {
    for (const place of this.#waiting())
      if (!isFull(this.#words[headerWords + place * placeWords + field.source] ?? 0)) return true;
    return false;
  }

  /** Whether one of a channel waits, which must stay open for its answer. */
  holds(channel: number): boolean {
    for (const place of this.#waiting())
      if (this.#words[headerWords + place * placeWords + field.channel] === channel) return true;
    return false;
  }

  *#waiting(): Generator<number> {
    for (let place = 0; place < places; place++) {
      if (Atomics.load(this.#words, headerWords + place * placeWords + field.state) === state.waits) yield place;
    }
  }

  #since(place: number | undefined): number {
    if (place === undefined) return Infinity;
    return this.#numbers[(headerWords + place * placeWords + field.sinceMs) / 2] ?? 0;
  }

  #claim(at: number, from: number): boolean {
    return Atomics.compareExchange(this.#words, at + field.state, from, state.busy) === from;
  }

  #free(at: number): void {
    Atomics.store(this.#words, at + field.state, state.free);
    Atomics.sub(this.#words, waiting, 1);
  }
}

/** Where a place's bytes begin. */
function startOf(place: number): number {
  return place <= smallPlaces ? place * smallBytes : smallPlaces * smallBytes + (place - smallPlaces) * largeBytes;
}
