/**
 * Declared binary layouts: a structure's fields are written down once and both parse and encode.
 *
 * - Gaps and overlaps are rejected when the module loads: unused bytes are declared as `reserved`.
 * - A constant field (`ascii(0, 'head')`) is checked by parse and written by encode; it is not part of the value.
 * - A u64 decodes to a bigint: narrow it at once with `toOffset`.
 */
import { AssertionError, FormatError } from '../base/errors.ts';
import { bytesOfName, nameOfBytes } from '../base/names.ts';
import { guidFromBytes, guidToBytes, type Guid } from './guid.ts';

export interface Field<T> {
  readonly offset: number;
  readonly lengthBytes: number;
  get(view: DataView, at: number): T;
  put(view: DataView, at: number, value: T): void;
  /** Set for fields that carry no value: reserved bytes, and constants, which return what is wrong with the bytes found. */
  check?(view: DataView, at: number): string | undefined;
}

type Fields = Readonly<Record<string, Field<unknown>>>;
type FieldValue<F> = F extends Field<infer T> ? T : never;
type ValueFields<F extends Fields> = { [K in keyof F as FieldValue<F[K]> extends void ? never : K]: FieldValue<F[K]> };

export interface Layout<V> {
  readonly name: string;
  readonly sizeBytes: number;
  /** Byte offset of a field, e.g. of a checksum that covers the rest. */
  offsetOf(field: string): number;
  /** @throws FormatError when a constant differs or the bytes end before the structure does. */
  parse(bytes: Uint8Array, at?: number): V;
  /** Writes the structure over `target` at `at` (a fresh zeroed array by default) and returns the array. */
  encode(value: V, target?: Uint8Array, at?: number): Uint8Array;
}

/** The value that a layout decodes to. */
export type Decoded<L> = L extends Layout<infer V> ? V : never;

export function layout<F extends Fields>(name: string, sizeBytes: number, declared: F): Layout<ValueFields<F>> {
  const fields: Array<[string, Field<unknown>]> = Object.entries(declared);
  assertCovered(name, sizeBytes, fields);
  return {
    name,
    sizeBytes,
    offsetOf(field) {
      const found = declared[field];
      if (found === undefined) throw new AssertionError(`${name} has no field ${field}`);
      return found.offset;
    },
    parse(bytes, at = 0) {
      if (bytes.length - at < sizeBytes) {
        throw new FormatError(name, 'length', at, `${bytes.length - at} bytes where ${sizeBytes} are needed`);
      }
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const value: Record<string, unknown> = {};
      for (const [key, field] of fields) {
        if (field.check === undefined) {
          value[key] = field.get(view, at + field.offset);
          continue;
        }
        const wrong = field.check(view, at + field.offset);
        if (wrong !== undefined) throw new FormatError(name, key, at + field.offset, wrong);
      }
      return value as ValueFields<F>;
    },
    encode(value, target = new Uint8Array(sizeBytes), at = 0) {
      const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
      for (const [key, field] of fields) {
        field.put(view, at + field.offset, (value as Record<string, unknown>)[key]);
      }
      return target;
    },
  };
}

function assertCovered(
  name: string,
  sizeBytes: number,
  fields: ReadonlyArray<readonly [string, Field<unknown>]>,
): void {
  let end = 0;
  for (const [key, field] of [...fields].sort((a, b) => a[1].offset - b[1].offset)) {
    if (field.offset !== end) {
      throw new AssertionError(`${name}: field ${key} starts at ${field.offset}, the one before ends at ${end}`);
    }
    end = field.offset + field.lengthBytes;
  }
  if (end !== sizeBytes) throw new AssertionError(`${name}: fields end at ${end}, the structure at ${sizeBytes}`);
}

type NumberReader = (view: DataView, at: number) => number;
type NumberWriter = (view: DataView, at: number, value: number) => void;

function number(offset: number, lengthBytes: number, get: NumberReader, put: NumberWriter): Field<number> {
  return { offset, lengthBytes, get, put };
}

export const u8 = (offset: number): Field<number> =>
  number(
    offset,
    1,
    (v, at) => v.getUint8(at),
    (v, at, x) => v.setUint8(at, x),
  );
export const u16le = (offset: number): Field<number> =>
  number(
    offset,
    2,
    (v, at) => v.getUint16(at, true),
    (v, at, x) => v.setUint16(at, x, true),
  );
export const u32le = (offset: number): Field<number> =>
  number(
    offset,
    4,
    (v, at) => v.getUint32(at, true),
    (v, at, x) => v.setUint32(at, x, true),
  );
export const u64le = (offset: number): Field<bigint> => ({
  offset,
  lengthBytes: 8,
  get: (v, at) => v.getBigUint64(at, true),
  put: (v, at, x) => v.setBigUint64(at, x, true),
});

export const s32le = (offset: number): Field<number> =>
  number(
    offset,
    4,
    (v, at) => v.getInt32(at, true),
    (v, at, x) => v.setInt32(at, x, true),
  );
export const s64le = (offset: number): Field<bigint> => ({
  offset,
  lengthBytes: 8,
  get: (v, at) => v.getBigInt64(at, true),
  put: (v, at, x) => v.setBigInt64(at, x, true),
});

export const u16be = (offset: number): Field<number> =>
  number(
    offset,
    2,
    (v, at) => v.getUint16(at),
    (v, at, x) => v.setUint16(at, x),
  );
export const u32be = (offset: number): Field<number> =>
  number(
    offset,
    4,
    (v, at) => v.getUint32(at),
    (v, at, x) => v.setUint32(at, x),
  );
export const u64be = (offset: number): Field<bigint> => ({
  offset,
  lengthBytes: 8,
  get: (v, at) => v.getBigUint64(at),
  put: (v, at, x) => v.setBigUint64(at, x),
});

/** Raw bytes. `get` returns a copy. */
export const bytes = (offset: number, lengthBytes: number): Field<Uint8Array> => ({
  offset,
  lengthBytes,
  get: (v, at) => new Uint8Array(v.buffer.slice(v.byteOffset + at, v.byteOffset + at + lengthBytes) as ArrayBuffer),
  put: (v, at, x) => {
    if (x.length !== lengthBytes) throw new AssertionError(`${x.length} bytes for a field of ${lengthBytes}`);
    new Uint8Array(v.buffer, v.byteOffset + at, lengthBytes).set(x);
  },
});

/** A GUID in Microsoft's mixed-endian order, as its lower-case text. */
export const guid = (offset: number): Field<Guid> => ({
  offset,
  lengthBytes: 16,
  get: (v, at) => guidFromBytes(new Uint8Array(v.buffer, v.byteOffset + at, 16)),
  put: (v, at, x) => new Uint8Array(v.buffer, v.byteOffset + at, 16).set(guidToBytes(x)),
});

/** A UUID in the byte order of RFC 9562, as its lower-case text. */
export const uuid = (offset: number): Field<Guid> => ({
  offset,
  lengthBytes: 16,
  get: (v, at) => {
    const hex = Buffer.from(v.buffer, v.byteOffset + at, 16).toString('hex');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  },
  put: (v, at, x) => new Uint8Array(v.buffer, v.byteOffset + at, 16).set(Buffer.from(x.replaceAll('-', ''), 'hex')),
});

/** Zero-padded text in a field of fixed size. Of UTF-8 it may be a name: bytes that are none come back as they were (base/names.ts). */
export const text = (offset: number, lengthBytes: number, encoding: 'utf8' | 'utf16le'): Field<string> => ({
  offset,
  lengthBytes,
  get: (v, at) => {
    const bytes = Buffer.from(v.buffer, v.byteOffset + at, lengthBytes);
    if (encoding === 'utf16le') return bytes.toString(encoding).split('\0', 1)[0] ?? '';
    const end = bytes.indexOf(0);
    return nameOfBytes(end < 0 ? bytes : bytes.subarray(0, end));
  },
  put: (v, at, x) => {
    const encoded = encoding === 'utf8' ? bytesOfName(x) : Buffer.from(x, encoding);
    if (encoded.length > lengthBytes) throw new AssertionError(`"${x}" does not fit ${lengthBytes} bytes`);
    new Uint8Array(v.buffer, v.byteOffset + at, lengthBytes).fill(0).set(encoded);
  },
});

/** A constant: checked by parse, written by encode. */
export const ascii = (offset: number, expected: string): Field<void> => ({
  offset,
  lengthBytes: expected.length,
  get: () => undefined,
  put: (v, at) => Buffer.from(v.buffer, v.byteOffset + at, expected.length).write(expected, 'latin1'),
  check: (v, at) => {
    const found = Buffer.from(v.buffer, v.byteOffset + at, expected.length).toString('latin1');
    return found === expected ? undefined : `${JSON.stringify(found)} where ${JSON.stringify(expected)} belongs`;
  },
});

/** Bytes that mean nothing: zero when encoded, ignored when parsed. */
export const reserved = (offset: number, lengthBytes: number): Field<void> => ({
  offset,
  lengthBytes,
  get: () => undefined,
  put: (v, at) => void new Uint8Array(v.buffer, v.byteOffset + at, lengthBytes).fill(0),
  check: () => undefined,
});
