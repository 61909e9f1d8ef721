/** Arithmetic of VHD files, against values that Hyper-V and the specification give. */
import { expect, it } from 'vitest';
import { CapacityError } from '../../../src/base/errors.ts';
import { GiB, MiB } from '../../../src/base/units.ts';
import { blockOffset, chsOf, maxDiskBytes } from '../../../src/native/vhd/layout.ts';
import { vhd } from '../../../src/native/vhd/format.ts';
import { scatteredFacts } from '../golden.ts';

it.each([
  [10 * MiB, 301, 4, 17],
  [127 * GiB, 65_278, 16, 255],
  [504 * MiB, 1024, 16, 63],
  [GiB, 2080, 16, 63],
])('a disk of %i bytes has the geometry of the specification', (sizeBytes, cylinders, heads, sectorsPerTrack) => {
  expect(chsOf(sizeBytes)).toEqual({ cylinders, heads, sectorsPerTrack });
});

it('the largest disk has the largest geometry', () => {
  expect(chsOf(maxDiskBytes)).toEqual({ cylinders: 65_535, heads: 16, sectorsPerTrack: 255 });
});

it.each([5, 1000, 1_000_000])('of %i blocks the data lies on multiples of 4 KiB, as in files of Hyper-V', (count) => {
  const offsets = [0, 1, 2].map((rank) => blockOffset(count, 2 * MiB, rank));
  expect(offsets.map((offset) => (offset + 512) % 4096)).toEqual([0, 0, 0]);
  expect((offsets[1] ?? 0) - (offsets[0] ?? 0)).toBe((0x1017 - 0xf) * 512);
});

it('a fixed file is rounded up to a whole MiB, which the geometry says', () => {
  const facts = { ...scatteredFacts(97 * MiB + 512, MiB, 2), sizeBytes: 97 * MiB + 512 };
  expect(vhd.plan(facts, { layout: 'fixed' })).toMatchObject({
    sizeBytes: 97 * MiB + 512,
    virtualSizeBytes: 98 * MiB,
  });
});

it('Hyper-V opens blocks of 2 MiB only: data too scattered for them is refused, not given larger blocks', () => {
  const facts = scatteredFacts(2000 * GiB, 2 * MiB, 3);
  expect(() => vhd.plan(facts, { layout: 'dynamic' })).toThrow(CapacityError);
});
