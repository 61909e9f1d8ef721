/**
 * File records and their attributes.
 *
 * A record is read where the MFT's own runs put it, is in use, was written whole, and its attributes lie inside it. An attribute whose
 * runs go on in other records is put together from them in the order of its clusters, without gaps.
 */
import { LRUCache } from 'lru-cache';
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { toOffset } from '../../base/ranges.ts';
import type { Disk } from '../../disk/disk.ts';
import { viewOf } from '../../bytes/view.ts';
import { withoutFixups } from './fixups.ts';
import {
  attributeHeader,
  attributeTypes,
  fileRecord,
  listEntry,
  maxAttributeListBytes,
  maxExtensionRecords,
  maxRunsOfAttribute,
  maxVolumeBytes,
  nonResidentHeader,
  recordFlags,
  recordNumbers,
  recordOf,
  residentHeader,
} from './layout.ts';
import { findRun, readRuns } from './run-reader.ts';
import { decodeRuns, type Run } from './runs.ts';
import type { Geometry } from './geometry.ts';

/** Where an attribute's value stands in a record: for patches. */
export interface ResidentPlace {
  readonly record: number;
  readonly offset: number;
}

export interface Attribute {
  readonly type: number;
  readonly name: string;
  readonly flags: number;
  /** The value of a resident attribute. */
  readonly value: Uint8Array | undefined;
  readonly place: ResidentPlace;
  readonly runs: readonly Run[];
  readonly sizeBytes: number;
  readonly allocatedBytes: number;
  readonly initializedBytes: number;
}

interface Piece extends Attribute {
  readonly id: number;
  readonly first: number;
}

export interface FileRecord {
  readonly number: number;
  readonly flags: number;
  readonly sequence: number;
  readonly attributes: readonly Piece[];
}

const cachedRecords = 512;

export class Records {
  readonly #disk: Disk;
  readonly #geometry: Geometry;
  readonly #cache = new LRUCache<number, FileRecord>({ max: cachedRecords });
  /** Runs of the MFT's data: first those of its own record, then all. */
  #mftRuns: Run[];
  #mftBytes: number;

  /** @throws FormatError when the MFT cannot be found */
  constructor(disk: Disk, geometry: Geometry) {
    this.#disk = disk;
    this.#geometry = geometry;
    const start = geometry.mftCluster;
    const clusters = Math.ceil(geometry.recordBytes / geometry.clusterBytes);
    this.#mftRuns = [{ first: 0, count: clusters, cluster: start }];
    this.#mftBytes = geometry.recordBytes;
    const own = this.record(recordNumbers.mft).attributes.find(
      ({ type, name }) => type === attributeTypes.data && name === '',
    );
    if (own === undefined || own.value !== undefined) throw wrong(recordNumbers.mft, 'data', 'the MFT has none');
    this.#mftRuns = [...own.runs];
    this.#mftBytes = own.sizeBytes;
    const all = this.attribute(recordNumbers.mft, attributeTypes.data, '')?.runs;
    if (all !== undefined) this.#mftRuns = [...all];
  }

  get count(): number {
    return Math.floor(this.#mftBytes / this.#geometry.recordBytes);
  }

  /** Where record `number` lies on the volume. @throws FormatError when it is outside the MFT */
  offsetOf(number: number): number {
    const { recordBytes, clusterBytes } = this.#geometry;
    const at = number * recordBytes;
    if (!Number.isSafeInteger(at) || at + recordBytes > this.#mftBytes)
      throw wrong(number, 'number', `the MFT has ${this.count} records`);
    const run = findRun(this.#mftRuns, Math.floor(at / clusterBytes));
    const within = run === undefined ? 0 : at - run.first * clusterBytes;
    if (run?.cluster === undefined || within + recordBytes > run.count * clusterBytes)
      throw wrong(number, 'place', 'is not in one run of the MFT');
    return run.cluster * clusterBytes + within;
  }

  /** Where the record lies, and where $MFTMirr has a copy of it: of the first four, and of as many as fill its first cluster. */
  placesOf(number: number): number[] {
    const { recordBytes, clusterBytes } = this.#geometry;
    const mirror = this.attribute(recordNumbers.mirror, attributeTypes.data, '');
    const at = number * recordBytes;
    if (mirror === undefined || at + recordBytes > mirror.sizeBytes) return [this.offsetOf(number)];
    const run = findRun(mirror.runs, Math.floor(at / clusterBytes));
    const within = run === undefined ? 0 : at - run.first * clusterBytes;
    if (run?.cluster === undefined || within + recordBytes > run.count * clusterBytes)
      throw wrong(recordNumbers.mirror, 'runs', `have no place for a copy of record ${number}`);
    return [this.offsetOf(number), run.cluster * clusterBytes + within];
  }

  /** The record's bytes as on disk. */
  raw(number: number): Uint8Array {
    const bytes = new Uint8Array(this.#geometry.recordBytes);
    this.#disk.read(bytes, this.offsetOf(number));
    return bytes;
  }

  /** The record's bytes as they are meant. @throws FormatError when it was not written whole */
  whole(number: number): Uint8Array {
    return withoutFixups(this.raw(number), `NTFS file record ${number}`, this.offsetOf(number));
  }

  /** Has the record read anew: it was changed. */
  forget(number: number): void {
    this.#cache.delete(number);
  }

  record(number: number): FileRecord {
    const cached = this.#cache.get(number);
    if (cached !== undefined) return cached;
    const bytes = this.whole(number);
    const head = fileRecord.parse(bytes);
    if ((head.flags & recordFlags.inUse) === 0) throw wrong(number, 'flags', 'the record is not in use');
    const record = {
      number,
      flags: head.flags,
      sequence: head.sequence,
      attributes: [...attributesOf(number, bytes, head, this.#geometry)],
    };
    this.#cache.set(number, record);
    return record;
  }

  /** The attribute of that type and name, put together from all its records; undefined where the file has none. */
  attribute(number: number, type: number, name: string): Attribute | undefined {
    return join(number, this.#pieces(number, type, name));
  }

  /** All attributes of a type, each of one piece: of names, a file has several. */
  all(number: number, type: number): readonly Attribute[] {
    return this.#pieces(number, type);
  }

  /** @param name any, where it is undefined */
  #pieces(number: number, type: number, name?: string): Piece[] {
    const record = this.record(number);
    const isMeant = (one: { readonly type: number; readonly name: string }): boolean =>
      one.type === type && (name === undefined || one.name === name);
    const list = record.attributes.find((one) => one.type === attributeTypes.attributeList);
    if (list === undefined) {
      const pieces = record.attributes.filter(isMeant);
      return name === undefined ? pieces : pieces.slice(0, 1);
    }
    const pieces: Piece[] = [];
    for (const entry of listEntries(number, this.#listBytes(number, list))) {
      if (!isMeant(entry)) continue;
      const holder = this.record(entry.record);
      const piece = holder.attributes.find((one) => isMeant(one) && one.id === entry.id);
      if (piece === undefined) throw wrong(number, 'attribute list', `record ${entry.record} has no such attribute`);
      pieces.push(piece);
      if (pieces.length > maxExtensionRecords)
        throw wrong(number, 'attribute list', `more than ${maxExtensionRecords} records`);
      // The MFT's own further records lie where its runs so far say.
      if (number === recordNumbers.mft && type === attributeTypes.data && entry.record !== number)
        for (const run of piece.runs) this.#mftRuns.push(run);
    }
    return pieces;
  }

  #listBytes(number: number, list: Attribute): Uint8Array {
    if (list.value !== undefined) return list.value;
    if (list.sizeBytes > maxAttributeListBytes) throw wrong(number, 'attribute list', `${list.sizeBytes} bytes`);
    const bytes = new Uint8Array(list.sizeBytes);
    readRuns(this.#disk, this.#geometry.clusterBytes, list, bytes, 0);
    return bytes;
  }
}

function* attributesOf(
  number: number,
  bytes: Uint8Array,
  head: { readonly attributesOffset: number; readonly usedBytes: number },
  geometry: Geometry,
): Generator<Piece> {
  if (head.usedBytes > bytes.length) throw wrong(number, 'usedBytes', `${head.usedBytes} of ${bytes.length}`);
  for (let at = head.attributesOffset; ;) {
    if (at % 8 !== 0 || at + 4 > head.usedBytes)
      throw wrong(number, 'attribute', `at ${at} of ${head.usedBytes} bytes`);
    if (viewOf(bytes).getUint32(at, true) === attributeTypes.end) return;
    const header = attributeHeader.parse(bytes, at);
    const { lengthBytes, nameLength, nameOffset } = header;
    if (
      lengthBytes < residentHeader.sizeBytes ||
      at + lengthBytes > head.usedBytes ||
      nameOffset + nameLength * 2 > lengthBytes
    )
      throw wrong(number, 'attribute', `${lengthBytes} bytes at ${at}`);
    const own = bytes.subarray(at, at + lengthBytes);
    const name = Buffer.from(own.subarray(nameOffset, nameOffset + nameLength * 2)).toString('utf16le');
    const common = { type: header.type, id: header.id, flags: header.flags, name: nameLength === 0 ? '' : name };
    yield header.nonResident === 0
      ? { ...common, ...resident(number, own, at) }
      : { ...common, ...nonResident(number, own, at, geometry) };
    at += lengthBytes;
  }
}

function resident(number: number, own: Uint8Array, at: number): Omit<Piece, 'type' | 'id' | 'flags' | 'name'> {
  const { valueOffset, valueLength } = residentHeader.parse(own);
  if (valueOffset + valueLength > own.length) throw wrong(number, 'value', `${valueLength} bytes at ${valueOffset}`);
  const value = own.subarray(valueOffset, valueOffset + valueLength);
  const sizes = { sizeBytes: valueLength, allocatedBytes: valueLength, initializedBytes: valueLength };
  return { value, place: { record: number, offset: at + valueOffset }, runs: [], first: 0, ...sizes };
}

function nonResident(
  number: number,
  own: Uint8Array,
  at: number,
  geometry: Geometry,
): Omit<Piece, 'type' | 'id' | 'flags' | 'name'> {
  const header = nonResidentHeader.parse(own);
  const size = (field: 'firstCluster' | 'lastCluster' | 'allocatedBytes' | 'sizeBytes' | 'initializedBytes'): number =>
    toOffset(header[field], maxVolumeBytes, { structure: `NTFS file record ${number}`, field, offset: at });
  const first = size('firstCluster');
  const sizes = first > 0 ? [0, 0, 0] : [size('sizeBytes'), size('allocatedBytes'), size('initializedBytes')];
  const [sizeBytes = 0, allocatedBytes = 0, initializedBytes = 0] = sizes;
  if (header.runsOffset > own.length) throw wrong(number, 'runs', `at ${header.runsOffset} of ${own.length} bytes`);
  const runs = decodeRuns(own.subarray(header.runsOffset), first, geometry.clusterCount, at);
  return {
    value: undefined,
    place: { record: number, offset: at },
    runs,
    first,
    sizeBytes,
    allocatedBytes,
    initializedBytes,
  };
}

interface ListEntry {
  readonly type: number;
  readonly name: string;
  readonly record: number;
  readonly id: number;
}

function* listEntries(number: number, list: Uint8Array): Generator<ListEntry> {
  for (let at = 0; at + listEntry.sizeBytes <= list.length;) {
    const { type, lengthBytes, nameLength, nameOffset, record, id } = listEntry.parse(list, at);
    if (
      lengthBytes < listEntry.sizeBytes ||
      nameOffset + nameLength * 2 > lengthBytes ||
      at + lengthBytes > list.length
    )
      throw wrong(number, 'attribute list', `an entry of ${lengthBytes} bytes`);
    const name = Buffer.from(list.subarray(at + nameOffset, at + nameOffset + nameLength * 2)).toString('utf16le');
    yield { type, name: nameLength === 0 ? '' : name, record: recordOf(record), id };
    at += lengthBytes;
  }
}

function join(number: number, pieces: readonly Piece[]): Attribute | undefined {
  const [first] = pieces;
  if (first === undefined || pieces.length === 1) return first;
  return { ...first, runs: joinRuns(number, pieces) };
}

function joinRuns(number: number, pieces: readonly Piece[]): Run[] {
  const runs: Run[] = [];
  let next = 0;
  for (const piece of [...pieces].sort((a, b) => a.first - b.first)) {
    if (piece.first !== next || piece.value !== undefined)
      throw wrong(number, 'attribute list', `no record has cluster ${next}`);
    for (const run of piece.runs) runs.push(run);
    if (runs.length > maxRunsOfAttribute)
      throw new UnsupportedError(`NTFS file record ${number}: more than ${maxRunsOfAttribute} runs`);
    const last = runs.at(-1);
    next = last === undefined ? 0 : last.first + last.count;
  }
  return runs;
}

export function wrong(number: number, field: string, detail: string): FormatError {
  return new FormatError(`NTFS file record ${number}`, field, 0, detail);
}
