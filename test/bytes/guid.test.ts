import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.ts';
import { guidFromBytes, guidToBytes, namedGuid, nilGuid, randomGuid } from '../../src/bytes/guid.ts';
import { seededTest } from '../seeded.ts';

describe('a GUID', () => {
  it('is what it was after its binary form', () => {
    const random = seededTest('guid');
    for (let round = 0; round < 100; round++) {
      const bytes = new Uint8Array(random.bytes(16));
      expect(guidToBytes(guidFromBytes(bytes))).toEqual(bytes);
      const guid = randomGuid();
      expect(guidFromBytes(guidToBytes(guid))).toBe(guid);
    }
  });

  it('has the byte order of Microsoft in its binary form', () => {
    // [MS-DTYP] 2.3.4.2: the BAT region of a VHDX, as its specification prints and stores it.
    const bat = '2dc27766-f623-4200-9d64-115e9bfd4a08';
    expect(Buffer.from(guidToBytes(bat)).toString('hex')).toBe('6677c22d23f600429d64115e9bfd4a08');
  });

  it('is read in upper case and written in lower case', () => {
    expect(guidFromBytes(guidToBytes('2DC27766-F623-4200-9D64-115E9BFD4A08'))).toBe(
      '2dc27766-f623-4200-9d64-115e9bfd4a08',
    );
  });

  it.each(['', 'x', '2dc27766-f623-4200-9d64-115e9bfd4a0', '2dc27766-f623-4200-9d64-115e9bfd4a0g', `{${nilGuid}}`])(
    'is refused when it is %j',
    (text) => {
      expect(() => guidToBytes(text)).toThrow(UsageError);
    },
  );
});

describe('a GUID made from a name', () => {
  it('is the same for the same name, and another for another name or namespace', () => {
    const made = namedGuid(nilGuid, 'disk');
    expect(namedGuid(nilGuid, 'disk')).toBe(made);
    expect(namedGuid(nilGuid, 'disk2')).not.toBe(made);
    expect(namedGuid(made, 'disk')).not.toBe(made);
    // For ever: native disk files keep it.
    expect(made).toMatchInlineSnapshot(`"b31bc8af-6200-8ca3-b689-671da79b9864"`);
  });

  it('is a version 8 of RFC 9562', () => {
    for (let index = 0; index < 50; index++)
      expect(namedGuid(nilGuid, `${index}`)).toMatch(
        /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      );
  });
});
