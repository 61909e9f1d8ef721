import { KiB, MiB } from '../../../src/base/units.ts';
import { BlockCache } from '../../../src/backup/read/block-cache.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { codecs } from '../../../src/backup/format/layout.ts';
import { conformsToDisk, type Specimen } from '../../disk/conformance.ts';
import { Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

for (const codec of codecs) {
  for (const blockBytes of [16 * KiB, 64 * KiB, MiB]) {
    conformsToDisk(`a full image with ${codec} in blocks of ${blockBytes / KiB} KiB`, async () => {
      const folder = new TempFolder();
      const source = new SourceDisk(folder.file('source.raw'), 9 * MiB + 513);
      scribble(source, new Seeded(`conformance ${codec} ${blockBytes}`), 30);
      await createImage(source.path, folder.file('disk.spf'), { codec, blockBytes });
      return chainSpecimen(folder, 'disk.spf', source, blockBytes);
    });
  }
}

conformsToDisk('a chain whose block cache holds one block', async () => {
  const folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 3 * MiB + 5);
  scribble(source, new Seeded('one block cached'), 30);
  await createImage(source.path, folder.file('disk.spf'));
  return chainSpecimen(folder, 'disk.spf', source, 64 * KiB, BlockCache.ofOneThread(64 * KiB));
});

conformsToDisk('a chain whose block cache holds nothing', async () => {
  const folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 2 * MiB);
  scribble(source, new Seeded('nothing cached'), 30);
  await createImage(source.path, folder.file('disk.spf'));
  return chainSpecimen(folder, 'disk.spf', source, 64 * KiB, BlockCache.ofOneThread(0));
});

conformsToDisk('a chain of 20 incrementals of a disk that grows and shrinks', async () => {
  const folder = new TempFolder();
  const random = new Seeded('chain of 20');
  const source = new SourceDisk(folder.file('00.spf.raw'), 9 * MiB);
  let name = '00.spf';
  await createImage(source.path, folder.file(name), { blockBytes: 16 * KiB });
  for (let index = 1; index <= 20; index++) {
    if (random.oneIn(3)) source.resize(random.between(7 * MiB, 11 * MiB));
    scribble(source, random, 4);
    const parent = folder.file(name);
    name = `${String(index).padStart(2, '0')}.spi`;
    await createImage(source.path, folder.file(name), { parent, codec: random.pick(codecs) });
  }
  return chainSpecimen(folder, name, source, 16 * KiB);
});

conformsToDisk('a chain over a disk of 5 TiB with data at the ends of leaves and pages', async () => {
  const folder = new TempFolder();
  const random = new Seeded('5 TiB');
  const source = new SourceDisk(folder.file('source.raw'), 5 * 1024 * 1024 * MiB + 512);
  const leaf = 512 * 16 * KiB;
  const page = 256 * leaf;
  const places = [0, leaf, page, 3 * page + leaf, 1000 * page].map((place) => place + 5 * leaf - 1000);
  for (const place of [...places, source.sizeBytes - 2000]) source.write(place, random.bytes(2000));
  await createImage(source.path, folder.file('1.spf'), { blockBytes: 16 * KiB });
  for (const place of places) source.write(place + 990, random.bytes(50_000));
  await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
  const specimen = chainSpecimen(folder, '2.spi', source, 16 * KiB);
  return { ...specimen, boundaries: [...places, ...places.map((place) => place + 1000), page, 7 * page] };
});

function chainSpecimen(
  folder: TempFolder,
  name: string,
  source: SourceDisk,
  blockBytes: number,
  cache?: BlockCache,
): Specimen {
  const leaf = 512 * blockBytes;
  const blocks = Math.floor(source.sizeBytes / blockBytes);
  return {
    disk: openChainDisk(folder.file(name), cache),
    model: source.model,
    boundaries: [blockBytes, 5 * blockBytes, leaf, blocks * blockBytes].filter((at) => at <= source.sizeBytes),
    remove: () => folder.remove(),
  };
}
