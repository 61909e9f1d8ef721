import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { spread } from '../../covering.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

describe('an image of many leaves', () => {
  it.each(spread([2, 3, 8], 2))('made by %i threads reads as one made by a single thread', async (threads) => {
    const random = seededTest(`threads ${threads}`);
    using folder = new TempFolder();
    // 26 leaves of 8 MiB, some dense, some empty.
    const source = new SourceDisk(folder.file('source.raw'), 205 * MiB + 512);
    scribble(source, random, 60);
    const options = { blockBytes: 16 * KiB, codec: 'lz4' } as const;
    const serial = await createImage(source.path, folder.file('serial.spf'), { ...options, threads: 1 });
    const parallel = await createImage(source.path, folder.file('parallel.spf'), { ...options, threads });
    const { dataBlocks, zeroBlocks, storedBytes, fileSizeBytes } = serial;
    expect(parallel).toMatchObject({ dataBlocks, zeroBlocks, storedBytes, fileSizeBytes });
    expectImageHolds(folder.file('serial.spf'), source.model);
    expectImageHolds(folder.file('parallel.spf'), source.model);

    scribble(source, random, 20);
    for (const [kind, count] of Object.entries({ serial: 1, parallel: threads })) {
      const parent = folder.file(`${kind}.spf`);
      await createImage(source.path, folder.file(`${kind}.spi`), { parent, threads: count });
      expectImageHolds(folder.file(`${kind}.spi`), source.model);
    }
  });

  it('is reported to grow from nothing to all, never back', async () => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 100 * MiB + 1);
    scribble(source, seededTest('progress'), 60);
    const seen: number[] = [];
    await createImage(source.path, folder.file('disk.spf'), {
      threads: 2,
      onProgress: ({ doneBytes, totalBytes }) => {
        expect(totalBytes).toBe(source.sizeBytes);
        seen.push(doneBytes);
      },
    });
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(seen.at(-1)).toBe(source.sizeBytes);
  });
});
