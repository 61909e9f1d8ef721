/**
 * A file record that is edited: its attributes as bytes, in their order. It may grow beyond its record on the way; `encode` is where it
 * must fit again.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { alignUp } from '../../base/ranges.ts';
import { viewOf } from '../../bytes/view.ts';
import { attributeHeader, attributeTypes, fileRecord, nonResidentHeader, residentHeader } from './layout.ts';
import { encodeRuns, type Run } from './runs.ts';

/** The mark of the end, and what makes it 8 bytes. */
const endBytes = 8;

export interface AttributeHead {
  readonly type: number;
  readonly name: string;
  readonly id: number;
  readonly flags?: number;
}

export interface RunSizes {
  readonly allocatedBytes: number;
  readonly sizeBytes: number;
  readonly initializedBytes: number;
}

export class EditedRecord {
  readonly number: number;
  readonly #whole: Uint8Array;
  readonly #attributesOffset: number;
  readonly #attributes: Uint8Array[] = [];
  #nextId: number;

  /** @param whole the record as it is meant; it is copied. @throws FormatError when its attributes do not lie in it */
  constructor(number: number, whole: Uint8Array) {
    this.number = number;
    this.#whole = new Uint8Array(whole);
    const head = fileRecord.parse(whole);
    this.#attributesOffset = head.attributesOffset;
    this.#nextId = head.nextAttribute;
    const wrong = (at: number): FormatError =>
      new FormatError(`NTFS file record ${number}`, 'attribute', at, `does not lie in ${whole.length} bytes`);
    for (let at = head.attributesOffset; ;) {
      if (at % 8 !== 0 || at + endBytes > whole.length) throw wrong(at);
      if (viewOf(whole).getUint32(at, true) === attributeTypes.end) return;
      const { lengthBytes } = attributeHeader.parse(whole, at);
      if (lengthBytes < residentHeader.sizeBytes || at + lengthBytes > whole.length) throw wrong(at);
      this.#attributes.push(whole.slice(at, at + lengthBytes));
      at += lengthBytes;
    }
  }

  /** How many bytes the record would have more than its place, or, below 0, has to spare. */
  get excessBytes(): number {
    const used = this.#attributes.reduce((sum, { length }) => sum + length, this.#attributesOffset + endBytes);
    return used - this.#whole.length;
  }

  /** Gives the attribute another value; one that there is not is added. It must be resident. */
  setValue(type: number, name: string, value: Uint8Array, indexed = false): void {
    const at = this.#find(type, name);
    if (at === undefined) {
      this.#add(residentAttribute({ type, name, id: this.#takeId() }, value, indexed));
      return;
    }
    const old = this.#attributes[at] ?? new Uint8Array(0);
    const { nonResident, id, flags } = attributeHeader.parse(old);
    if (nonResident !== 0) throw this.#wrong(`attribute 0x${type.toString(16)}`, 'has no value in the record');
    const isIndexed = residentHeader.parse(old).indexed !== 0;
    this.#attributes[at] = residentAttribute({ type, name, id, flags }, value, isIndexed);
  }

  /** Gives the attribute other runs and sizes; one that there is not is added. It must not be resident, nor go on in other records. */
  setRuns(type: number, name: string, runs: readonly Run[], sizes: RunSizes): void {
    const at = this.#find(type, name);
    if (at === undefined) {
      this.#add(attributeOfRuns({ type, name, id: this.#takeId() }, runs, sizes));
      return;
    }
    const { nonResident, id, flags } = attributeHeader.parse(this.#attributes[at] ?? new Uint8Array(0));
    if (nonResident === 0 || flags !== 0)
      throw this.#wrong(`attribute 0x${type.toString(16)}`, 'has no runs that could be written anew');
    this.#attributes[at] = attributeOfRuns({ type, name, id }, runs, sizes);
  }

  /** The record as it is meant. @throws UnsupportedError when it does not fit its place */
  encode(): Uint8Array {
    if (this.excessBytes > 0)
      throw new UnsupportedError(
        `NTFS file record ${this.number}: has no room for ${this.excessBytes} bytes more; start the guest on its old hardware and make the change there`,
      );
    const whole = new Uint8Array(this.#whole.length);
    whole.set(this.#whole.subarray(0, this.#attributesOffset));
    let at = this.#attributesOffset;
    for (const attribute of this.#attributes) {
      whole.set(attribute, at);
      at += attribute.length;
    }
    const view = viewOf(whole);
    view.setUint32(at, attributeTypes.end, true);
    view.setUint32(fileRecord.offsetOf('usedBytes'), at + endBytes, true);
    view.setUint16(fileRecord.offsetOf('nextAttribute'), this.#nextId, true);
    return whole;
  }

  #find(type: number, name: string): number | undefined {
    const index = this.#attributes.findIndex((attribute) => typeOf(attribute) === type && nameOf(attribute) === name);
    return index < 0 ? undefined : index;
  }

  /** In the order of types, behind those of the same. */
  #add(attribute: Uint8Array): void {
    const at = this.#attributes.findIndex((other) => typeOf(other) > typeOf(attribute));
    this.#attributes.splice(at < 0 ? this.#attributes.length : at, 0, attribute);
  }

  #takeId(): number {
    if (this.#nextId > 0xffff) throw this.#wrong('attribute', 'has no identifier left');
    return this.#nextId++;
  }

  #wrong(field: string, detail: string): FormatError {
    return new FormatError(`NTFS file record ${this.number}`, field, 0, detail);
  }
}

function typeOf(attribute: Uint8Array): number {
  return attributeHeader.parse(attribute).type;
}

function nameOf(attribute: Uint8Array): string {
  const { nameOffset, nameLength } = attributeHeader.parse(attribute);
  return nameLength === 0
    ? ''
    : Buffer.from(attribute.subarray(nameOffset, nameOffset + nameLength * 2)).toString('utf16le');
}

function residentAttribute(head: AttributeHead, value: Uint8Array, indexed: boolean): Uint8Array {
  const valueOffset = alignUp(residentHeader.sizeBytes + head.name.length * 2, 8);
  const attribute = new Uint8Array(alignUp(valueOffset + value.length, 8));
  const common = commonHeader(head, attribute.length, false, residentHeader.sizeBytes);
  residentHeader.encode({ common, valueLength: value.length, valueOffset, indexed: indexed ? 1 : 0 }, attribute);
  attribute.set(Buffer.from(head.name, 'utf16le'), residentHeader.sizeBytes);
  attribute.set(value, valueOffset);
  return attribute;
}

function attributeOfRuns(head: AttributeHead, runs: readonly Run[], sizes: RunSizes): Uint8Array {
  const runsOffset = alignUp(nonResidentHeader.sizeBytes + head.name.length * 2, 8);
  const pairs = encodeRuns(runs);
  const attribute = new Uint8Array(alignUp(runsOffset + pairs.length, 8));
  const clusters = runs.reduce((sum, { count }) => sum + count, 0);
  nonResidentHeader.encode(
    {
      common: commonHeader(head, attribute.length, true, nonResidentHeader.sizeBytes),
      firstCluster: 0n,
      lastCluster: BigInt(clusters - 1),
      runsOffset,
      compressionUnit: 0,
      allocatedBytes: BigInt(sizes.allocatedBytes),
      sizeBytes: BigInt(sizes.sizeBytes),
      initializedBytes: BigInt(sizes.initializedBytes),
    },
    attribute,
  );
  attribute.set(Buffer.from(head.name, 'utf16le'), nonResidentHeader.sizeBytes);
  attribute.set(pairs, runsOffset);
  return attribute;
}

function commonHeader(
  { type, name, id, flags = 0 }: AttributeHead,
  lengthBytes: number,
  ofRuns: boolean,
  nameOffset: number,
): Uint8Array {
  const nonResident = ofRuns ? 1 : 0;
  return attributeHeader.encode({ type, lengthBytes, nonResident, nameLength: name.length, nameOffset, flags, id });
}
