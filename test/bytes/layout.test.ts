import { describe, expect, it } from 'vitest';
import { AssertionError, FormatError } from '../../src/base/errors.ts';
import {
  ascii,
  bytes,
  guid,
  layout,
  reserved,
  text,
  u16be,
  u16le,
  u32be,
  u32le,
  u64be,
  u64le,
  u8,
  uuid,
} from '../../src/bytes/layout.ts';
import { seededTest } from '../seeded.ts';

const everything = layout('everything', 160, {
  magic: ascii(0, 'MAGIC'),
  byte: u8(5),
  short: u16le(6),
  shortBig: u16be(8),
  gap: reserved(10, 2),
  word: u32le(12),
  wordBig: u32be(16),
  raw: bytes(20, 4),
  long: u64le(24),
  longBig: u64be(32),
  microsoft: guid(40),
  rfc: uuid(56),
  name: text(72, 24, 'utf8'),
  wide: text(96, 60, 'utf16le'),
  end: ascii(156, 'END.'),
});

describe('a layout is rejected when it is declared', () => {
  it.each([
    ['with a gap between fields', 8, () => ({ a: u32le(0), b: u16le(6) })],
    ['with a gap at its start', 8, () => ({ a: u32le(4) })],
    ['with a gap at its end', 9, () => ({ a: u64le(0) })],
    ['with fields that overlap', 8, () => ({ a: u32le(0), b: u32le(3), c: u8(7) })],
    ['with a field inside another', 8, () => ({ a: u64le(0), b: u8(3) })],
    ['with two fields at one place', 4, () => ({ a: u32le(0), b: u32le(0) })],
    ['with a field past its end', 6, () => ({ a: u32le(0), b: u32le(4) })],
    ['with no fields', 4, () => ({})],
  ])('%s', (_, sizeBytes, fields) => {
    expect(() => layout('wrong', sizeBytes, fields())).toThrow(AssertionError);
    expect(() => layout('wrong', sizeBytes, fields())).toThrow(/^internal error: wrong: /);
  });

  it('but not for fields that are declared out of order', () => {
    expect(layout('right', 6, { b: u16le(4), a: u32le(0) }).sizeBytes).toBe(6);
  });
});

describe('a structure', () => {
  it('is what it was after encode and parse, at any place, and leaves its surroundings as they were', () => {
    const random = seededTest('layout');
    for (let round = 0; round < 300; round++) {
      const value = {
        byte: random.below(2 ** 8),
        short: random.below(2 ** 16),
        shortBig: random.below(2 ** 16),
        word: random.below(2 ** 32),
        wordBig: random.below(2 ** 32),
        raw: new Uint8Array(random.bytes(4)),
        long: random.bytes(8).readBigUInt64LE(),
        longBig: random.bytes(8).readBigUInt64LE(),
        microsoft: guidText(random.bytes(16)),
        rfc: guidText(random.bytes(16)),
        name: random.pick(['', 'a', 'sechs und zwölf', 'twenty-four characters..', '🐘🐘🐘🐘🐘🐘']),
        wide: random.pick(['', 'Größe', 'thirty characters that fit it.', '🐘'.repeat(15)]),
      };
      const at = random.below(40);
      // A view that does not start where its buffer does.
      const around = Buffer.alloc(260, 0x5c).subarray(13, 253);
      everything.encode(value, around, at);
      expect(everything.parse(around, at)).toEqual(value);
      const outside = [...around.subarray(0, at), ...around.subarray(at + everything.sizeBytes)];
      expect(outside.every((byte) => byte === 0x5c)).toBe(true);
      // The same again by parse and encode, byte for byte.
      const fresh = everything.encode(everything.parse(around, at));
      expect(Buffer.from(fresh).equals(around.subarray(at, at + everything.sizeBytes))).toBe(true);
    }
  });

  it('has its bytes where and in the order its declaration says', () => {
    const encoded = everything.encode({
      byte: 0x01,
      short: 0x0203,
      shortBig: 0x0203,
      word: 0x04050607,
      wordBig: 0x04050607,
      raw: Uint8Array.of(8, 9, 10, 11),
      long: 0x0102030405060708n,
      longBig: 0x0102030405060708n,
      microsoft: '00112233-4455-6677-8899-aabbccddeeff',
      rfc: '00112233-4455-6677-8899-aabbccddeeff',
      name: 'n',
      wide: 'w',
    });
    expect(Buffer.from(encoded.subarray(0, 76)).toString('hex')).toBe(
      '4d41474943' + // MAGIC
        '01' +
        '0302' +
        '0203' +
        '0000' +
        '07060504' +
        '04050607' +
        '08090a0b' +
        '0807060504030201' +
        '0102030405060708' +
        '33221100554477668899aabbccddeeff' +
        '00112233445566778899aabbccddeeff' +
        '6e000000',
    );
    expect(Buffer.from(encoded.subarray(96, 100)).toString('hex')).toBe('77000000');
    expect(Buffer.from(encoded.subarray(156)).toString()).toBe('END.');
  });

  it('tells where its fields are', () => {
    expect(everything.offsetOf('long')).toBe(24);
    expect(() => everything.offsetOf('nothing')).toThrow(AssertionError);
  });
});

describe('parsing', () => {
  const sound = (): Uint8Array => {
    const encoded = new Uint8Array(everything.sizeBytes);
    encoded.set(Buffer.from('MAGIC'));
    encoded.set(Buffer.from('END.'), 156);
    return encoded;
  };

  it.each([0, 4, 156, 159])('refuses a constant whose byte %i differs, and names it', (at) => {
    const damaged = sound();
    damaged[at] = (damaged[at] ?? 0) ^ 0x20;
    expect(() => everything.parse(damaged)).toThrow(FormatError);
    expect(() => everything.parse(damaged)).toThrow(
      at < 100 ? /everything: magic at byte 0/ : /everything: end at byte 156/,
    );
  });

  it('refuses bytes that end before the structure does', () => {
    for (const length of [0, 1, 159]) {
      expect(() => everything.parse(sound().subarray(0, length))).toThrow(FormatError);
    }
    expect(() => everything.parse(sound(), 1)).toThrow(/159 bytes where 160 are needed/);
  });

  it('takes reserved bytes as they come, and encodes them as zeros', () => {
    const filled = sound().fill(0xff, 10, 12);
    const value = everything.parse(filled);
    expect(value).not.toHaveProperty('gap');
    expect(everything.encode(value, filled).subarray(10, 12)).toEqual(Uint8Array.of(0, 0));
  });

  it('copies raw bytes: what is done to the source later does not matter', () => {
    const source = sound().fill(7, 20, 24);
    const { raw } = everything.parse(source);
    source.fill(9);
    expect(raw).toEqual(Uint8Array.of(7, 7, 7, 7));
  });
});

describe('encoding', () => {
  it('refuses raw bytes and text that do not fit', () => {
    const two = layout('two', 8, { raw: bytes(0, 4), name: text(4, 4, 'utf8') });
    for (const wrong of [
      { raw: new Uint8Array(3), name: '' },
      { raw: new Uint8Array(5), name: '' },
      { raw: new Uint8Array(4), name: 'fünf' },
    ])
      expect(() => two.encode(wrong)).toThrow(AssertionError);
    expect(two.parse(two.encode({ raw: new Uint8Array(4), name: 'fün' })).name).toBe('fün');
  });

  it('clears what a longer text left behind', () => {
    const one = layout('one', 8, { name: text(0, 8, 'utf8') });
    const target = one.encode({ name: 'longtext' });
    expect(one.parse(one.encode({ name: 'x' }, target)).name).toBe('x');
    expect(target).toEqual(Uint8Array.of(0x78, 0, 0, 0, 0, 0, 0, 0));
  });

  it('refuses a target that is too small', () => {
    expect(() => layout('word', 4, { word: u32le(0) }).encode({ word: 1 }, new Uint8Array(3))).toThrow();
  });
});

function guidText(random: Buffer): string {
  return random.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
