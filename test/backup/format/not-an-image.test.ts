import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FormatError, UnavailableError, UnsupportedError, UsageError } from '../../../src/base/errors.ts';
import { KiB } from '../../../src/base/units.ts';
import { openChain } from '../../../src/backup/read/chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import type { Commit, Superblock } from '../../../src/backup/format/layout.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { craftImage } from '../crafted-image.ts';
import { thrownBy } from '../image-holds.ts';
import { makeTinyImage } from '../tiny-image.ts';

describe('what is not an image is refused', () => {
  it.each([
    ['an empty file', Buffer.alloc(0)],
    ['one byte', Buffer.alloc(1)],
    ['8 KiB of zeros', Buffer.alloc(8 * KiB)],
    ['a megabyte of zeros', Buffer.alloc(1024 * KiB)],
    ['text', Buffer.from('This is no image.\n'.repeat(1000))],
    ['the magic alone', Buffer.from('VENEERIM')],
    ['the magic and nothing else of 8 KiB', Buffer.concat([Buffer.from('VENEERIM'), Buffer.alloc(8 * KiB - 8)])],
  ])('%s', (_, contents) => {
    using folder = new TempFolder();
    const error = thrownBy(() => openChain(folder.write('disk.spf', contents)));
    expect(error).toHaveProperty('code', expect.stringMatching(/^(FORMAT|INTEGRITY)$/));
    expect(error).toHaveProperty('message', expect.stringMatching(/disk\.spf/));
  });

  it('random bytes', () => {
    const random = seededTest('not an image');
    using folder = new TempFolder();
    const path = folder.write('disk.spf', random.bytes(50_000));
    expect(() => openChain(path)).toThrow(FormatError);
  });

  it('a file that is not there', () => {
    using folder = new TempFolder();
    expect(() => openChain(folder.file('nowhere.spf'))).toThrow(UnavailableError);
  });

  it('a folder, and a pipe, at once', () => {
    using folder = new TempFolder();
    expect(() => openChain(folder.path)).toThrow(UnavailableError);
    spawnSync('mkfifo', [folder.file('pipe')]);
    expect(() => openChain(folder.file('pipe'))).toThrow(UnavailableError);
  });

  it('an unfinished image, by its name', async () => {
    using image = await makeTinyImage();
    fs.renameSync(image.path, `${image.path}.veneer-part`);
    expect(() => openChain(`${image.path}.veneer-part`)).toThrow(UsageError);
    expect(() => openChain(`${image.path}.veneer-part`)).toThrow(/unfinished/);
  });

  it('an image as a parent that is none', async () => {
    using image = await makeTinyImage();
    const parent = image.folder.write('parent.spf', Buffer.alloc(8 * KiB));
    await expect(createImage(image.path, image.folder.file('new.spi'), { parent })).rejects.toThrow(FormatError);
    expect(image.folder.names()).not.toContain('new.spi.veneer-part');
  });
});

describe('an image of another format version is refused, and says which', () => {
  it.each([0, 3, 0x100, 0xffff])('version %i in the superblock', (versionMajor) => {
    using folder = new TempFolder();
    const lies = { superblock: (honest: Superblock) => ({ ...honest, versionMajor }) };
    const { bytes } = craftImage({ blocks: new Map(), sizeBytes: 512, lies });
    const error = thrownBy(() => openChain(folder.write('disk.spf', bytes)));
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error).toHaveProperty('message', expect.stringContaining(`version ${versionMajor};`));
  });

  it.each([0, 2, 3, 0xffff])('version %i in the commit', (versionMajor) => {
    using folder = new TempFolder();
    const lies = { commit: (honest: Commit) => ({ ...honest, versionMajor }) };
    const { bytes } = craftImage({ blocks: new Map(), sizeBytes: 512, lies });
    expect(() => openChain(folder.write('disk.spf', bytes))).toThrow(UnsupportedError);
  });

  it('a new minor version is read', () => {
    using folder = new TempFolder();
    const lies = { superblock: (honest: Superblock) => ({ ...honest, versionMinor: 7 }) };
    const { bytes } = craftImage({ blocks: new Map(), sizeBytes: 512, lies });
    const [image] = openChain(folder.write('disk.spf', bytes));
    expect(image?.description.sourceSizeBytes).toBe(512);
    image?.close();
  });
});
