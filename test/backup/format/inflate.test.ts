import zlib from 'node:zlib';
import lz4 from 'lz4-napi';
import { describe, expect, it } from 'vitest';
import { FormatError, UnsupportedError, VeneerError } from '../../../src/base/errors.ts';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { inflateBlock } from '../../../src/backup/format/codec.ts';
import type { Codec, LeafEntry } from '../../../src/backup/format/layout.ts';
import { processorMs, Seeded, seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { craftImage, type Lies } from '../crafted-image.ts';
import { faultsOf, thrownBy } from '../image-holds.ts';

const blockBytes = 16 * KiB;
const bomb = Buffer.alloc(16 * MiB);

/** The same bytes under a prefix that says another size. */
function relabelled(compressed: Buffer, size: number): Buffer {
  const copy = Buffer.from(compressed);
  copy.writeUInt32LE(size, 0);
  return copy;
}

const half = (bytes: Buffer): Buffer => bytes.subarray(0, Math.floor(bytes.length / 2));
const zstd = (bytes: Uint8Array): Buffer => zlib.zstdCompressSync(bytes);
const lz4Bytes = (bytes: Uint8Array): Buffer => lz4.compressSync(Buffer.from(bytes));
const block = Buffer.alloc(blockBytes, 1);
const varied = new Seeded('half').compressibleBytes(blockBytes);
const streamed = zlib.zstdCompressSync(bomb, { params: { [zlib.constants.ZSTD_c_contentSizeFlag]: 0 } });

const cases: ReadonlyArray<readonly [string, Codec, Buffer]> = [
  ['16 MiB of zeros with zstd', 'zstd', zstd(bomb)],
  ['16 MiB of zeros with zstd that does not say its size', 'zstd', streamed],
  ['one byte more than a block with zstd', 'zstd', zstd(Buffer.alloc(blockBytes + 1))],
  ['one byte less than a block with zstd', 'zstd', zstd(Buffer.alloc(blockBytes - 1))],
  ['a block in two frames, and a third', 'zstd', Buffer.concat([zstd(block), zstd(block)])],
  ['a block and rubbish behind it with zstd', 'zstd', Buffer.concat([zstd(block), Buffer.from('rubbish')])],
  ['half a zstd frame', 'zstd', half(zstd(varied))],
  ['no bytes with zstd', 'zstd', Buffer.alloc(0)],
  ['no zstd at all', 'zstd', Buffer.alloc(100, 0x33)],
  ['zstd data under the name of lz4', 'lz4', zstd(block)],
  ['4 MiB of zeros with lz4', 'lz4', lz4Bytes(bomb.subarray(0, 4 * MiB))],
  [
    '4 MiB of zeros with lz4 that says it is a block',
    'lz4',
    relabelled(lz4Bytes(bomb.subarray(0, 4 * MiB)), blockBytes),
  ],
  ['lz4 that says it is 4 GiB', 'lz4', relabelled(lz4Bytes(block), 0xffff_ffff)],
  ['one byte more than a block with lz4', 'lz4', lz4Bytes(Buffer.alloc(blockBytes + 1))],
  [
    'one byte more than a block with lz4 that says it is a block',
    'lz4',
    relabelled(lz4Bytes(Buffer.alloc(blockBytes + 1)), blockBytes),
  ],
  [
    'one byte less than a block with lz4 that says it is a block',
    'lz4',
    relabelled(lz4Bytes(Buffer.alloc(blockBytes - 1)), blockBytes),
  ],
  ['half a lz4 block', 'lz4', half(lz4Bytes(varied))],
  ['three bytes with lz4', 'lz4', Buffer.alloc(3)],
  ['no bytes with lz4', 'lz4', Buffer.alloc(0)],
  ['one byte less than a block, raw', 'none', Buffer.alloc(blockBytes - 1, 1)],
  ['one byte more than a block, raw', 'none', Buffer.alloc(blockBytes + 1, 1)],
  ['no bytes, raw', 'none', Buffer.alloc(0)],
];

describe('a block that does not inflate to its size is refused, in bounded time and memory', () => {
  it.each(cases)('%s', (_, codec, stored) => {
    using folder = new TempFolder();
    const { bytes } = craftImage({ blocks: new Map([[2, { codec, stored }]]), sizeBytes: 4 * blockBytes, blockBytes });
    const path = folder.write('disk.spf', bytes);
    using disk = closing(openChainDisk(path));
    // In part, which goes through the cache, and whole, which does not.
    for (const length of [100, blockBytes]) {
      const target = Buffer.alloc(length);
      const before = process.memoryUsage.rss();
      const started = processorMs();
      const error = thrownBy(() => disk.value.read(target, 2 * blockBytes));
      expect(error).toBeInstanceOf(FormatError);
      expect(error).toHaveProperty('message', expect.stringContaining(`block 2 (disk byte ${2 * blockBytes})`));
      expect(processorMs() - started).toBeLessThan(250);
      expect(process.memoryUsage.rss() - before).toBeLessThan(12 * MiB);
    }
    expect(faultsOf(path)).toMatchObject([{ structure: 'block', diskOffset: 2 * blockBytes, lengthBytes: blockBytes }]);
    // The neighbours are as they should be.
    const neighbour = Buffer.alloc(blockBytes, 0xff);
    disk.value.read(neighbour, blockBytes);
    expect(neighbour.every((byte) => byte === 0)).toBe(true);
  });

  it('a record that is longer than its block may be', () => {
    expectUnreadable({ entry: (honest) => ({ ...honest, storedBytes: blockBytes + 29 }) }, 'FORMAT', /limit/);
  });
});

describe('an entry that this version does not know is refused', () => {
  it.each([3, 7, 255])('codec %i', (codec) => {
    expectUnreadable({ entry: (honest) => ({ ...honest, codec }) }, 'FORMAT', /codec/);
  });

  it.each([4, 9, 255])('state %i, which might be data', (state) => {
    expectUnreadable({ entry: (honest) => ({ ...honest, state }) }, 'FORMAT', /state/);
  });

  it('an encrypted block', () => {
    expectUnreadable({ entry: (honest) => ({ ...honest, flags: 1 }) }, 'FORMAT', /not encrypted/);
  });
});

it('what zstd and lz4 make of any block inflates to it again, into the middle of any buffer', () => {
  const random = seededTest('inflate');
  for (let round = 0; round < 40; round++) {
    const original = random.compressibleBytes(blockBytes);
    const around = Buffer.alloc(blockBytes + 64, 0x5c);
    const shift = random.below(64);
    const target = around.subarray(shift, shift + blockBytes);
    const codec = random.pick(['zstd', 'lz4', 'none'] as const);
    const stored = codec === 'none' ? original : codec === 'zstd' ? zstd(original) : lz4Bytes(original);
    inflateBlock(codec, stored, target, 'block');
    expect(target.equals(original)).toBe(true);
    const outside = Buffer.concat([around.subarray(0, shift), around.subarray(shift + blockBytes)]);
    expect(outside.every((byte) => byte === 0x5c)).toBe(true);
  }
});

function expectUnreadable(lies: Pick<Lies, 'entry'>, code: string, why: RegExp): void {
  using folder = new TempFolder();
  const stored = Buffer.alloc(blockBytes, 1);
  const entry = (honest: LeafEntry): LeafEntry => lies.entry?.(honest) ?? honest;
  const { bytes } = craftImage({
    blocks: new Map([[1, { codec: 'none', stored }]]),
    sizeBytes: 4 * blockBytes,
    blockBytes,
    lies: { entry },
  });
  using disk = closing(openChainDisk(folder.write('disk.spf', bytes)));
  for (const length of [1, blockBytes]) {
    const error = thrownBy(() => disk.value.read(Buffer.alloc(length), blockBytes));
    expect(error).toBeInstanceOf(code === 'UNSUPPORTED' ? UnsupportedError : VeneerError);
    expect(error).toMatchObject({ code, message: expect.stringMatching(why) as string });
  }
  // Not a zero extent: who copies by extents must meet the error.
  expect([...disk.value.extents(blockBytes, blockBytes)]).toEqual([
    { offset: blockBytes, length: blockBytes, kind: 'data' },
  ]);
}
