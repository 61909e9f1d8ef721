import { describe, expect, it } from 'vitest';
import { GiB, KiB, MiB, TiB } from '../../../src/base/units.ts';
import { checkCrc32c } from '../../../src/bytes/checksum.ts';
import {
  batEntryCount,
  batIndexOfBitmap,
  batIndexOfPayload,
  batRegionBytes,
  batRegionId,
  chunkRatio,
  fileParameters,
  fileTypeIdentifier,
  header,
  metadataItems,
  metadataRegionId,
  metadataTableEntry,
  metadataTableHeader,
  payloadBlockAt,
  payloadBlockCount,
  regionTableEntry,
  regionTableHeader,
  virtualDiskSize,
} from '../../../src/native/vhdx/layout.ts';
import { hyperVFixture } from './fixture.ts';

describe('the declared structures', () => {
  it('parse what Hyper-V has written', (ctx) => {
    const file = hyperVFixture(ctx);
    expect(fileTypeIdentifier.parse(file).creator).toBe('Microsoft Windows 10.0.18363.0');
    for (const [at, sequenceNumber] of [
      [64 * KiB, 14n],
      [128 * KiB, 15n],
    ] as const) {
      checkCrc32c(file.subarray(at, at + 4 * KiB), header.offsetOf('checksum'), 'header');
      const parsed = header.parse(file, at);
      expect(parsed).toMatchObject({
        sequenceNumber,
        version: 1,
        logVersion: 0,
        logOffset: BigInt(MiB),
        logLengthBytes: MiB,
      });
    }
    const table = file.subarray(192 * KiB, 256 * KiB);
    checkCrc32c(table, regionTableHeader.offsetOf('checksum'), 'region table');
    expect(regionTableHeader.parse(table).entryCount).toBe(2);
    expect(regionTableEntry.parse(table, 16)).toMatchObject({ regionId: batRegionId, fileOffset: BigInt(3 * MiB) });
    expect(regionTableEntry.parse(table, 48)).toMatchObject({
      regionId: metadataRegionId,
      fileOffset: BigInt(2 * MiB),
    });
  });

  it('find the metadata that Hyper-V has written', (ctx) => {
    const file = hyperVFixture(ctx);
    expect(metadataTableHeader.parse(file, 2 * MiB).entryCount).toBe(5);
    const entries = [0, 1, 2, 3, 4].map((index) => metadataTableEntry.parse(file, 2 * MiB + 32 + index * 32));
    expect(entries.map((entry) => entry.itemId)).toEqual([
      metadataItems.fileParameters,
      metadataItems.virtualDiskSize,
      metadataItems.logicalSectorSize,
      metadataItems.physicalSectorSize,
      metadataItems.virtualDiskId,
    ]);
    expect(fileParameters.parse(file, 2 * MiB + (entries[0]?.offset ?? 0))).toEqual({ blockBytes: 32 * MiB, flags: 0 });
    expect(virtualDiskSize.parse(file, 2 * MiB + (entries[1]?.offset ?? 0)).sizeBytes).toBe(BigInt(10 * MiB));
  });

  it('encode to the bytes that they parsed', (ctx) => {
    const file = hyperVFixture(ctx);
    const piece = file.subarray(128 * KiB, 128 * KiB + 4 * KiB);
    expect(Buffer.from(header.encode(header.parse(piece))).equals(piece)).toBe(true);
  });
});

describe('the arithmetic of the BAT', () => {
  it('has the chunk ratios that the specification gives', () => {
    expect(chunkRatio({ logicalSectorBytes: 512, payloadBlockBytes: MiB })).toBe(4096);
    expect(chunkRatio({ logicalSectorBytes: 512, payloadBlockBytes: 256 * MiB })).toBe(16);
    expect(chunkRatio({ logicalSectorBytes: 4096, payloadBlockBytes: MiB })).toBe(32768);
    expect(chunkRatio({ logicalSectorBytes: 4096, payloadBlockBytes: 32 * MiB })).toBe(1024);
  });

  it('gives every entry to one block, as counting through the table does', () => {
    const ratio = 16;
    let block = 0;
    let chunk = 0;
    for (let index = 0; index < 100; index++) {
      if (index % 17 === 16) {
        expect(payloadBlockAt(index, ratio)).toBeUndefined();
        expect(batIndexOfBitmap(chunk++, ratio)).toBe(index);
      } else {
        expect(payloadBlockAt(index, ratio)).toBe(block);
        expect(batIndexOfPayload(block++, ratio)).toBe(index);
      }
    }
  });

  it('counts entries to the last payload block, and to the last sector bitmap when differencing', () => {
    const blocks = (virtualBytes: number, payloadBlockBytes: number) => ({
      virtualBytes,
      payloadBlockBytes,
      logicalSectorBytes: 512,
    });
    expect(batEntryCount(blocks(10 * MiB, 32 * MiB), false)).toBe(1);
    expect(batEntryCount(blocks(10 * MiB, 32 * MiB), true)).toBe(129);
    expect(batEntryCount(blocks(4 * GiB, 32 * MiB), false)).toBe(128);
    expect(batEntryCount(blocks(4 * GiB + 512, 32 * MiB), false)).toBe(130);
    expect(batEntryCount(blocks(4 * GiB, 32 * MiB), true)).toBe(129);
    expect(payloadBlockCount(blocks(64 * TiB, MiB))).toBe(64 * MiB);
    expect(batRegionBytes(batEntryCount(blocks(63 * TiB, MiB), false))).toBe(505 * MiB);
    expect(batRegionBytes(1)).toBe(MiB);
  });
});
