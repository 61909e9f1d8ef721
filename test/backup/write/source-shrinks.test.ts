import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { UnavailableError } from '../../../src/base/errors.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { writeLeaves, type CreateJob } from '../../../src/backup/write/create-leaves.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { SourceDisk } from '../source-disk.ts';

const blockBytes = 16 * KiB;
const leafSpan = 512 * blockBytes;

describe('a source that shrinks while it is read is an error, and leaves nothing behind', () => {
  it.each(['data', 'a hole'])('between plan and read, where %s was', async (what) => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 100 * MiB);
    source.write(0, seededTest(`shrinks ${what}`).bytes(MiB));
    if (what === 'data') source.write(90 * MiB, Buffer.alloc(MiB, 1));
    const made = createImage(source.path, folder.file('disk.spf'), { threads: 2, blockBytes });
    // The threads have been asked for and have not started: this thread was not free yet.
    fs.truncateSync(source.path, 50 * MiB);
    await expect(made).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringMatching(/shrank/) as string,
    });
    expect(folder.names()).toEqual(['source.raw']);
  });

  it.each([
    ['data', 3 * leafSpan + 1000],
    ['a hole', 4 * leafSpan + 1000],
  ])('in the middle of the reading, where %s was', (_, shrunkTo) => {
    const random = seededTest('shrinks in the middle');
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 6 * leafSpan);
    source.write(0, random.bytes(2 * blockBytes));
    source.write(3 * leafSpan, random.bytes(blockBytes));
    const fd = fs.openSync(folder.file('out'), 'w');
    const job: CreateJob = {
      fd,
      name: 'out',
      sourcePath: source.path,
      sizeBytes: source.sizeBytes,
      sourceFormat: undefined,
      parentPath: undefined,
      changed: undefined,
      blockBytes,
      codec: 'zstd',
      sequence: 0,
      seal: undefined,
      nextFree: new BigInt64Array(1),
      nextLeaf: new Int32Array(1),
    };
    let leaves = 0;
    const shrink = (): void => {
      leaves++;
      fs.truncateSync(source.path, shrunkTo);
    };
    try {
      expect(() => writeLeaves(job, openFileDisk, shrink)).toThrow(UnavailableError);
      expect(leaves).toBe(1);
    } finally {
      fs.closeSync(fd);
    }
  });
});

it('a source that grows while it is read is imaged as it was planned', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 100 * MiB);
  source.write(0, seededTest('grows').bytes(MiB));
  const planned = source.model.copy();
  const made = createImage(source.path, folder.file('disk.spf'), { threads: 2, blockBytes });
  source.resize(200 * MiB);
  source.write(120 * MiB, Buffer.from('new'));
  expect(await made).toMatchObject({ sourceSizeBytes: 100 * MiB });
  expectImageHolds(folder.file('disk.spf'), planned);
});

it('a source that goes away between plan and read is an error, and leaves nothing behind', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 100 * MiB);
  const made = createImage(source.path, folder.file('disk.spf'), { threads: 2, blockBytes });
  fs.rmSync(source.path);
  await expect(made).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(folder.names()).toEqual([]);
});

it('a source that is to keep its size, and grows while it is read, is an error, and leaves nothing behind', async () => {
  using folder = new TempFolder();
  const source = new SourceDisk(folder.file('source.raw'), 100 * MiB);
  const options = { threads: 2, blockBytes, steadyBytes: 100 * MiB };
  const made = createImage(source.path, folder.file('disk.spf'), options);
  source.resize(101 * MiB);
  await expect(made).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.stringMatching(/changed its size/) as string,
  });
  await expect(createImage(source.path, folder.file('disk.spf'), options)).rejects.toThrow(/changed its size/);
  expect(folder.names()).toEqual(['source.raw']);
});
