import { describe, expect, it } from 'vitest';
import { FormatError, UsageError } from '../../../src/base/errors.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { parseChangedRanges } from '../../../src/backup/write/changed-ranges.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { SourceDisk } from '../source-disk.ts';

const block = 64 * KiB;

describe('an incremental of changed ranges', () => {
  it('reads those bytes and no other: what else the source holds does not matter', async () => {
    const random = seededTest('only those bytes');
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 5 * MiB + 700);
    source.write(0, random.bytes(3 * MiB));
    await createImage(source.path, folder.file('1.spf'));
    const expected = source.model.copy();

    // All of the source becomes something else; only these ranges are told of.
    source.write(0, random.bytes(source.sizeBytes));
    const changed = [
      { offset: 10, length: 1 },
      { offset: block - 1, length: 2 },
      { offset: 20 * block, length: 3 * block },
      { offset: source.sizeBytes - 5, length: 100 },
    ];
    for (const { offset, length } of changed)
      expected.write(offset, source.model.read(offset, Math.min(length, source.sizeBytes - offset)));

    const options = { parent: folder.file('1.spf'), changed };
    const second = await createImage(source.path, folder.file('2.spi'), options);
    expect(second.dataBlocks).toBe(6);
    expectImageHolds(folder.file('2.spi'), expected);
  });

  it('reads a range of many leaves with several threads', async () => {
    const random = seededTest('many leaves');
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 60 * MiB);
    source.write(30 * MiB, random.bytes(MiB));
    await createImage(source.path, folder.file('1.spf'), { blockBytes: 16 * KiB });
    const expected = source.model.copy();
    source.write(7 * MiB, random.bytes(2 * MiB));
    source.write(40 * MiB, random.bytes(2 * MiB));
    expected.write(7 * MiB + 5, source.model.read(7 * MiB + 5, 25 * MiB));
    const changed = [{ offset: 7 * MiB + 5, length: 25 * MiB }];
    await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf'), changed, threads: 3 });
    expectImageHolds(folder.file('2.spi'), expected);
  });

  it('takes ranges in any order, overlapping and empty', async () => {
    const random = seededTest('any order');
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 4 * MiB);
    await createImage(source.path, folder.file('1.spf'));
    source.write(0, random.bytes(source.sizeBytes));
    const changed = [
      { offset: 3 * MiB, length: MiB },
      { offset: 0, length: 0 },
      { offset: MiB, length: 2 * MiB },
      { offset: 0, length: 3 * MiB },
      { offset: 100, length: 1 },
    ];
    await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf'), changed });
    expectImageHolds(folder.file('2.spi'), source.model);
  });

  it('holds nothing when nothing changed, and nothing when what changed is the same again', async () => {
    const random = seededTest('nothing changed');
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), MiB + 5);
    source.write(0, random.bytes(MiB));
    await createImage(source.path, folder.file('1.spf'));
    for (const [index, changed] of [[], [{ offset: 5, length: 200_000 }]].entries()) {
      const name = folder.file(`2-${index}.spi`);
      const second = await createImage(source.path, name, { parent: folder.file('1.spf'), changed });
      expect(second).toMatchObject({ dataBlocks: 0, zeroBlocks: 0 });
      expectImageHolds(name, source.model);
    }
  });

  it('needs a parent', async () => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), MiB);
    await expect(createImage(source.path, folder.file('1.spf'), { changed: [] })).rejects.toThrow(UsageError);
    expect(folder.names()).toEqual(['source.raw']);
  });
});

describe('a list of changed ranges', () => {
  it('is sorted, merged where ranges touch or overlap, and freed of empty ones', () => {
    const text = `[{"offset": 100, "length": 50, "why": "written"}, {"offset": 0, "length": 10}, {"offset": 150, "length": 1},
      {"offset": 5, "length": 20}, {"offset": 6, "length": 2}, {"offset": 99, "length": 0}]`;
    expect(parseChangedRanges(text, 'list')).toEqual([
      { offset: 0, length: 25 },
      { offset: 100, length: 51 },
    ]);
  });

  it.each([
    ['no JSON', '[{'],
    ['no array', '{"offset": 0, "length": 1}'],
    ['a number', '7'],
    ['an entry that is no object', '[1]'],
    ['an entry that is null', '[null]'],
    ['a negative offset', '[{"offset": -1, "length": 1}]'],
    ['a fraction', '[{"offset": 0.5, "length": 1}]'],
    ['text for a number', '[{"offset": "0", "length": 1}]'],
    ['no length', '[{"offset": 0}]'],
    ['a length past 2^53', '[{"offset": 0, "length": 9007199254740993}]'],
    ['an end past 2^53', '[{"offset": 9007199254740991, "length": 1}]'],
    ['infinity', '[{"offset": 1e999, "length": 1}]'],
  ])('is refused when it is %s', (_, text) => {
    expect(() => parseChangedRanges(text, 'changed.json')).toThrow(FormatError);
    expect(() => parseChangedRanges(text, 'changed.json')).toThrow(/^changed\.json: /);
  });

  it('is refused when it has more than a million ranges', () => {
    const text = `[${'{"offset":0,"length":1},'.repeat(1_000_000)}{"offset":0,"length":1}]`;
    expect(() => parseChangedRanges(text, 'list')).toThrow(/limit of 1000000/);
  });
});
