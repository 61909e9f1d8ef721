import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { extractImage } from '../../../src/backup/read/extract.ts';
import { codecs } from '../../../src/backup/format/layout.ts';
import { covering } from '../../covering.ts';
import { seededTest, soak } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

const sizes = [
  { name: '512 bytes', sizeBytes: 512 },
  { name: '1 byte', sizeBytes: 1 },
  { name: '1 MiB and 512 bytes', sizeBytes: MiB + 512 },
  { name: '97 MiB', sizeBytes: 97 * MiB },
];

/** A soak has every codec with all blocks and sizes, `npm test` each with each size of blocks and each size of disk. */
const cases = covering(
  codecs.flatMap((codec) =>
    [16 * KiB, 64 * KiB, MiB].flatMap((blockBytes) => sizes.map((size) => ({ codec, blockBytes, ...size }))),
  ),
  ({ codec, blockBytes, name }) => [`${codec} ${blockBytes}`, `${codec} ${name}`],
);

it.each(cases)(
  'with $codec in blocks of $blockBytes bytes: a full image of $name reads and extracts as its source',
  async ({ codec, blockBytes, name, sizeBytes }) => {
    const random = seededTest(`round trip ${codec} ${blockBytes} ${name}`);
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), sizeBytes);
    scribble(source, random, soak ? 200 : 12);
    source.write(sizeBytes - 1, Buffer.from([0x55]));

    const description = await createImage(source.path, folder.file('disk.spf'), { codec, blockBytes });

    expect(description).toMatchObject({ kind: 'full', codec, blockBytes, sourceSizeBytes: sizeBytes, sequence: 0 });
    expect(folder.names()).toEqual(['disk.spf', 'source.raw']);
    expectImageHolds(folder.file('disk.spf'), source.model);
    const extracted = extractImage(folder.file('disk.spf'), folder.file('out.raw'));
    expect(extracted.sizeBytes).toBe(sizeBytes);
    const out = fs.readFileSync(folder.file('out.raw'));
    expect(createHash('sha256').update(out).digest('hex')).toBe(source.sha256());
  },
);
