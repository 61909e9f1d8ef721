/**
 * Provenance: which image of the chain held which positions, in the words of whoever had the key.
 *
 * A *map* tells an image's positions and their states, leaf by leaf. An encrypted image carries its own, under its commit's HMAC. A
 * consolidated image carries superblock, commit and map of each image that it was made from, as they were, newest first: a key holder can so
 * tell what each of its blocks must be, though whoever consolidated had no key. In a plain chain the maps are empty, and nothing is proved.
 *
 *   map              for each leaf of the image, in order: leaf number, form; then 128 B of states unless all are the same
 *   of consolidated  header 16 B, table 32 B for each source, then for each source superblock, commit, map
 */
import { FormatError } from '../../base/errors.ts';
import type { Guid } from '../../bytes/guid.ts';
import { ascii, guid, layout, reserved, u32le, u64le, u8 } from '../../bytes/layout.ts';
import * as format from './layout.ts';

/** Images that a consolidated image was made from, all the way back. */
export const maxSources = 100_000;

export const provenanceHeader = layout('provenance', 16, {
  magic: ascii(0, 'VPRV'),
  sources: u32le(4),
  reserved: reserved(8, 8),
});

const sourceEntry = layout('provenance source', 32, {
  imageId: guid(0),
  sequence: u32le(16),
  reserved: reserved(20, 4),
  mapBytes: u64le(24),
});

const leafHeader = layout('map entry', 5, {
  leafNumber: u32le(0),
  form: u8(4), //        a blockState that all 512 entries have, or `mixedForm`
});

const mixedForm = 4;
/** Two bits for each entry, the first in the lowest. */
export const statesBytes = format.leafEntries / 4;
const readAheadBytes = 4096;
const stateOffset = format.leafEntry.offsetOf('state');

/** An image that blocks come from: itself, or one that a consolidated image was made from. */
export interface Source {
  readonly imageId: Guid;
  readonly sequence: number;
  /** Where its superblock, its commit and its map lie in the image that carries them. */
  readonly superblockOffset: number;
  readonly commitOffset: number;
  readonly mapOffset: number;
  readonly mapBytes: number;
}

/** The states of a leaf's 512 entries: one that all have, or two bits each. */
export type LeafStates = number | Uint8Array;

export function statesOf(leaf: Uint8Array): LeafStates {
  const packed = new Uint8Array(statesBytes);
  const first = leaf[stateOffset] ?? 0;
  let allSame = true;
  for (let index = 0; index < format.leafEntries; index++) {
    const state = leaf[index * format.leafEntryBytes + stateOffset] ?? 0;
    if (state !== first) allSame = false;
    const at = Math.floor(index / 4);
    packed[at] = (packed[at] ?? 0) | (state * 4 ** (index % 4));
  }
  return allSame ? first : packed;
}

export function stateAt(states: LeafStates, index: number): number {
  if (typeof states === 'number') return states;
  return Math.floor((states[Math.floor(index / 4)] ?? 0) / 4 ** (index % 4)) % 4;
}

export function encodeStates(leafNumber: number, states: LeafStates): Uint8Array {
  const isUniform = typeof states === 'number';
  const entry = new Uint8Array(leafHeader.sizeBytes + (isUniform ? 0 : statesBytes));
  leafHeader.encode({ leafNumber, form: isUniform ? states : mixedForm }, entry);
  if (!isUniform) entry.set(states, leafHeader.sizeBytes);
  return entry;
}

/** Where header and table of a consolidated image's provenance end, and its first source begins. */
function firstSourceAt(count: number): number {
  return provenanceHeader.sizeBytes + count * sourceEntry.sizeBytes;
}

/** Header and table of a consolidated image's provenance. */
export function encodeSources(sources: readonly Pick<Source, 'imageId' | 'sequence' | 'mapBytes'>[]): Uint8Array {
  const table = new Uint8Array(firstSourceAt(sources.length));
  provenanceHeader.encode({ sources: sources.length }, table);
  for (const [index, { imageId, sequence, mapBytes }] of sources.entries())
    sourceEntry.encode({ imageId, sequence, mapBytes: BigInt(mapBytes) }, table, firstSourceAt(index));
  return table;
}

/**
 * The sources of a consolidated image, newest first.
 * @param place of its provenance in the file
 * @throws FormatError
 */
export function readSources(
  read: (target: Uint8Array, offset: number) => void,
  place: { readonly offset: number; readonly lengthBytes: number },
  name: string,
): Source[] {
  const what = `${name}: provenance`;
  const header = new Uint8Array(provenanceHeader.sizeBytes);
  if (place.lengthBytes < header.length)
    throw new FormatError(what, 'length', 0, `${place.lengthBytes} bytes are too few`);
  read(header, place.offset);
  const count = provenanceHeader.parse(header).sources;
  if (count < 1 || count > maxSources || firstSourceAt(count) > place.lengthBytes)
    throw new FormatError(what, 'sources', 4, `${count} cannot be their number`);
  const table = new Uint8Array(firstSourceAt(count));
  read(table, place.offset);
  const sources: Source[] = [];
  let at = table.length;
  for (let index = 0; index < count; index++) {
    const { imageId, sequence, mapBytes } = sourceEntry.parse(table, firstSourceAt(index));
    const mapAt = at + format.superblockBytes + format.commitBytes;
    const narrow = format.narrow(
      what,
      'map length',
      firstSourceAt(index),
      mapBytes,
      Math.max(0, place.lengthBytes - mapAt),
    );
    if (sequence >= (sources.at(-1)?.sequence ?? Number.POSITIVE_INFINITY))
      throw new FormatError(what, 'sequence', firstSourceAt(index), `${sequence} does not go down`);
    sources.push({
      imageId,
      sequence,
      superblockOffset: place.offset + at,
      commitOffset: place.offset + at + format.superblockBytes,
      mapOffset: place.offset + mapAt,
      mapBytes: narrow,
    });
    at = mapAt + narrow;
  }
  if (at !== place.lengthBytes)
    throw new FormatError(what, 'length', 0, `${place.lengthBytes} bytes, of which ${at} are used`);
  return sources;
}

/** An entry of a map. */
interface MapEntry {
  readonly leafNumber: number;
  readonly states: LeafStates;
  readonly lengthBytes: number;
}

/** The whole entries at the front of a part of a map; their states are views of it. @throws FormatError */
export function* mapEntries(part: Uint8Array, name: string): Generator<MapEntry> {
  for (let at = 0; at + leafHeader.sizeBytes <= part.length;) {
    const { leafNumber, form } = leafHeader.parse(part, at);
    if (form > mixedForm) throw new FormatError(name, 'map', at, `leaf ${leafNumber} of form ${form}`);
    const body = at + leafHeader.sizeBytes;
    const end = form === mixedForm ? body + statesBytes : body;
    if (end > part.length) return;
    yield { leafNumber, states: form === mixedForm ? part.subarray(body, end) : form, lengthBytes: end - at };
    at = end;
  }
}

/** Walks one map in order, with a few KiB of memory. */
export class MapCursor {
  readonly #read: (target: Uint8Array, offset: number) => void;
  readonly #name: string;
  readonly #end: number;
  #at: number;
  #buffer = new Uint8Array(0);
  #bufferAt = 0;
  #next: { readonly leafNumber: number; readonly states: LeafStates } | undefined;
  #last = -1;

  constructor(
    read: (target: Uint8Array, offset: number) => void,
    place: { readonly mapOffset: number; readonly mapBytes: number },
    name: string,
  ) {
    this.#read = read;
    this.#name = name;
    this.#at = place.mapOffset;
    this.#end = place.mapOffset + place.mapBytes;
    this.#advance();
  }

  /** The next leaf that the map tells of. */
  get leafNumber(): number | undefined {
    return this.#next?.leafNumber;
  }

  /** The states of that leaf, if the cursor stands at it; goes on to the next then. */
  take(leafNumber: number): LeafStates | undefined {
    if (this.#next?.leafNumber !== leafNumber) return undefined;
    const { states } = this.#next;
    this.#advance();
    return states;
  }

  #advance(): void {
    this.#next = undefined;
    if (this.#at === this.#end) return;
    const { leafNumber, form } = leafHeader.parse(this.#bytes(leafHeader.sizeBytes));
    if (leafNumber <= this.#last || form > mixedForm)
      throw new FormatError(this.#name, 'map', this.#at, `leaf ${leafNumber} of form ${form} after leaf ${this.#last}`);
    this.#last = leafNumber;
    this.#next = { leafNumber, states: form === mixedForm ? this.#bytes(statesBytes).slice() : form };
  }

  #bytes(lengthBytes: number): Uint8Array {
    if (this.#at + lengthBytes > this.#end) throw new FormatError(this.#name, 'map', this.#at, 'ends within an entry');
    const within = this.#at - this.#bufferAt;
    if (within + lengthBytes > this.#buffer.length) {
      this.#buffer = new Uint8Array(Math.min(readAheadBytes, this.#end - this.#at));
      this.#read(this.#buffer, this.#at);
      this.#bufferAt = this.#at;
    }
    const start = this.#at - this.#bufferAt;
    this.#at += lengthBytes;
    return this.#buffer.subarray(start, start + lengthBytes);
  }
}
