/** Reads of consolidated images too large for one part of a map, and for one page of the index: believed where they are right alone. */
import fs from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { VeneerError } from '../../../src/base/errors.ts';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openChainDisk, type ChainDisk } from '../../../src/backup/read/chain.ts';
import { consolidateChain } from '../../../src/backup/care/consolidate-chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import * as format from '../../../src/backup/format/layout.ts';
import { expectReadsAs } from '../../disk/model-disk.ts';
import { Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { Forger } from '../forger.ts';
import { keyFile, ringOf } from '../keys.ts';
import { SourceDisk } from '../source-disk.ts';

const owner = keyFile('owner');
const blockBytes = 16 * KiB;
const leafSpan = format.leafEntries * blockBytes;
const leaves = 300;

let folder: TempFolder;
let source: SourceDisk;
let image: string;
let honest: Buffer;

beforeAll(async () => {
  folder = new TempFolder();
  source = new SourceDisk(folder.file('source.raw'), leaves * leafSpan);
  const random = new Seeded('vouched leaves');
  // A block in each leaf; then others, here and there.
  for (let leaf = 0; leaf < leaves; leaf++) source.write(leaf * leafSpan + 3 * blockBytes, random.bytes(blockBytes));
  await createImage(source.path, folder.file('0.spf'), { blockBytes, encrypt: owner });
  for (let count = 0; count < 300; count++)
    source.write(random.below(leaves * format.leafEntries) * blockBytes, random.bytes(blockBytes));
  await createImage(source.path, folder.file('1.spi'), { parent: folder.file('0.spf'), keys: ringOf(owner) });
  image = folder.file('all.spf');
  await consolidateChain([folder.file('1.spi')], image);
  honest = fs.readFileSync(image);
});
afterAll(() => folder.remove());

function openForged(forge: (forger: Forger) => void): ChainDisk {
  const forger = new Forger(honest);
  forge(forger);
  fs.writeFileSync(image, forger.finish());
  return openChainDisk(image, undefined, undefined, ringOf(owner));
}

it('an honest one reads as its chain, in any order', () => {
  using opened = closing(openForged(() => undefined));
  expectReadsAs(opened.value, source.model);
  const random = new Seeded('any order');
  for (let count = 0; count < 500; count++) {
    const offset = random.below(leaves * leafSpan - MiB);
    const target = Buffer.alloc(random.between(1, 9000));
    opened.value.read(target, offset);
    expect(target.equals(source.model.read(offset, target.length))).toBe(true);
  }
});

it('one that lies about a block gives nothing of that leaf, and all of the others', () => {
  const liedAt = 222;
  const forge = (forger: Forger): void =>
    forger.setEntry(liedAt * format.leafEntries + 3, { state: format.blockState.absent });
  using opened = closing(openForged(forge));
  for (const leaf of [221, 222, 223]) {
    const target = Buffer.alloc(blockBytes);
    const offset = leaf * leafSpan + 3 * blockBytes;
    const error = thrownByReading(opened.value, target, offset);
    if (leaf === liedAt)
      expect(error).toMatchObject({ code: 'INTEGRITY', message: expect.stringContaining('block 113667') as string });
    else expect(target.equals(source.model.read(offset, blockBytes))).toBe(true);
  }
});

it('one without the last page of its index is not taken for a disk that is zero there', () => {
  using opened = closing(openForged((forger) => forger.dropLastPage()));
  const missing = /block \d+ .*is not there, but image [01] of the chain holds it/;
  expect(() => [...opened.value.extents(0, opened.value.sizeBytes)]).toThrow(missing);
  expect(() => opened.value.read(Buffer.alloc(512), (leaves - 1) * leafSpan)).toThrow(missing);
});

it('one whose map is changed after it was opened is found out', () => {
  using opened = closing(openForged(() => undefined));
  const places = opened.value.images[0]?.sources() ?? [];
  const full = places.at(-1);
  const fd = fs.openSync(image, 'r+');
  const at = (full?.mapOffset ?? 0) + 20;
  fs.writeSync(fd, Uint8Array.of((honest[at] ?? 0) ^ 4), 0, 1, at);
  fs.closeSync(fd);
  expect(thrownByReading(opened.value, Buffer.alloc(512), 0)).toMatchObject({ code: 'INTEGRITY' });
});

function thrownByReading(disk: ChainDisk, target: Uint8Array, offset: number): unknown {
  try {
    disk.read(target, offset);
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(VeneerError);
    return error;
  }
}
