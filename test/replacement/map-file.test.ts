/** The two copies of a map's header: which one counts, and when they are equal again. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import { sealCrc32c } from '../../src/bytes/checksum.ts';
import { mapHeader, mapHeaderBytes, unitBytes, type MapHeader } from '../../src/replacement/layout.ts';
import { readHeader } from '../../src/replacement/map-file.ts';
import { thrownBy } from '../backup/image-holds.ts';
import { TempFolder } from '../temp-folder.ts';
import { filesOf, KeptFile, placeOf } from './kept-file.ts';

const baseBytes = 5 * unitBytes;
const offsets = [0, mapHeaderBytes] as const;

function mapOfNew(folder: TempFolder): { place: ReturnType<typeof placeOf>; map: string; header: MapHeader } {
  const place = placeOf(folder.file('disk.raw'), baseBytes);
  new KeptFile(place).close();
  const { map } = filesOf(place);
  return { place, map, header: headerAt(map, 0) };
}

function headerAt(map: string, offset: number): MapHeader {
  return mapHeader.parse(fs.readFileSync(map).subarray(offset, offset + mapHeaderBytes));
}

function putHeader(map: string, header: MapHeader, offset: number): void {
  const bytes = fs.readFileSync(map);
  bytes.set(sealCrc32c(mapHeader.encode(header), mapHeader.offsetOf('crc32c')), offset);
  fs.writeFileSync(map, bytes);
}

function found(map: string): ReturnType<typeof readHeader> {
  const fd = fs.openSync(map, 'r');
  try {
    return readHeader(fd, map);
  } finally {
    fs.closeSync(fd);
  }
}

describe('of two sound copies of a header', () => {
  it.each([
    [0, mapHeaderBytes],
    [mapHeaderBytes, 0],
  ] as const)(
    'the one with the higher number counts (at %i, the older at %i), and the open makes both equal',
    (at, olderAt) => {
      using folder = new TempFolder();
      const { place, map, header } = mapOfNew(folder);
      const newer = { ...header, sequence: header.sequence + 1n, visibleBytes: BigInt(2 * unitBytes) };
      putHeader(map, newer, at);
      expect(found(map)).toMatchObject({
        header: { sequence: newer.sequence },
        otherIsOlder: true,
        otherOffset: olderAt,
      });
      new KeptFile(place).close();
      for (const offset of offsets)
        expect(headerAt(map, offset)).toEqual({ ...newer, crc32c: headerAt(map, at).crc32c });
      // What is damaged later is not replaced by an older truth.
      fs.writeFileSync(map, fs.readFileSync(map).fill(0xff, at, at + 16));
      expect(found(map).header.visibleBytes).toBe(newer.visibleBytes);
    },
  );

  it('none is older at rest, and the open writes none', () => {
    using folder = new TempFolder();
    const { place, map } = mapOfNew(folder);
    expect(found(map).otherIsOlder).toBe(false);
    const before = fs.readFileSync(map);
    new KeptFile(place).close();
    expect(fs.readFileSync(map)).toEqual(before);
  });
});

describe('a header with a sound checksum is refused', () => {
  it.each([
    ['of a version that is not known', { version: 99 }],
    ['of a version of sealed files where it is not sealed', { sealed: 1 as const }],
    ['with units of another size', { unitBytes: 2 * unitBytes }],
    ['with more visible than there is', { visibleBytes: BigInt(baseBytes) + 1n }],
    ['with a base that no file reaches', { baseBytes: 2n ** 62n }],
  ])('%s', (_what, change) => {
    using folder = new TempFolder();
    const { place, map, header } = mapOfNew(folder);
    for (const offset of offsets) putHeader(map, { ...header, ...change }, offset);
    expect(thrownBy(() => found(map))).toBeInstanceOf(FormatError);
    expect(thrownBy(() => new KeptFile(place))).toBeInstanceOf(FormatError);
  });

  it('and all of the base may show', () => {
    using folder = new TempFolder();
    const { map, header } = mapOfNew(folder);
    for (const offset of offsets) putHeader(map, { ...header, visibleBytes: BigInt(baseBytes) }, offset);
    expect(found(map).header.visibleBytes).toBe(BigInt(baseBytes));
  });
});
