import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FormatError, UnavailableError, VeneerError } from '../../../src/base/errors.ts';
import { KiB } from '../../../src/base/units.ts';
import { openChain } from '../../../src/backup/read/chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { verifyChain } from '../../../src/backup/care/verify.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { craftImage, numberedGuid, rawBlock, type Crafted, type CraftOptions } from '../crafted-image.ts';
import { thrownBy } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

const block = rawBlock(Buffer.alloc(16 * KiB, 7));

function craft(options: Partial<CraftOptions> = {}): Crafted {
  return craftImage({ blocks: new Map([[0, block]]), sizeBytes: 64 * KiB, ...options });
}

/** Every way to open the chain refuses it, with one line that says why. */
function expectRefused(newest: string, errorClass: typeof FormatError | typeof UnavailableError, why: RegExp): void {
  const error = thrownBy(() => openChain(newest));
  expect(error).toBeInstanceOf(errorClass);
  expect(error).toHaveProperty('message', expect.stringMatching(why));
  expect(error).toHaveProperty('message', expect.not.stringContaining('\n'));
  expect(() => verifyChain(newest)).toThrow(errorClass);
}

describe('a chain is refused', () => {
  it('when its parent is missing, and says which and where', async () => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 100_000);
    await createImage(source.path, folder.file('1.spf'));
    await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
    fs.rmSync(folder.file('1.spf'));
    expectRefused(folder.file('2.spi'), UnavailableError, /2\.spi: its parent "1\.spf" .* is not in .*; put it back/);
    // And nothing can be added to it.
    const options = { parent: folder.file('2.spi') };
    await expect(createImage(source.path, folder.file('3.spi'), options)).rejects.toThrow(UnavailableError);
    expect(folder.names()).toEqual(['2.spi', 'source.raw']);
  });

  it('when its parent is truncated or damaged', async () => {
    const random = seededTest('damaged parent');
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 100_000);
    scribble(source, random, 3);
    await createImage(source.path, folder.file('1.spf'));
    await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
    fs.truncateSync(folder.file('1.spf'), fs.statSync(folder.file('1.spf')).size - 1);
    expect(() => openChain(folder.file('2.spi'))).toThrow(VeneerError);
  });

  it('when an image of another chain has the name of its parent', async () => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 100_000);
    await createImage(source.path, folder.file('1.spf'));
    await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spf') });
    await createImage(source.path, folder.file('other.spf'));
    fs.renameSync(folder.file('other.spf'), folder.file('1.spf'));
    expectRefused(folder.file('2.spi'), UnavailableError, /its parent "1\.spf"/);
  });

  it('when its parent was replaced by another image of the same identity', () => {
    using folder = new TempFolder();
    const parent = craft();
    const other = craft({ blocks: new Map([[0, rawBlock(Buffer.alloc(16 * KiB, 8))]]) });
    expect(other.imageId).toBe(parent.imageId);
    const child = craft({ blocks: new Map(), parent: { ...parent, name: '1.spf' } });
    const newest = folder.write('2.spi', child.bytes);
    folder.write('1.spf', parent.bytes);
    for (const image of openChain(newest)) image.close();
    folder.write('1.spf', other.bytes);
    expectRefused(newest, FormatError, /other contents/);
  });

  it.each([
    ['belongs to another chain', { chainId: numberedGuid(99) }, /another chain/],
    ['has another block size', { blockBytes: 32 * KiB }, /block size/],
  ])('when its parent %s', (_, lie, why) => {
    using folder = new TempFolder();
    const lies = {
      superblock: (honest: object) => ({ ...honest, ...lie }) as never,
      commit: (honest: object) => ({ ...honest, ...lie }) as never,
    };
    const parent = craft({ blocks: new Map(), lies });
    folder.write('1.spf', parent.bytes);
    const child = craft({ blocks: new Map(), parent: { ...parent, name: '1.spf' } });
    expectRefused(folder.write('2.spi', child.bytes), FormatError, why);
  });

  it('when it is its own parent', () => {
    using folder = new TempFolder();
    const imageId = numberedGuid(5);
    const { bytes } = craft({ imageId, parent: { imageId, name: 'self.spi', commitHash: '00'.repeat(32) } });
    expectRefused(folder.write('self.spi', bytes), FormatError, /circle/);
  });

  it('when two images name each other', () => {
    using folder = new TempFolder();
    const [one, two] = [numberedGuid(1), numberedGuid(2)];
    // The older one cannot know the hash of the newer; everything else fits.
    const older = craft({
      imageId: one,
      sequence: 3,
      parent: { imageId: two, name: 'two.spi', commitHash: '00'.repeat(32) },
    });
    const newer = craft({
      imageId: two,
      sequence: 5,
      parent: { imageId: one, name: 'one.spi', commitHash: older.commitHash },
    });
    folder.write('one.spi', older.bytes);
    folder.write('two.spi', newer.bytes);
    expectRefused(folder.file('one.spi'), FormatError, /circle/);
    expectRefused(folder.file('two.spi'), FormatError, /circle/);
  });

  it('when a parent is not older than its child', () => {
    using folder = new TempFolder();
    const parent = craft({ imageId: numberedGuid(1), sequence: 4 });
    folder.write('1.spf', parent.bytes);
    const child = craft({ imageId: numberedGuid(2), sequence: 4, parent: { ...parent, name: '1.spf' } });
    expectRefused(folder.write('2.spi', child.bytes), FormatError, /not older/);
  });

  it.each(['../1.spf', '/etc/passwd', 'folder/1.spf'])('when the name of its parent is a path: %s', (name) => {
    using folder = new TempFolder();
    const parent = craft();
    folder.write('1.spf', parent.bytes);
    const child = craft({ imageId: numberedGuid(9), parent: { ...parent, name } });
    expectRefused(folder.write('2.spi', child.bytes), FormatError, /not a plain file name/);
  });

  it.each(['..', '.', '', '\u0000', '\u001b[31m\nred', '1.spf'])(
    'when there is no such parent, whatever name it has: %j',
    (name) => {
      using folder = new TempFolder();
      const child = craft({ imageId: numberedGuid(9), parent: { ...craft(), name } });
      expectRefused(folder.write('2.spi', child.bytes), UnavailableError, /is not in/);
      expect(thrownBy(() => openChain(folder.file('2.spi')))).toHaveProperty(
        'message',
        expect.not.stringContaining('\u001b'),
      );
    },
  );
});
