/**
 * A registry hive, read: keys, values and their data, found by path.
 *
 * The bytes are not trusted. A cell is an allocated one inside the bins, a name or a list lies inside its cell, a list is at most two
 * deep and has at most as many entries as its key says. Whatever breaks that is a FormatError.
 */
import { FormatError, UnsupportedError } from '../../../base/errors.ts';
import { viewOf } from '../../../bytes/view.ts';
import {
  baseBlock,
  bigData,
  bigDataBytes,
  binsStartBytes,
  cellAlignmentBytes,
  fileTypes,
  inlineData,
  keyFlags,
  keyNode,
  keyValue,
  maxHiveBytes,
  maxValueBytes,
  valueFlags,
  valueTypes,
  type BaseBlock,
  type KeyNode,
  type KeyValue,
} from './layout.ts';

import { subkeyCells } from './subkeys.ts';

/** Some twenty times what a plan needs. */
const maxVisits = 3_000_000;

/** Where the bytes of a hive come from: memory, or a file that is read cell by cell. */
export interface HiveBytes {
  readonly sizeBytes: number;
  /** Exactly these bytes; callers keep inside `sizeBytes`. */
  at(offset: number, lengthBytes: number): Uint8Array;
}

export function bytesInMemory(contents: Uint8Array): HiveBytes {
  // Not as a Buffer, whose slice() does not copy.
  const plain = new Uint8Array(contents.buffer, contents.byteOffset, contents.length);
  return {
    sizeBytes: plain.length,
    at: (offset, lengthBytes) => plain.subarray(offset, offset + lengthBytes),
  };
}

export class Hive {
  /** Names the hive in errors and reports: `SYSTEM`. */
  readonly name: string;
  readonly #bytes: HiveBytes;
  #visits = 0;

  /** @throws FormatError when it is no hive, UnsupportedError when it is of a kind or a size that is not read */
  constructor(name: string, bytes: HiveBytes) {
    this.name = name;
    this.#bytes = bytes;
    checkBaseBlock(name, this.base, bytes.sizeBytes);
  }

  /** As the bytes say now: an editor changes them. */
  get base(): BaseBlock {
    if (this.#bytes.sizeBytes < binsStartBytes)
      throw new FormatError(this.name, 'length', 0, `${this.#bytes.sizeBytes} bytes are no registry hive`);
    return baseBlock.parse(this.#bytes.at(0, baseBlock.sizeBytes));
  }

  root(): Key {
    return this.keyAt(this.base.rootCell);
  }

  /** The key at a path below the root, `ControlSet001\Services\atapi`; upper and lower case are one. */
  key(path: string): Key | undefined {
    let key: Key | undefined = this.root();
    for (const name of path.split('\\').filter((part) => part !== '')) key = key?.subkey(name);
    return key;
  }

  keyAt(cell: number): Key {
    this.countVisit();
    return new Key(this, cell);
  }

  /** @throws UnsupportedError when more keys and values were looked at than any plan needs: lists may be as long as a hive allows */
  countVisit(): void {
    this.#visits++;
    if (this.#visits > maxVisits)
      throw new UnsupportedError(
        `registry hive ${this.name}: more than ${maxVisits} keys and values to look at; it is broken or too large`,
      );
  }

  /** The contents of an allocated cell, behind its size. @throws FormatError where there is none */
  cell(offset: number): Uint8Array {
    const end = viewOf(this.#bytes.at(baseBlock.offsetOf('binsLength'), 4)).getUint32(0, true);
    if (offset % cellAlignmentBytes !== 0 || offset + cellAlignmentBytes > end)
      throw this.wrong('cell', offset, `no cell can be there in bins of ${end} bytes`);
    const head = this.#bytes.at(binsStartBytes + offset, 4);
    const sizeBytes = -new DataView(head.buffer, head.byteOffset, 4).getInt32(0, true);
    if (sizeBytes < cellAlignmentBytes || sizeBytes % cellAlignmentBytes !== 0 || offset + sizeBytes > end)
      throw this.wrong('cell', offset, sizeBytes <= 0 ? 'is free but in use' : `a cell of ${sizeBytes} bytes`);
    return this.#bytes.at(binsStartBytes + offset + 4, sizeBytes - 4);
  }

  wrong(field: string, cell: number, detail: string): FormatError {
    return new FormatError(`registry hive ${this.name}`, field, binsStartBytes + cell, detail);
  }
}

function checkBaseBlock(name: string, base: BaseBlock, sizeBytes: number): void {
  const wrong = (field: string, detail: string): FormatError =>
    new FormatError(`registry hive ${name}`, field, baseBlock.offsetOf(field), detail);
  if (base.majorVersion !== 1 || base.minorVersion < 3 || base.minorVersion > 6)
    throw new UnsupportedError(
      `registry hive ${name}: version ${base.majorVersion}.${base.minorVersion}; 1.3 to 1.6 are read`,
    );
  if (base.fileType !== fileTypes.primary) throw wrong('fileType', `${base.fileType} is not that of a hive`);
  if (sizeBytes > maxHiveBytes)
    throw new UnsupportedError(`registry hive ${name}: ${sizeBytes} bytes; at most ${maxHiveBytes} are read`);
  if (base.binsLength === 0 || base.binsLength % binsStartBytes !== 0 || binsStartBytes + base.binsLength > sizeBytes)
    throw wrong('binsLength', `${base.binsLength} bytes of bins in a file of ${sizeBytes}`);
}

export class Key {
  readonly hive: Hive;
  readonly cell: number;

  constructor(hive: Hive, cell: number) {
    this.hive = hive;
    this.cell = cell;
    this.name = decodeName(
      hive,
      cell,
      keyNode.sizeBytes,
      this.node.nameLength,
      (this.node.flags & keyFlags.compressedName) !== 0,
    );
  }

  readonly name: string;

  /** As the bytes say now. */
  get node(): KeyNode {
    return keyNode.parse(this.hive.cell(this.cell));
  }

  /** In the order of the hive. */
  *subkeys(): Generator<Key> {
    for (const cell of subkeyCells(this)) yield this.hive.keyAt(cell);
  }

  subkey(name: string): Key | undefined {
    const wanted = name.toUpperCase();
    for (const key of this.subkeys()) if (key.name.toUpperCase() === wanted) return key;
    return undefined;
  }

  *values(): Generator<Value> {
    const { valueCount, valueList } = this.node;
    if (valueCount === 0) return;
    const list = viewOf(this.hive.cell(valueList));
    if (valueCount > list.byteLength / 4)
      throw this.hive.wrong('value list', valueList, `${valueCount} values do not fit it`);
    for (let index = 0; index < valueCount; index++) {
      this.hive.countVisit();
      yield new Value(this.hive, list.getUint32(index * 4, true));
    }
  }

  /** The unnamed value is ''. */
  value(name: string): Value | undefined {
    const wanted = name.toUpperCase();
    for (const value of this.values()) if (value.name.toUpperCase() === wanted) return value;
    return undefined;
  }

  /** The number in a DWORD value; undefined where there is none. */
  dword(name: string): number | undefined {
    const value = this.value(name);
    return value === undefined || value.type !== valueTypes.dword ? undefined : value.dword();
  }

  /** The text in a value, without its closing zero; undefined where there is none. */
  text(name: string): string | undefined {
    const value = this.value(name);
    if (value === undefined || (value.type !== valueTypes.text && value.type !== valueTypes.expandText))
      return undefined;
    return decodeText(value.data());
  }

  /** The lines in a value of several. */
  lines(name: string): string[] | undefined {
    const value = this.value(name);
    if (value?.type !== valueTypes.multiText) return undefined;
    return decodeLines(value.data());
  }
}

export class Value {
  readonly cell: number;
  readonly name: string;
  readonly #hive: Hive;

  constructor(hive: Hive, cell: number) {
    this.#hive = hive;
    this.cell = cell;
    const head = this.head;
    this.name = decodeName(
      hive,
      cell,
      keyValue.sizeBytes,
      head.nameLength,
      (head.flags & valueFlags.compressedName) !== 0,
    );
  }

  get head(): KeyValue {
    return keyValue.parse(this.#hive.cell(this.cell));
  }

  get type(): number {
    return this.head.type;
  }

  get lengthBytes(): number {
    const { dataLength } = this.head;
    return dataLength >= inlineData ? dataLength - inlineData : dataLength;
  }

  /** @throws UnsupportedError when there are more bytes than a plan ever needs */
  data(): Uint8Array {
    const { dataLength, data } = this.head;
    const length = this.lengthBytes;
    if (dataLength >= inlineData) {
      if (length > 4) throw this.#hive.wrong('value', this.cell, `${length} bytes in the place of 4`);
      const at = keyValue.offsetOf('data');
      return this.#hive.cell(this.cell).slice(at, at + length);
    }
    if (length > maxValueBytes)
      throw new UnsupportedError(
        `registry hive ${this.#hive.name}: the value ${this.name} has ${length} bytes; at most ${maxValueBytes} are read`,
      );
    if (length === 0) return new Uint8Array(0);
    const cell = this.#hive.cell(data);
    if (cell.length >= length) return cell.slice(0, length);
    return joinSegments(this.#hive, data, length);
  }

  /** The number, of a value of exactly 4 bytes. */
  dword(): number | undefined {
    const data = this.data();
    return data.length === 4 ? viewOf(data).getUint32(0, true) : undefined;
  }
}

/** Data above 16,344 bytes: segments of that size each, the last one shorter. */
function joinSegments(hive: Hive, cell: number, length: number): Uint8Array {
  const { segmentCount, segmentList } = bigData.parse(hive.cell(cell));
  const list = viewOf(hive.cell(segmentList));
  if (segmentCount !== Math.ceil(length / bigDataBytes) || segmentCount > list.byteLength / 4)
    throw hive.wrong('big data', cell, `${segmentCount} segments for ${length} bytes`);
  const joined = new Uint8Array(length);
  for (let index = 0; index < segmentCount; index++) {
    const start = index * bigDataBytes;
    const segment = hive.cell(list.getUint32(index * 4, true));
    const wanted = Math.min(bigDataBytes, length - start);
    if (segment.length < wanted) throw hive.wrong('big data', cell, `segment ${index} has ${segment.length} bytes`);
    joined.set(segment.subarray(0, wanted), start);
  }
  return joined;
}

function decodeName(hive: Hive, cell: number, at: number, lengthBytes: number, compressed: boolean): string {
  const bytes = hive.cell(cell);
  if (at + lengthBytes > bytes.length) throw hive.wrong('name', cell, `${lengthBytes} bytes do not fit the cell`);
  return Buffer.from(bytes.subarray(at, at + lengthBytes)).toString(compressed ? 'latin1' : 'utf16le');
}

/** UTF-16 up to the first zero. */
export function decodeText(data: Uint8Array): string {
  const text = Buffer.from(data).toString('utf16le');
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}

/** Lines in UTF-16, each up to a zero. */
export function decodeLines(data: Uint8Array): string[] {
  return Buffer.from(data)
    .toString('utf16le')
    .split('\0')
    .filter((line) => line !== '');
}
