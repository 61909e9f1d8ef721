import { describe, expect, it } from 'vitest';
import { IntegrityError } from '../../src/base/errors.ts';
import { checkCrc32c, crc32c, crc32cWithoutField, sealCrc32c } from '../../src/bytes/checksum.ts';
import { seededTest } from '../seeded.ts';

describe('CRC-32C', () => {
  // RFC 3720, B.4, and the check value of the polynomial.
  it.each([
    ['"123456789"', Buffer.from('123456789'), 0xe3069283],
    ['nothing', Buffer.alloc(0), 0],
    ['32 zeros', Buffer.alloc(32), 0x8a9136aa],
    ['32 ones', Buffer.alloc(32, 0xff), 0x62a8ab43],
    ['32 bytes that count up', Buffer.from(Array.from({ length: 32 }, (_, index) => index)), 0x46dd794e],
    ['32 bytes that count down', Buffer.from(Array.from({ length: 32 }, (_, index) => 31 - index)), 0x113fdb5c],
  ])('of %s is as published', (_, input, expected) => {
    expect(crc32c(input)).toBe(expected);
  });

  it('continues from any place, and of any view, as of the whole', () => {
    const random = seededTest('crc');
    for (let round = 0; round < 200; round++) {
      const whole = random.bytes(random.below(5000));
      const middle = random.below(whole.length + 1);
      expect(crc32c(whole.subarray(middle), crc32c(whole.subarray(0, middle)))).toBe(crc32c(Buffer.from(whole)));
    }
  });

  it('of a structure takes its own field as zero', () => {
    const random = seededTest('own field');
    for (let round = 0; round < 50; round++) {
      const structure = random.bytes(random.between(4, 5000));
      const field = random.below(structure.length - 3);
      const cleared = Buffer.from(structure).fill(0, field, field + 4);
      expect(crc32cWithoutField(structure, field)).toBe(crc32c(cleared));
    }
  });
});

describe('a sealed structure', () => {
  it('is accepted as it is, and refused with any byte changed', () => {
    const structure = seededTest('sealed').bytes(200);
    sealCrc32c(structure, 60);
    expect(() => checkCrc32c(structure, 60, 'header')).not.toThrow();
    for (let at = 0; at < structure.length; at++) {
      const damaged = Buffer.from(structure);
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      expect(() => checkCrc32c(damaged, 60, 'header'), `byte ${at}`).toThrow(IntegrityError);
    }
  });

  it('that is refused is named, with what was expected and found', () => {
    expect(() => checkCrc32c(Buffer.alloc(32), 0, 'disk.spf: superblock')).toThrow(
      /^disk\.spf: superblock: checksum is 0x8a9136aa, expected 0x00000000$/,
    );
  });
});
