/** Key slots: several keys open one chain, a change rewrites them alone, and nobody is ever locked out. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { addKey, listKeys, removeKey, rotateKey } from '../../../src/backup/care/change-keys.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { consolidateChain } from '../../../src/backup/care/consolidate-chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { Image } from '../../../src/backup/read/image.ts';
import type { Credential } from '../../../src/backup/crypto/key-slots.ts';
import { dataOffset, superblockBytes } from '../../../src/backup/format/layout.ts';
import { expectReadsAs } from '../../disk/model-disk.ts';
import { Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { faultsOf } from '../image-holds.ts';
import { keyFile, passphrase, ringOf } from '../keys.ts';
import { SourceDisk } from '../source-disk.ts';
import { runInjected, strikes, systemCalls, whyNoStrace } from '../strace.ts';

const owner = keyFile('owner');
const second = keyFile('second');
const script = path.join(import.meta.dirname, 'change-keys-script.ts');
const noStrace = whyNoStrace();

let folder: TempFolder;
let source: SourceDisk;
let originals: Buffer[];
let paths: string[];
let newest: string;

beforeAll(async () => {
  folder = new TempFolder();
  source = new SourceDisk(folder.file('source.raw'), MiB);
  const random = new Seeded('change keys');
  paths = ['0.spf', '1.spi', '2.spi'].map((name) => folder.file(name));
  for (const [step, file] of paths.entries()) {
    source.write(step * 100 * KiB, random.bytes(50 * KiB));
    const parent = paths[step - 1];
    await createImage(source.path, file, parent === undefined ? { encrypt: owner } : { parent, keys: ringOf(owner) });
  }
  originals = paths.map((file) => fs.readFileSync(file));
  newest = paths[2] ?? '';
});
afterAll(() => folder.remove());
beforeEach(() => restore());

function restore(): void {
  for (const [index, file] of paths.entries()) fs.writeFileSync(file, originals[index] ?? '');
}

function opens(credential: Credential, file = newest): boolean {
  using image = closing(Image.open(file));
  return ringOf(credential).find(image.value) !== undefined;
}

function expectReads(credential: Credential): void {
  using disk = closing(openChainDisk(newest, undefined, undefined, ringOf(credential)));
  expectReadsAs(disk.value, source.model);
  expect(faultsOf(newest, ringOf(credential))).toEqual([]);
}

describe('a key', () => {
  it('that is added opens every image of the chain, and the first still does', () => {
    expect(addKey(newest, [owner], second, 'backup of the key')).toMatchObject({ images: 3, slot: 1 });
    expectReads(owner);
    expectReads(second);
    for (const file of paths) expect(opens(second, file)).toBe(true);
    expect(listKeys(newest).slots).toMatchObject([
      { slot: 0, kind: 'key file', label: '' },
      { slot: 1, kind: 'key file', label: 'backup of the key' },
    ]);
  });

  it('that is a passphrase opens the chain beside a key file', () => {
    addKey(newest, [owner], passphrase('correct horse battery staple'));
    expectReads(passphrase('correct horse battery staple'));
    expect(opens(passphrase('correct horse battery stapel'))).toBe(false);
  });

  it('that is removed opens nothing any more, and stands in no key block', () => {
    addKey(newest, [owner], second);
    const wrapped = fs.readFileSync(newest).subarray(superblockBytes + 256 + 256, superblockBytes + 256 + 512);
    removeKey(newest, [owner], 1);
    for (const file of paths) {
      expect(opens(second, file)).toBe(false);
      expect(fs.readFileSync(file).includes(wrapped.subarray(48, 108))).toBe(false);
    }
    expectReads(owner);
  });

  it('that is rotated takes its slot, and the one before opens nothing any more', () => {
    expect(rotateKey(newest, [owner], 0, second)).toMatchObject({ slot: 0 });
    expect(opens(owner)).toBe(false);
    expectReads(second);
  });

  it('is not changed without one that opens the chain', () => {
    expect(() => addKey(newest, [second], keyFile('third'))).toThrow(/does not open it/);
    expect(() => addKey(newest, [], second)).toThrow(/is encrypted; give its key/);
    for (const [index, file] of paths.entries())
      expect(fs.readFileSync(file).equals(originals[index] ?? Buffer.alloc(0))).toBe(true);
  });
});

it('the last slot cannot be removed, nor one without a key for those that are left', () => {
  expect(() => removeKey(newest, [owner], 0)).toThrow(/is the last one/);
  addKey(newest, [owner], second);
  expect(() => removeKey(newest, [owner], 0)).toThrow(/so that nobody is locked out/);
  expect(() => removeKey(newest, [owner], 5)).toThrow(/has no key slot 5/);
  expectReads(owner);
});

it('when all slots are taken, another is refused', () => {
  for (let slot = 1; slot < 8; slot++) addKey(newest, [owner], keyFile(`key ${slot}`));
  expect(() => addKey(newest, [owner], keyFile('one more'))).toThrow(/all 8 key slots are taken/);
});

it('a change of slots changes no other byte, nor the time of change', () => {
  const before = fs.statSync(newest, { bigint: true }).mtimeNs;
  addKey(newest, [owner], second);
  expect(fs.statSync(newest, { bigint: true }).mtimeNs).toBe(before);
  for (const [index, file] of paths.entries()) {
    const [now, then] = [fs.readFileSync(file), originals[index] ?? Buffer.alloc(0)];
    expect(now.subarray(0, superblockBytes).equals(then.subarray(0, superblockBytes))).toBe(true);
    expect(now.subarray(dataOffset(true)).equals(then.subarray(dataOffset(true)))).toBe(true);
  }
});

it('an image is opened by either key block when the other is damaged, and scrub says so', () => {
  for (const copy of [0, 1]) {
    const bytes = Buffer.from(originals[2] ?? '');
    bytes.fill(0x55, superblockBytes + copy * 4096, superblockBytes + (copy + 1) * 4096);
    fs.writeFileSync(newest, bytes);
    expect(opens(owner, newest)).toBe(true);
    expect(faultsOf(newest).map(({ structure }) => structure)).toEqual(['key slots']);
  }
});

it('a consolidated image is opened by the keys of its images, and its slots change with theirs', async () => {
  addKey(newest, [owner], second);
  const all = folder.file('all.spf');
  try {
    await consolidateChain([newest], all);
    expect(opens(second, all)).toBe(true);
    expect(removeKey(newest, [owner], 1)).toMatchObject({ images: 4 });
    expect(opens(second, all)).toBe(false);
    expect(opens(owner, all)).toBe(true);
  } finally {
    fs.rmSync(all, { force: true });
  }
});

it.for(['signal=SIGKILL', 'error=EIO', 'error=ENOSPC'])(
  'a rotation that meets %s at any write leaves each image open to the old key or the new, and a rerun ends it',
  (what, ctx) => {
    if (noStrace !== undefined) ctx.skip(noStrace);
    for (const syscall of ['pwrite64', 'fdatasync']) {
      restore();
      const count = systemCalls([syscall], paths, script, [newest, 'owner', 'second']).length;
      expect(count).toBe(6);
      for (const when of strikes(count)) {
        restore();
        runInjected({ syscall, what, when }, paths, script, [newest, 'owner', 'second']);
        const where = `${what} at ${syscall} ${when}`;
        for (const file of paths) expect(opens(owner, file) || opens(second, file), where).toBe(true);
        const held = [owner, second];
        const { slots } = listKeys(newest);
        rotateKey(newest, held, slots[0]?.slot ?? 0, second);
        for (const file of paths) expect([opens(owner, file), opens(second, file)], where).toEqual([false, true]);
        expect(faultsOf(newest, ringOf(second)), where).toEqual([]);
      }
    }
  },
);
