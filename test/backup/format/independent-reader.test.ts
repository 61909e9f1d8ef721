/** A reader in Python, after native-notes/image-format.md and with no code of ours, reads the same disk: so the page is enough to write one. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { GiB, KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { extractImage } from '../../../src/backup/read/extract.ts';
import { codecs } from '../../../src/backup/format/layout.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

const reader = fileURLToPath(new URL('independent_reader.py', import.meta.url));
const missing = whatIsMissing();

describe.skipIf(missing !== undefined)(
  `an independent reader${missing === undefined ? '' : ` (skipped: ${missing})`}`,
  () => {
    it.each(codecs)('reads a full image with %s as extract does', async (codec) => {
      const random = seededTest(`independent reader ${codec}`);
      using folder = new TempFolder();
      const source = new SourceDisk(folder.file('source.raw'), 3 * MiB + 512);
      scribble(source, random, 12);

      await createImage(source.path, folder.file('disk.spf'), { codec, blockBytes: 16 * KiB });

      expectSameDisk(folder, 'disk.spf');
    });

    it('reads a chain of mixed codecs over a disk that shrank and grew again', async () => {
      const random = seededTest('independent reader chain');
      using folder = new TempFolder();
      const source = new SourceDisk(folder.file('source.raw'), 5 * MiB);
      scribble(source, random, 20);
      await createImage(source.path, folder.file('0.spf'), { blockBytes: 32 * KiB });
      source.resize(2 * MiB + 100);
      scribble(source, random, 6);
      await createImage(source.path, folder.file('1.spi'), { parent: folder.file('0.spf'), codec: 'lz4' });
      source.resize(6 * MiB + 1);
      scribble(source, random, 3);
      await createImage(source.path, folder.file('2.spi'), { parent: folder.file('1.spi'), codec: 'none' });
      // A parent is known by its identity; its name is only where to look first.
      fs.renameSync(folder.file('1.spi'), folder.file('renamed.spi'));

      for (const name of ['0.spf', 'renamed.spi', '2.spi']) expectSameDisk(folder, name);
    });

    it('finds index pages past the first', async () => {
      using folder = new TempFolder();
      // A page covers 2 GiB of disk in blocks of 16 KiB.
      const source = folder.write('source.raw', 'at the start');
      fs.truncateSync(source, 3 * GiB);
      writeAt(source, 'in the second page', 2 * GiB + 7 * MiB);

      await createImage(source, folder.file('disk.spf'), { blockBytes: 16 * KiB });

      execFileSync('python3', [reader, folder.file('disk.spf'), folder.file('read.raw')]);
      expect(fs.statSync(folder.file('read.raw')).size).toBe(3 * GiB);
      expect(readAt(folder.file('read.raw'), 0, 12)).toBe('at the start');
      expect(readAt(folder.file('read.raw'), 2 * GiB + 7 * MiB, 18)).toBe('in the second page');
    });

    it('refuses an image with one byte of a record changed', async () => {
      const random = seededTest('independent reader damage');
      using folder = new TempFolder();
      const source = new SourceDisk(folder.file('source.raw'), MiB);
      source.write(0, random.bytes(MiB));
      await createImage(source.path, folder.file('disk.spf'), {});
      const image = fs.readFileSync(folder.file('disk.spf'));
      image[100_000] = (image[100_000] ?? 0) ^ 1;
      fs.writeFileSync(folder.file('disk.spf'), image);

      expect(() => execFileSync('python3', [reader, folder.file('disk.spf')], { stdio: 'pipe' })).toThrow(
        /record: checksum/,
      );
    });
  },
);

function expectSameDisk(folder: TempFolder, name: string): void {
  const out = folder.file('extracted.raw');
  extractImage(folder.file(name), out, { force: true });
  const extracted = fs.readFileSync(out);
  const said = execFileSync('python3', [reader, folder.file(name)], { encoding: 'utf8' });
  expect(said).toBe(`${createHash('sha256').update(extracted).digest('hex')} ${extracted.length}\n`);
}

function writeAt(file: string, text: string, offset: number): void {
  const fd = fs.openSync(file, 'r+');
  try {
    fs.writeSync(fd, text, offset);
  } finally {
    fs.closeSync(fd);
  }
}

function readAt(file: string, offset: number, length: number): string {
  const fd = fs.openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(length);
    fs.readSync(fd, bytes, 0, length, offset);
    return bytes.toString();
  } finally {
    fs.closeSync(fd);
  }
}

function whatIsMissing(): string | undefined {
  try {
    execFileSync('python3', ['-c', 'import ctypes; ctypes.CDLL("libzstd.so.1")'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'python3 or libzstd.so.1 is not here';
  }
}
