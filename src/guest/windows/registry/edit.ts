/**
 * Edits of a hive in memory, for bytes that are put back in place: its file keeps its length.
 *
 * What fits where it stands is written there: numbers, shorter data. New values, keys and longer data take free cells. Nothing else of
 * the hive changes but what says how many and how long: counts and largest lengths of the key, and the security cell's count of users.
 * `commit` makes the hive clean: both sequence numbers equal and one above what they were, the checksum right.
 */
import { FormatError, UnsupportedError } from '../../../base/errors.ts';
import { viewOf } from '../../../bytes/view.ts';
import { bytesInMemory, Hive, type Key, type Value } from './hive.ts';
import { Cells } from './cells.ts';
import { insertSubkey } from './edit-subkeys.ts';
import {
  baseBlock,
  bigDataBytes,
  checksumOf,
  inlineData,
  keyFlags,
  keyNode,
  keyValue,
  noCell,
  valueFlags,
  valueTypes,
} from './layout.ts';

/** In a security cell: how many keys use it. */
const securityUsersOffsetBytes = 12;

export class HiveEditor {
  readonly hive: Hive;
  readonly #bytes: Uint8Array;
  readonly #cells: Cells;

  /** @param contents the whole file, with the room behind the bins; it is copied. @throws FormatError when it is not sound */
  constructor(name: string, contents: Uint8Array) {
    this.#bytes = new Uint8Array(contents);
    this.hive = new Hive(name, bytesInMemory(this.#bytes));
    this.#cells = new Cells(name, this.#bytes);
  }

  get freeBytes(): number {
    return this.#cells.freeBytes;
  }

  setDword(key: Key, name: string, number: number): void {
    const data = new Uint8Array(4);
    viewOf(data).setUint32(0, number, true);
    this.setValue(key, name, valueTypes.dword, data);
  }

  setText(key: Key, name: string, text: string, type: number = valueTypes.text): void {
    this.setValue(key, name, type, encodeText(text));
  }

  setLines(key: Key, name: string, lines: readonly string[]): void {
    this.setValue(key, name, valueTypes.multiText, encodeLines(lines));
  }

  /** Sets a value's data and type, or adds the value. */
  setValue(key: Key, name: string, type: number, data: Uint8Array): void {
    if (data.length > bigDataBytes)
      throw new UnsupportedError(`registry hive ${this.hive.name}: ${data.length} bytes for the value ${name}`);
    const value = key.value(name) ?? this.#addValue(key, name);
    this.#setData(value, type, data);
    this.#raise(key, 'largestValueData', data.length);
  }

  /** The subkey of that name, made where there is none: with the security of its parent, empty. */
  ensureKey(parent: Key, name: string): Key {
    const found = parent.subkey(name);
    if (found !== undefined) return found;
    const encoded = Buffer.from(asciiName(name), 'latin1');
    const { security, lastWritten } = parent.node;
    const users = viewOf(this.#cells.contents(security));
    if (Buffer.from(this.#cells.contents(security).subarray(0, 2)).toString('latin1') !== 'sk')
      throw this.hive.wrong('security', security, 'is no security cell');
    const cell = this.#cells.allocate(keyNode.sizeBytes + encoded.length);
    const contents = this.#cells.contents(cell);
    const nothing = {
      volatileSubkeyCount: 0,
      subkeyCount: 0,
      valueCount: 0,
      classNameLength: 0,
      accessBits: 0,
      workVar: 0,
    };
    const noCells = { subkeyList: noCell, volatileSubkeyList: noCell, valueList: noCell, className: noCell };
    const noLengths = { largestSubkeyName: 0, largestSubkeyClass: 0, largestValueName: 0, largestValueData: 0 };
    const own = {
      flags: keyFlags.compressedName,
      lastWritten,
      parent: parent.cell,
      security,
      nameLength: encoded.length,
    };
    keyNode.encode({ ...nothing, ...noCells, ...noLengths, ...own }, contents);
    contents.set(encoded, keyNode.sizeBytes);
    insertSubkey(this.#cells, parent, name, cell);
    users.setUint32(securityUsersOffsetBytes, users.getUint32(securityUsersOffsetBytes, true) + 1, true);
    this.#raise(parent, 'largestSubkeyName', encoded.length * 2);
    return this.hive.keyAt(cell);
  }

  /** A key by its path below another, made where it is missing. */
  ensurePath(parent: Key, path: string): Key {
    let key = parent;
    for (const name of path.split('\\')) key = this.ensureKey(key, name);
    return key;
  }

  /** The hive as a whole file, clean. No edits may follow. */
  commit(): Uint8Array {
    const view = viewOf(this.#bytes);
    const { primarySequence, secondarySequence } = this.hive.base;
    const next = (Math.max(primarySequence, secondarySequence) + 1) % 2 ** 32;
    view.setUint32(baseBlock.offsetOf('primarySequence'), next, true);
    view.setUint32(baseBlock.offsetOf('secondarySequence'), next, true);
    view.setUint32(baseBlock.offsetOf('checksum'), checksumOf(this.#bytes), true);
    return this.#bytes;
  }

  #setData(value: Value, type: number, data: Uint8Array): void {
    const { dataLength, data: dataCell } = value.head;
    const head = viewOf(this.#cells.contents(value.cell));
    const put = (field: string, number: number): void => head.setUint32(keyValue.offsetOf(field), number, true);
    put('type', type);
    const isInline = dataLength >= inlineData;
    const oldCell = isInline || dataLength === 0 ? undefined : dataCell;
    const oldContents = oldCell === undefined ? undefined : this.#cells.contents(oldCell);
    if (oldContents !== undefined && dataLength > oldContents.length)
      throw new UnsupportedError(`registry hive ${this.hive.name}: the value ${value.name} is spread over segments`);
    if (oldContents !== undefined && data.length > 4 && data.length <= oldContents.length) {
      oldContents.set(data);
      put('dataLength', data.length);
      return;
    }
    if (data.length <= 4) {
      // A number that had a cell of its own keeps it: one byte less that changes.
      if (oldContents !== undefined && data.length === dataLength) {
        oldContents.set(data);
        return;
      }
      const room = this.#cells.contents(value.cell).subarray(keyValue.offsetOf('data'), keyValue.offsetOf('data') + 4);
      room.fill(0).set(data);
      put('dataLength', inlineData + data.length);
    } else {
      const cell = this.#cells.allocate(data.length);
      this.#cells.contents(cell).set(data);
      put('data', cell);
      put('dataLength', data.length);
    }
    if (oldCell !== undefined) this.#cells.release(oldCell);
  }

  #addValue(key: Key, name: string): Value {
    const encoded = Buffer.from(asciiName(name), 'latin1');
    const cell = this.#cells.allocate(keyValue.sizeBytes + encoded.length);
    const contents = this.#cells.contents(cell);
    const flags = encoded.length === 0 ? 0 : valueFlags.compressedName;
    keyValue.encode(
      { nameLength: encoded.length, dataLength: inlineData, data: 0, type: 0, flags, spare: 0 },
      contents,
    );
    contents.set(encoded, keyValue.sizeBytes);
    this.#addToValueList(key, cell);
    this.#raise(key, 'largestValueName', encoded.length * 2);
    for (const value of key.values()) if (value.cell === cell) return value;
    throw new FormatError(
      `registry hive ${this.hive.name}`,
      'value list',
      cell,
      `the value ${name} is not in the list it was added to`,
    );
  }

  #addToValueList(key: Key, cell: number): void {
    const { valueCount, valueList } = key.node;
    const length = valueCount * 4;
    const old = valueCount === 0 ? undefined : this.#cells.contents(valueList);
    if (old !== undefined && old.length < length)
      throw this.hive.wrong('value list', valueList, `${valueCount} values do not fit it`);
    const node = viewOf(this.#cells.contents(key.cell));
    let list = old;
    if (list === undefined || list.length < length + 4) {
      const grown = this.#cells.allocate(length + 4);
      list = this.#cells.contents(grown);
      if (old !== undefined) {
        list.set(old.subarray(0, length));
        this.#cells.release(valueList);
      }
      node.setUint32(keyNode.offsetOf('valueList'), grown, true);
    }
    viewOf(list).setUint32(length, cell, true);
    node.setUint32(keyNode.offsetOf('valueCount'), valueCount + 1, true);
  }

  /** Raises one of a key's largest lengths; of names only the lower half of the field is one. */
  #raise(key: Key, field: 'largestSubkeyName' | 'largestValueName' | 'largestValueData', length: number): void {
    const node = viewOf(this.#cells.contents(key.cell));
    const at = keyNode.offsetOf(field);
    if (field === 'largestSubkeyName') {
      if (node.getUint16(at, true) < length) node.setUint16(at, length, true);
    } else if (node.getUint32(at, true) < length) node.setUint32(at, length, true);
  }
}

/** UTF-16 with a closing zero. */
export function encodeText(text: string): Uint8Array {
  return Buffer.from(`${text}\0`, 'utf16le');
}

/** Each line with a closing zero, and one more behind the last. */
export function encodeLines(lines: readonly string[]): Uint8Array {
  return Buffer.from([...lines, ''].join('\0') + '\0', 'utf16le');
}

function asciiName(name: string): string {
  if (name.length > 255 || /[^\x20-\x7e]/.test(name))
    throw new UnsupportedError(`"${name}": only ASCII names are written to a registry hive`);
  return name;
}
