import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

async function makeChain(folder: TempFolder): Promise<SourceDisk> {
  const random = seededTest('parent renamed');
  const source = new SourceDisk(folder.file('source.raw'), 2 * MiB);
  let parent: string | undefined;
  for (const name of ['1.spf', '2.spi', '3.spi']) {
    scribble(source, random, 4);
    await createImage(source.path, folder.file(name), parent === undefined ? {} : { parent });
    parent = folder.file(name);
  }
  return source;
}

it('parents that were renamed are found by what they are', async () => {
  using folder = new TempFolder();
  const source = await makeChain(folder);
  fs.renameSync(folder.file('1.spf'), folder.file('the first'));
  fs.renameSync(folder.file('2.spi'), folder.file('1.spf'));
  expectImageHolds(folder.file('3.spi'), source.model);
});

it('parents are found among files that are no images, folders, pipes, links and unfinished images', async () => {
  using folder = new TempFolder();
  const source = await makeChain(folder);
  fs.renameSync(folder.file('1.spf'), folder.file('zzz'));
  folder.write('1.spf', 'not an image at all');
  folder.write('empty', '');
  fs.copyFileSync(folder.file('zzz'), folder.file('copy.spf.veneer-part'));
  fs.mkdirSync(folder.file('folder'));
  fs.symlinkSync('nowhere', folder.file('link'));
  spawnSync('mkfifo', [folder.file('pipe')]);
  // A pipe where the parent's name leads first.
  fs.renameSync(folder.file('2.spi'), folder.file('yyy'));
  spawnSync('mkfifo', [folder.file('2.spi')]);
  expectImageHolds(folder.file('3.spi'), source.model);
});

it('a whole folder may be moved', async () => {
  using folder = new TempFolder();
  const source = await makeChain(folder);
  fs.mkdirSync(folder.file('elsewhere'));
  for (const name of ['1.spf', '2.spi', '3.spi'])
    fs.renameSync(folder.file(name), `${folder.file('elsewhere')}/${name}`);
  expectImageHolds(`${folder.file('elsewhere')}/3.spi`, source.model);
  expect(folder.names()).toEqual(['elsewhere', 'source.raw']);
});
