/** Encrypted chains: with the key they are as plain ones, without it nothing of the data can be had. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ForbiddenError, UsageError } from '../../../src/base/errors.ts';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { extractImage } from '../../../src/backup/read/extract.ts';
import { Image } from '../../../src/backup/read/image.ts';
import { codecs } from '../../../src/backup/format/layout.ts';
import { verifyChain } from '../../../src/backup/care/verify.ts';
import { expectReadsAs } from '../../disk/model-disk.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { structuresOf } from '../crafted-image.ts';
import { faultsOf } from '../image-holds.ts';
import { keyFile, passphrase, ringOf } from '../keys.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

const owner = keyFile('owner');
const marker = Buffer.from('a secret that nobody may find in the file');

describe.each(codecs)('an encrypted chain with %s', (codec) => {
  it('reads with its key as its source, and is sound with the key and without', async () => {
    const random = seededTest(`encrypted ${codec}`);
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 20 * MiB + 512);
    scribble(source, random, 25);
    await createImage(source.path, folder.file('0.spf'), { codec, blockBytes: 16 * KiB, encrypt: owner, threads: 3 });
    for (const step of [1, 2, 3]) {
      scribble(source, random, 8);
      const parent = folder.file(step === 1 ? '0.spf' : `${step - 1}.spi`);
      await createImage(source.path, folder.file(`${step}.spi`), { parent, keys: ringOf(owner) });
    }
    using disk = closing(openChainDisk(folder.file('3.spi'), undefined, undefined, ringOf(owner)));
    expectReadsAs(disk.value, source.model);
    expect(faultsOf(folder.file('3.spi'))).toEqual([]);
    expect(faultsOf(folder.file('3.spi'), ringOf(owner))).toEqual([]);
    expect(verifyChain(folder.file('3.spi'), { keys: ringOf(owner) })).toMatchObject({ images: 4, proved: true });
  });
});

describe('of an encrypted image', () => {
  it('no byte of the data stands in the file, nor any of the key', async () => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), MiB);
    for (let at = 0; at < MiB; at += 50_000) source.write(at, marker);
    await createImage(source.path, folder.file('disk.spf'), { codec: 'none', encrypt: owner });
    const bytes = fs.readFileSync(folder.file('disk.spf'));
    expect(bytes.includes(marker.subarray(0, 8))).toBe(false);
    expect(bytes.includes(Buffer.from(owner.secret).subarray(0, 16))).toBe(false);
    const [key] = chainKeysOf(folder.file('disk.spf'));
    expect(key).toHaveLength(32);
    expect(bytes.includes(key ?? marker)).toBe(false);
  });

  it('two images of the same disk have no sealed byte in common', async () => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), 64 * KiB);
    source.write(0, Buffer.alloc(64 * KiB, 'the same'));
    const sealed: Buffer[] = [];
    for (const name of ['a.spf', 'b.spf']) {
      await createImage(source.path, folder.file(name), { codec: 'none', encrypt: owner });
      const bytes = fs.readFileSync(folder.file(name));
      const payload = structuresOf(bytes).find(({ kind }) => kind === 'payload');
      sealed.push(bytes.subarray(payload?.offset ?? 0, (payload?.offset ?? 0) + 64));
    }
    expect(sealed[0]?.equals(sealed[1] ?? Buffer.alloc(0))).toBe(false);
  });

  it('metadata can be had with no key, data cannot, and the error says what to do', async () => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), MiB);
    source.write(300_000, marker);
    await createImage(source.path, folder.file('disk.spf'), { encrypt: owner });
    using disk = closing(openChainDisk(folder.file('disk.spf')));
    expect([...disk.value.extents(0, MiB)].filter(({ kind }) => kind === 'data')).toHaveLength(1);
    disk.value.read(Buffer.alloc(4096), 0);
    expect(() => disk.value.read(Buffer.alloc(4096), 300_000)).toThrow(ForbiddenError);
    expect(() => disk.value.read(Buffer.alloc(4096), 300_000)).toThrow(/is encrypted; give its key/);
    expect(() => extractImage(folder.file('disk.spf'), folder.file('out.raw'))).toThrow(ForbiddenError);
    expect(folder.names()).toEqual(['disk.spf', 'source.raw']);
  });

  it('a wrong key is an error of one line before anything is written', async () => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), MiB);
    source.write(0, marker);
    const imagePath = folder.file('disk.spf');
    await createImage(source.path, imagePath, { encrypt: passphrase('correct horse') });
    for (const keys of [ringOf(keyFile('another')), ringOf(passphrase('correct horsf'))]) {
      expect(() => extractImage(imagePath, folder.file('out.raw'), { keys })).toThrow(/does not open it/);
      expect(() => verifyChain(imagePath, { keys })).toThrow(/^[^\n]+does not open it[^\n]+$/);
      const made = createImage(source.path, folder.file('1.spi'), { parent: imagePath, keys });
      await expect(made).rejects.toThrow(/does not open it/);
    }
    expect(folder.names()).toEqual(['disk.spf', 'source.raw']);
    using disk = closing(openChainDisk(imagePath, undefined, undefined, ringOf(passphrase('correct horse'))));
    expectReadsAs(disk.value, source.model);
  });

  it('a chain stays as it began: no encrypted image on a plain one, and none without the key', async () => {
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), MiB);
    source.write(0, marker);
    await createImage(source.path, folder.file('plain.spf'));
    await createImage(source.path, folder.file('sealed.spf'), { encrypt: owner });
    const onPlain = createImage(source.path, folder.file('1.spi'), {
      parent: folder.file('plain.spf'),
      encrypt: owner,
    });
    await expect(onPlain).rejects.toThrow(UsageError);
    const withoutKey = createImage(source.path, folder.file('1.spi'), { parent: folder.file('sealed.spf') });
    await expect(withoutKey).rejects.toThrow(ForbiddenError);
  });
});

function chainKeysOf(imagePath: string): Buffer[] {
  using image = closing(Image.open(imagePath));
  const keys = ringOf(owner);
  keys.require(image.value);
  return keys.toThread().chains.map(({ bytes }) => Buffer.from(bytes));
}
