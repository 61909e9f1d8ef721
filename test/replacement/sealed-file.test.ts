import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ForbiddenError, FormatError, UnavailableError } from '../../src/base/errors.ts';
import { ChainKey } from '../../src/backup/crypto/seal.ts';
import { freeze, thaw, writePlain } from '../../src/fill/decrypt.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { plainPathOf } from '../../src/plugin/beside.ts';
import { openReplacement } from '../../src/replacement/open.ts';
import { heldBytesOf, storedBytesOf } from '../../src/replacement/sealed-file.ts';
import { thrownBy } from '../backup/image-holds.ts';
import { run } from '../cli/veneer.ts';
import { expectSameBytes } from '../disk/model-disk.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { filesOf, KeptFile, placeOf, testKey } from './kept-file.ts';
import { baseSector } from './pattern-base.ts';

const baseBytes = 5 * unitBytes + 1000;
const pageBytes = 4096;

describe('a sealed data file', () => {
  it('says how long what it holds is by its own length', () => {
    const sizes = Array.from({ length: 3 * pageBytes + 2 }, (_, size) => size);
    for (const size of sizes) expect(heldBytesOf(storedBytesOf(size))).toBe(size);
    expect(new Set(sizes.map(storedBytesOf)).size).toBe(sizes.length);
  });

  it('holds neither what was written nor its key, in data, map or name', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes, 'sealed');
    const secret = new Seeded('secret').bytes(300);
    {
      using file = new KeptFile(place);
      for (const offset of [0, 777, unitBytes - 100, 2 * unitBytes]) file.replacement.write(secret, offset);
      file.filler.copy(0, 6);
      file.replacement.sync();
      const { seal } = file.open.parts;
      for (const path of Object.values(filesOf(place))) {
        const bytes = fs.readFileSync(path);
        for (let at = 0; at + 16 <= secret.length; at += 4)
          expect(bytes.includes(secret.subarray(at, at + 16)), path).toBe(false);
        expect(bytes.includes(baseSector(1).subarray(0, 16)), path).toBe(false);
        for (const key of [testKey.bytes, seal?.key.subarray(0, 32), seal?.key.subarray(32)])
          expect(bytes.includes(Buffer.from(key ?? '')), path).toBe(false);
      }
    }
    using again = new KeptFile(place);
    expect(again.read(777, 300)).toEqual(secret);
  });

  it('is what the cryptography package of Python opens with the key as derived here', async (ctx) => {
    const python = [
      'import sys,binascii',
      'from cryptography.hazmat.primitives.ciphers import Cipher,algorithms,modes',
    ];
    if ((await run('python3', ['-c', python.join('\n')])).status !== 0)
      ctx.skip('python3-cryptography is not installed');
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes, 'sealed');
    using file = new KeptFile(place);
    const page = new Seeded('page').bytes(pageBytes);
    file.replacement.write(page, unitBytes + 3 * pageBytes);
    const key = Buffer.from(file.open.parts.seal?.key ?? []).toString('hex');
    const number = unitBytes / pageBytes + 3;
    const script = [
      ...python,
      `f=open(${JSON.stringify(filesOf(place).data)},'rb'); f.seek(${number * pageBytes})`,
      `d=Cipher(algorithms.AES(binascii.unhexlify('${key}')),modes.XTS((${number}).to_bytes(16,'little'))).decryptor()`,
      `print(d.update(f.read(${pageBytes})).hex())`,
    ];
    expect((await run('python3', ['-c', script.join('\n')])).stdout.trim()).toBe(page.toString('hex'));
  });

  it('is opened with its key alone, and neither taken for plain nor the other way round', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes, 'sealed');
    {
      using file = new KeptFile(place);
      file.replacement.write(Buffer.alloc(10, 7), 0);
    }
    const contents = Object.values(filesOf(place)).map((path) => fs.readFileSync(path).toString('base64'));
    expect(thrownBy(() => openReplacement(place))).toBeInstanceOf(ForbiddenError);
    const other = ChainKey.random(testKey.chainId).toThread();
    expect(thrownBy(() => openReplacement(place, other))).toBeInstanceOf(ForbiddenError);
    expect(thrownBy(() => openReplacement({ ...place, isSealed: false }))).toBeInstanceOf(FormatError);
    expect(Object.values(filesOf(place)).map((path) => fs.readFileSync(path).toString('base64'))).toEqual(contents);
    const plain = placeOf(folder.file('plain.raw'), baseBytes);
    new KeptFile(plain).close();
    expect(thrownBy(() => openReplacement({ ...plain, isSealed: true }, testKey))).toBeInstanceOf(FormatError);
    using file = new KeptFile(place);
    expect(file.read(0, 10)).toEqual(Buffer.alloc(10, 7));
  });

  it('of two plugin files, and of one made anew, has another key each time', () => {
    using folder = new TempFolder();
    const keys = ['a', 'b'].map((name) => {
      using file = new KeptFile(placeOf(folder.file(name), baseBytes, 'sealed'));
      return Buffer.from(file.open.parts.seal?.key ?? []).toString('hex');
    });
    expect(new Set(keys).size).toBe(2);
  });

  it('is decrypted into a plain one while nobody may write', () => {
    using folder = new TempFolder();
    const place = placeOf(folder.file('disk.raw'), baseBytes, 'sealed');
    using file = new KeptFile(place);
    file.replacement.write(new Seeded('decrypted').bytes(5000), 3000);
    for (const bytes of file.filler.fill(0, () => 16)) expect(bytes).toBeGreaterThan(0);
    freeze(file.open.parts);
    for (const change of [
      () => file.replacement.write(Buffer.alloc(1), 0),
      () => file.replacement.discard(0, unitBytes),
      () => file.replacement.truncate(0),
    ])
      expect(thrownBy(change)).toBeInstanceOf(UnavailableError);
    writePlain(file.open.parts, place.path);
    expectSameBytes(
      fs.readFileSync(`${plainPathOf(place.path)}.veneer-part`),
      file.read(0, baseBytes),
      'the plain file',
    );
    thaw(file.open.parts);
    file.replacement.write(Buffer.alloc(1, 9), 0);
    expect(file.read(0, 1)).toEqual(Buffer.alloc(1, 9));
  });
});
