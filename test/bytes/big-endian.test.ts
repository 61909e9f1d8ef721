/** Big-endian fields, and UUIDs in the order of RFC 9562. */
import { expect, it } from 'vitest';
import { layout, u16be, u32be, u64be, uuid } from '../../src/bytes/layout.ts';

const structure = layout('example', 30, { small: u16be(0), middle: u32be(2), large: u64be(6), id: uuid(14) });
const value = {
  small: 0x0102,
  middle: 0x8304_0506,
  large: 0xfeff_0102_0304_0506n,
  id: '00112233-4455-6677-8899-aabbccddeeff',
};
const encoded = Buffer.from('0102' + '83040506' + 'feff010203040506' + '00112233445566778899aabbccddeeff', 'hex');

it('big-endian fields are written with the highest byte first', () => {
  expect(Buffer.from(structure.encode(value))).toEqual(encoded);
});

it('big-endian fields are read with the highest byte first', () => {
  expect(structure.parse(encoded)).toEqual(value);
});

it('fields are found at an offset in larger bytes', () => {
  expect(structure.parse(Buffer.concat([Buffer.alloc(3), encoded]), 3)).toEqual(value);
});
