import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { UnavailableError, UsageError, VeneerError } from '../../../src/base/errors.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage, type CreateOptions } from '../../../src/backup/write/create.ts';
import { extractImage } from '../../../src/backup/read/extract.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

async function makeChain(folder: TempFolder): Promise<SourceDisk> {
  const source = new SourceDisk(folder.file('source.raw'), MiB);
  scribble(source, seededTest('create refuses'), 5);
  await createImage(source.path, folder.file('1.spf'));
  await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
  return source;
}

/** It is refused, and every file of the folder is as it was. */
async function expectNothingDone(
  folder: TempFolder,
  action: () => unknown,
  errorClass: typeof VeneerError | typeof UsageError | typeof UnavailableError = UsageError,
): Promise<void> {
  const contents = (): string[] => folder.names().map((name) => `${name} ${fs.statSync(folder.file(name)).size}`);
  const before = contents();
  await expect(Promise.resolve().then(action)).rejects.toThrow(errorClass);
  expect(contents()).toEqual(before);
}

describe('the creation of an image is refused, and nothing is touched', () => {
  it('when the image is there already, unless it is to be replaced', async () => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    await expectNothingDone(folder, () => createImage(source.path, folder.file('2.spi')));
    await createImage(source.path, folder.file('2.spi'), { force: true });
    expectImageHolds(folder.file('2.spi'), source.model);
  });

  it.each(['1.spf', '2.spi'])('when it would replace an image of its own chain: %s', async (name) => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    const options = { parent: folder.file('2.spi'), force: true };
    await expectNothingDone(folder, () => createImage(source.path, folder.file(name), options));
    fs.linkSync(folder.file(name), folder.file('another name'));
    await expectNothingDone(folder, () => createImage(source.path, folder.file('another name'), options));
    expectImageHolds(folder.file('2.spi'), source.model);
  });

  it('when it would replace its own source, finished or not', async () => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    await expectNothingDone(folder, () => createImage(source.path, source.path, { force: true }));
    fs.copyFileSync(source.path, folder.file('disk.spf.veneer-part'));
    await expectNothingDone(folder, () => createImage(folder.file('disk.spf.veneer-part'), folder.file('disk.spf')));
    fs.symlinkSync(folder.file('disk.spf.veneer-part'), folder.file('link'));
    await expectNothingDone(folder, () => createImage(folder.file('link'), folder.file('disk.spf')));
  });

  it('but not for a link that lies where the unfinished image is to be: it is replaced, and what it leads to stays as it is', async () => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    const precious = folder.write('precious', 'not to be lost');
    fs.symlinkSync(precious, folder.file('disk.spf.veneer-part'));
    await createImage(source.path, folder.file('disk.spf'));
    expect(fs.readFileSync(precious, 'utf8')).toBe('not to be lost');
    expect(fs.lstatSync(folder.file('disk.spf')).isFile()).toBe(true);
    expect(fs.existsSync(folder.file('disk.spf.veneer-part'))).toBe(false);
  });

  it('when the source is empty, a folder, a pipe or not there', async () => {
    using folder = new TempFolder();
    folder.write('empty', '');
    spawnSync('mkfifo', [folder.file('pipe')]);
    fs.mkdirSync(folder.file('folder'));
    for (const name of ['empty', 'pipe', 'folder', 'nowhere'])
      await expectNothingDone(folder, () => createImage(folder.file(name), folder.file('disk.spf')), VeneerError);
  });

  it('when the folder of the image is not there, or is none', async () => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    for (const name of ['nowhere/disk.spf', '1.spf/disk.spf'])
      await expectNothingDone(folder, () => createImage(source.path, folder.file(name)), UnavailableError);
  });

  it.each<[string, CreateOptions]>([
    ['a block size that is no power of two', { blockBytes: 65_000 }],
    ['a block size below 16 KiB', { blockBytes: 8 * KiB }],
    ['a block size above 1 MiB', { blockBytes: 2 * MiB }],
    ['a block size of nothing', { blockBytes: 0 }],
    ['a block size that is no number', { blockBytes: Number.NaN }],
  ])('when it is to have %s', async (_, options) => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    await expectNothingDone(folder, () => createImage(source.path, folder.file('disk.spf'), options));
  });

  it.each<[string, CreateOptions]>([
    ['another block size', { blockBytes: 16 * KiB }],
    ['other content', { content: 'volume' }],
  ])('when an incremental is to have %s than its chain', async (_, options) => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    const withParent = { ...options, parent: folder.file('2.spi') };
    await expectNothingDone(folder, () => createImage(source.path, folder.file('3.spi'), withParent));
  });

  it('when an incremental is to lie in another folder than its parent', async () => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    using elsewhere = new TempFolder();
    const options = { parent: folder.file('2.spi') };
    await expectNothingDone(folder, () => createImage(source.path, elsewhere.file('3.spi'), options));
    expect(elsewhere.names()).toEqual([]);
  });
});

describe('an extraction is refused, and nothing is touched', () => {
  it('when the file is there already, unless it is to be replaced', async () => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    folder.write('out.raw', 'something of value');
    await expectNothingDone(folder, () => extractImage(folder.file('2.spi'), folder.file('out.raw')));
    extractImage(folder.file('2.spi'), folder.file('out.raw'), { force: true });
    expect(fs.readFileSync(folder.file('out.raw')).equals(source.model.read(0, source.sizeBytes))).toBe(true);
  });

  it.each(['1.spf', '2.spi'])('when it would replace an image of the chain it reads: %s', async (name) => {
    using folder = new TempFolder();
    const source = await makeChain(folder);
    const options = { force: true };
    await expectNothingDone(folder, () => extractImage(folder.file('2.spi'), folder.file(name), options));
    expectImageHolds(folder.file('2.spi'), source.model);
  });

  it('when its folder is not there', async () => {
    using folder = new TempFolder();
    await makeChain(folder);
    const out = folder.file('nowhere/out.raw');
    await expectNothingDone(folder, () => extractImage(folder.file('2.spi'), out), UnavailableError);
  });
});

it('what an interrupted creation left behind is written over', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), MiB);
  scribble(source, seededTest('left behind'), 5);
  folder.write('disk.spf.veneer-part', Buffer.alloc(3 * MiB, 0x77));
  await createImage(source.path, folder.file('disk.spf'));
  expect(folder.names()).toEqual(['disk.spf', 'source.raw']);
  expectImageHolds(folder.file('disk.spf'), source.model);
});
