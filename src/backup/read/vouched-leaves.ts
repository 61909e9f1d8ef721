/**
 * Checks the leaves of a consolidated image against what the holders of the key vouched for, in any order, as reads come to them: a host
 * that consolidates without the key, and leaves a record out or brings back an older one, is found by the first read that would believe it.
 *
 * The maps may be longer than memory. When the image is opened they are read once, for their signed hashes; what is kept is where each part
 * of some KiB begins and what its hash is, so that a part can be read again alone.
 */
import { createHash, hash } from 'node:crypto';
import { firstIndex } from '../../base/search.ts';
import { FormatError, IntegrityError, VeneerError } from '../../base/errors.ts';
import { KiB } from '../../base/units.ts';
import type { ChainKey } from '../crypto/seal.ts';
import * as format from '../format/layout.ts';
import { mapEntries, type LeafStates, type Source } from '../format/provenance.ts';
import type { Image } from './image.ts';
import type { ChainIndexCache, ParsedPart } from './index-cache.ts';
import { ExpectedLeaf, faultsWithin, vouchedImages } from './vouched.ts';

const advice = 'whoever consolidated it without the key got it wrong or lied; use another copy of the images';
const partBytes = 32 * KiB;
const emptyLeaf = new Uint8Array(format.leafBytes);
const stateOffset = format.leafEntry.offsetOf('state');
const originOffset = format.leafEntry.offsetOf('originSequence');

/** Whole entries of a map that follow each other. */
interface MapPart {
  readonly firstLeaf: number;
  readonly offset: number;
  readonly lengthBytes: number;
  /** SHA-256, hex. */
  readonly hash: string;
}

export class VouchedLeaves {
  readonly #image: Image;
  readonly #expected: ExpectedLeaf;
  /** Of each vouched image, newest first. */
  readonly #maps: readonly (readonly MapPart[])[];
  /** Pages of the index that any of them holds something of, in order. */
  readonly #pages: readonly number[];
  readonly #kept: ChainIndexCache;
  readonly #imageIndex: number;

  /**
   * Reads all that is vouched for of a consolidated image.
   * @param imageIndex its place in the chain
   * @param kept where parts of maps are kept
   * @throws VeneerError (INTEGRITY), FormatError, UnavailableError
   */
  constructor(image: Image, imageIndex: number, key: ChainKey, kept: ChainIndexCache) {
    const maps: MapPart[][] = [];
    const pages = new Set<number>();
    const vouched = vouchedImages(image, key, (source) => {
      const { parts, mapHash } = indexMap(image, source, pages);
      maps.push(parts);
      return mapHash;
    });
    for (const { message } of faultsWithin(image, vouched)) throw new VeneerError('INTEGRITY', `${message}; ${advice}`);
    this.#image = image;
    this.#imageIndex = imageIndex;
    this.#kept = kept;
    this.#expected = new ExpectedLeaf(image, vouched);
    this.#maps = maps;
    this.#pages = [...pages].sort((a, b) => a - b);
  }

  /** The first page at or after `from` that must hold something. */
  nextPage(from: number): number | undefined {
    return this.#pages[firstIndex(this.#pages.length, (index) => (this.#pages[index] ?? 0) >= from)];
  }

  /**
   * @param leaf undefined where the image has none
   * @throws VeneerError (INTEGRITY) when an entry is not what it must be
   */
  check(leafNumber: number, leaf: Uint8Array = emptyLeaf): void {
    const view = new DataView(leaf.buffer, leaf.byteOffset, leaf.byteLength);
    this.#expected.become(leafNumber, (index) => this.#statesOf(this.#maps[index] ?? [], leafNumber));
    for (let index = 0; index < format.leafEntries; index++) {
      const at = index * format.leafEntryBytes;
      const entry = { state: view.getUint8(at + stateOffset), originSequence: view.getUint32(at + originOffset, true) };
      const fault = this.#expected.fault(index, entry);
      if (fault === undefined) continue;
      const position = leafNumber * format.leafEntries + index;
      const message = `${this.#image.blockName(position)}: ${fault}; ${advice}`;
      throw new VeneerError('INTEGRITY', message, { data: { position } });
    }
  }

  #statesOf(parts: readonly MapPart[], leafNumber: number): LeafStates | undefined {
    const part = parts[firstIndex(parts.length, (index) => (parts[index]?.firstLeaf ?? 0) > leafNumber) - 1];
    if (part === undefined) return undefined;
    const { leafNumbers, states } = this.#kept.part(this.#imageIndex, part.offset, 2 * part.lengthBytes, () =>
      this.#read(part),
    );
    const index = firstIndex(leafNumbers.length, (at) => (leafNumbers[at] ?? 0) >= leafNumber);
    return leafNumbers[index] === leafNumber ? states[index] : undefined;
  }

  /** It must be what it was when its map met its hash. */
  #read(part: MapPart): ParsedPart {
    const bytes = new Uint8Array(part.lengthBytes);
    this.#image.readRaw(bytes, part.offset);
    const actual = hash('sha256', bytes);
    if (actual !== part.hash) throw new IntegrityError(`${this.#image.path}: provenance`, part.hash, actual);
    const entries = [...mapEntries(bytes, this.#image.path)];
    return {
      leafNumbers: entries.map(({ leafNumber }) => leafNumber),
      states: entries.map(({ states }) => states),
    };
  }
}

/** @param pages takes up those that the map holds something of */
function indexMap(image: Image, source: Source, pages: Set<number>): { parts: MapPart[]; mapHash: string } {
  const name = `${image.path}: map of image ${source.sequence} of the chain`;
  const end = source.mapOffset + source.mapBytes;
  const buffer = new Uint8Array(Math.min(partBytes, source.mapBytes));
  const whole = createHash('sha256');
  const parts: MapPart[] = [];
  let last = -1;
  for (let offset = source.mapOffset; offset < end;) {
    const read = buffer.subarray(0, Math.min(buffer.length, end - offset));
    image.readRaw(read, offset);
    let firstLeaf: number | undefined;
    let lengthBytes = 0;
    for (const entry of mapEntries(read, name)) {
      if (entry.leafNumber <= last)
        throw new FormatError(name, 'map', lengthBytes, `leaf ${entry.leafNumber} after leaf ${last}`);
      last = entry.leafNumber;
      firstLeaf ??= last;
      lengthBytes += entry.lengthBytes;
      pages.add(Math.floor(last / format.pageReferences));
    }
    if (firstLeaf === undefined) throw new FormatError(name, 'map', offset - source.mapOffset, 'ends within an entry');
    const part = read.subarray(0, lengthBytes);
    whole.update(part);
    parts.push({ firstLeaf, offset, lengthBytes, hash: hash('sha256', part) });
    offset += lengthBytes;
  }
  return { parts, mapHash: whole.digest('hex') };
}
